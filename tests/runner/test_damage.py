"""A run whose files are damaged, whose code or device is another, or whose directory is somebody else's."""

import json

import pytest
import yaml
from conftest import rmlab, run_directory

from rmlab import run
from rmlab.messages import UserError
from rmlab.runner import resume
from rmlab.runner.directory import RunDirectory

TINY = ["debug=tiny", "logger=none", "run.threads=1", "trainer.save_steps=2", "run.keep=[model,checkpoints]"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A finished run: its directory, its config, its metrics."""
    place = tmp_path_factory.mktemp("original")
    rmlab(place, *TINY)
    out = run_directory(place)
    config = yaml.safe_load((out / "config.yaml").read_text())
    config["run"]["cache_dir"] = str(place / "cache")
    return out, config


@pytest.fixture
def ended(original, tmp_path):
    """A run of this process that came to its end: (directory, config, bytes of metrics.json)."""
    _, config = original
    out = RunDirectory(tmp_path / "run")
    run(config, out.path)
    return out, config, (out.path / "metrics.json").read_bytes()


def again(out, config, capsys):
    capsys.readouterr()
    run(config, out.path)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["metrics.json", "environment.json", "scores/eval.parquet", "model/model.safetensors"])
def test_a_damaged_run_is_named_and_finished_again(name, ended, capsys):
    out, config, metrics = ended
    (out.path / name).write_bytes(b"")
    assert out.state == "damaged"
    told = again(out, config, capsys)
    assert name.rpartition("/")[2] in told
    assert out.state == "finished"
    assert (out.path / "metrics.json").read_bytes() == metrics
    if name != "environment.json":  # without it nobody knows what made the checkpoints
        assert "trained already, " in told


def test_a_damaged_config_of_a_finished_run_is_written_again(ended, capsys):
    out, config, _ = ended
    whole = (out.path / "config.yaml").read_text()
    for harm in (whole[: len(whole) // 2], "", "a: [", whole.replace("learning_rate: 0.001", "learning_rate: 0.5")):
        (out.path / "config.yaml").write_text(harm)
        assert "is not what was trained; it is written again" in again(out, config, capsys)
        assert (out.path / "config.yaml").read_text() == whole
    assert "written again" not in again(out, config, capsys)


@pytest.mark.slow
def test_checkpoints_of_other_code_or_device_are_not_gone_on_from(ended, capsys, monkeypatch):
    out, config, metrics = ended
    for key, value in (("code", "other"), ("processes", 4), ("hardware", {"gpu": "another"})):
        out.forget_metrics()
        out.write_environment({**out.environment(), key: value})
        told = again(out, config, capsys)
        word = {"hardware": "device"}.get(key, key)
        assert f"was begun with other {word} than is here now; it starts afresh" in told
        assert "trained already" not in told
        assert (out.path / "metrics.json").read_bytes() == metrics
    out.forget_metrics()
    assert "afresh" not in again(out, config, capsys)


def test_a_directory_of_another_run_is_refused_whether_finished_or_not(ended):
    out, config, _ = ended
    other = {**config, "trainer": {**config["trainer"], "learning_rate": 0.5}}
    for _ in range(2):
        with pytest.raises(UserError, match=r"holds another run, with trainer.learning_rate=0.001 and not 0.5"):
            run(other, out.path)
        out.forget_metrics()
    run({**other, "run": {**other["run"], "redo": True}}, out.path)
    assert json.loads((out.path / "environment.json").read_text())["config"]["trainer"]["learning_rate"] == 0.5


@pytest.mark.slow
def test_a_redo_that_was_killed_is_not_taken_for_finished(ended, monkeypatch):
    out, config, metrics = ended
    monkeypatch.setattr("rmlab.runner.directory.shutil.rmtree", killed)
    with pytest.raises(SystemExit):
        run({**config, "run": {**config["run"], "redo": True}}, out.path)
    monkeypatch.undo()
    assert out.state == "half-done"
    run(config, out.path)
    assert (out.path / "metrics.json").read_bytes() == metrics


def killed(*_, **__):
    raise SystemExit


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/3"),
        pytest.param(
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), marks=pytest.mark.slow
        ),
    ],
)
def test_a_full_disk_is_one_sentence_wherever_it_is_met(error, ended, monkeypatch):
    out, config, metrics = ended
    out.forget_metrics()

    def full(*_, **__):
        raise error

    monkeypatch.setattr("rmlab.model.export.export", full)
    with pytest.raises(UserError, match=r"the disk of .* is full; make room, and the same command goes on"):
        run(config, out.path)
    assert out.error().startswith("the disk of")
    monkeypatch.undo()
    run(config, out.path)
    assert (out.path / "metrics.json").read_bytes() == metrics


def test_an_error_that_is_no_full_disk_stays_what_it_is(tmp_path):
    assert resume.full_disk(RuntimeError("CUDA out of memory"), RunDirectory(tmp_path)) is None


def test_a_gradient_that_is_no_number_is_null_in_the_files():
    from rmlab.runner.curves import finite

    assert finite({"loss": 0.5, "grad_norm": float("inf"), "step": 3}) == {"loss": 0.5, "grad_norm": None, "step": 3}
