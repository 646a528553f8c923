"""RunDirectory: every file comes back as it was written, a damaged one is named, and nobody else knows the names."""

import ast
import os
from dataclasses import replace

import pandas as pd
import pytest
from conftest import ROOT
from filelock import FileLock

from rmlab.data.style import STYLE
from rmlab.messages import UserError
from rmlab.metrics.scored import ScoredComparison
from rmlab.runner import directory as module
from rmlab.runner.directory import BusyError, RunDirectory, objective

MAPPING = {"eval": {"a": {"accuracy": 0.1 + 0.2, "n": 3, "none": None}}, "name": "häßlich: 'q'", "list": [1, 2.5, "x"]}


@pytest.fixture
def out(tmp_path):
    (tmp_path / "run").mkdir()
    return RunDirectory(tmp_path / "run")


# ---- round trips ----


@pytest.mark.parametrize("file", ["config", "environment", "metrics", "reproduction"])
def test_a_mapping_comes_back_as_it_was_written(file, out):
    assert getattr(out, file)() == {}
    getattr(out, f"write_{file}")(MAPPING)
    assert getattr(out, file)() == MAPPING
    assert list(getattr(out, file)()) == list(MAPPING), "in its order"
    getattr(out, f"write_{file}")({"other": 1})
    assert getattr(out, file)() == {"other": 1}
    assert len(list(out.path.iterdir())) == 1, "no scratch file is left"


def test_the_history_comes_back_as_it_was_written(out):
    entries = [{"loss": 0.7, "step": 1}, {"eval_nll": 0.6, "step": 1}]
    assert out.history() == []
    out.write_history(entries)
    assert out.history() == entries


def test_an_error_is_told_in_its_first_line_and_kept_whole(out):
    assert out.error() == ""
    try:
        raise RuntimeError("no memory\nat all")
    except RuntimeError as error:
        out.write_error(error)
    assert out.error() == "RuntimeError: no memory"
    whole = (out.path / "error.txt").read_text()
    assert "Traceback" in whole
    assert "at all" in whole
    assert __file__ in whole
    out.write_error(UserError("data.x is wrong"))
    assert out.error() == "data.x is wrong"
    out.forget_error()
    out.forget_error()
    assert out.error() == ""


def scored(index=0, **changes):
    one = ScoredComparison(
        index=index,
        id=f"row {index}",
        prompt_id=f"p{index}",
        subset="easy",
        rewards=[0.5, -1.25, 3.0],  # exact in fp32
        lengths=[3, 4, 5],
        gold=[1.5, 0.1, 2.7],
        better=[2, 0],
        worse=[0, 1],
        strength=[1.0, 0.3],
        probability=[1.0, 0.7],
    )
    return replace(one, **changes)


def test_scores_come_back_as_they_were_written(out):
    """Comparisons of other sizes, in their own order; with gold rewards, style, texts, preferences, and without."""
    pair = {"rewards": [1.0, 2.0], "lengths": [1, 1], "gold": [], "better": [1], "worse": [0]}
    pair.update(strength=[1.0], probability=[0.5])
    known = {"style": [[n, 0, 1, 2, 0, 3] for n in range(3)], "excerpts": ["p\u2026", "a", "", "c"]}
    alone = {"better": [], "worse": [], "strength": [], "probability": []}
    comparisons = [scored(7), scored(2, subset="", **pair), scored(11, gold=[]), scored(5, **known), scored(4, **alone)]
    assert not out.has_scores("eval")
    out.write_scores("eval", comparisons)
    assert out.has_scores("eval")
    assert out.scores("eval").comparisons() == comparisons
    out.write_scores("eval", comparisons[:1])
    assert out.scores("eval").comparisons() == comparisons[:1], "the texts are gone too"


def test_scores_of_before_texts_were_kept_are_read(out):
    out.write_scores("eval", [scored(0)])
    file = out.scores_file("eval")
    pd.read_parquet(file).drop(columns=list(STYLE)).to_parquet(file)
    assert out.scores("eval").comparisons() == [scored(0)]


def test_scores_are_tables_that_anyone_can_read(out):
    out.write_scores("a", [scored(0), scored(1)])
    responses = pd.read_parquet(out.path / "scores" / "a.parquet")
    preferences = pd.read_parquet(out.path / "scores" / "a.preferences.parquet")
    columns = ["comparison", "id", "prompt", "subset", "response", "reward", "length", "gold", *STYLE]
    assert responses.columns.tolist() == columns
    assert responses.reward.dtype == "float32"
    assert responses.response.tolist() == [0, 1, 2] * 2
    assert preferences.columns.tolist() == ["comparison", "better", "worse", "strength", "probability"]
    assert len(preferences) == 4


def test_only_the_first_rank_writes(out, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    for file in ("config", "environment", "metrics", "reproduction"):
        getattr(out, f"write_{file}")(MAPPING)
    out.write_history([])
    out.write_scores("eval", [scored()])
    assert list(out.path.iterdir()) == []


def test_every_rank_keeps_its_error(out, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    out.write_error(RuntimeError("no memory on this one"))
    monkeypatch.delenv("RANK")
    assert out.state == "failed"
    assert out.error() == "RuntimeError: no memory on this one"
    out.write_error(RuntimeError("the others are gone"))
    assert {p.name for p in out.path.iterdir()} == {"error.txt", "error.rank3.txt"}
    assert out.error() == "RuntimeError: the others are gone"
    out.forget_error()
    assert out.state == "new"


# ---- damage ----


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("config", "config.yaml"),
        ("environment", "environment.json"),
        ("metrics", "metrics.json"),
        ("history", "history.json"),
        ("reproduction", "reproduction.json"),
    ],
)
@pytest.mark.parametrize("content", [b"{cut: [", b"\xff\xfe\x00", b"3", b'"text"'])
def test_a_damaged_file_is_named(file, name, content, out):
    (out.path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        getattr(out, file)()
    assert str(out.path / name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["environment", "metrics", "history", "reproduction"])
def test_an_empty_json_file_is_damaged(file, out):
    """As a crash of the machine leaves it."""
    (out.path / f"{file}.json").touch()
    with pytest.raises(UserError, match=f"cannot read .*{file}.json"):
        getattr(out, file)()


@pytest.mark.parametrize("name", ["eval.parquet", "eval.preferences.parquet"])
def test_damaged_scores_are_named(name, out):
    out.write_scores("eval", [scored()])
    (out.path / "scores" / name).write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError) as error:
        out.scores("eval")
    assert name in str(error.value)


def test_numbers_that_json_does_not_have_are_refused_and_nothing_is_left(out):
    with pytest.raises(ValueError, match="JSON"):
        out.write_metrics({"nll": float("nan")})
    assert list(out.path.iterdir()) == []


@pytest.fixture
def ended(out):
    """A run that came to its end, with one evaluation set."""
    out.write_scores("eval", [scored(0), scored(1)])
    out.write_history([{"loss": 0.5, "step": 10}, {"loss": 0.25, "step": 20}])
    (out.path / "model").mkdir()
    (out.path / "model" / "model.safetensors").write_bytes(bytes(range(100)))
    metrics = {"eval": {"eval": {"accuracy": 1.0, "nll": 0.25}}, "train": {"loss": 0.125}}
    out.write_environment({"files": out.marks(metrics)})
    out.write_metrics(metrics)
    assert (out.state, out.damage()) == ("finished", None)
    return out


@pytest.mark.parametrize(
    "name",
    [
        "metrics.json",
        "environment.json",
        "history.json",
        "scores/eval.parquet",
        "scores/eval.preferences.parquet",
        "model/model.safetensors",
    ],
)
@pytest.mark.parametrize("harm", ["empty", "cut", "flipped"])
def test_a_run_with_a_damaged_file_is_damaged_and_not_finished(name, harm, ended):
    whole = (ended.path / name).read_bytes()
    half = len(whole) // 2
    flipped = whole[:half] + bytes([whole[half] ^ 128]) + whole[half + 1 :]
    (ended.path / name).write_bytes({"empty": b"", "cut": whole[:half], "flipped": flipped}[harm])
    assert (ended.state, ended.is_finished) == ("damaged", False)
    assert name.rpartition("/")[2] in ended.damage()


def test_one_other_digit_in_the_metrics_is_noticed(ended):
    file = ended.path / "metrics.json"
    file.write_text(file.read_text().replace("0.25", "0.26"))
    assert ended.damage() == "metrics.json is not what was written"


def test_a_model_that_was_given_away_is_no_damage(ended):
    """Disks are small, and the numbers are what reports need."""
    (ended.path / "model" / "model.safetensors").unlink()
    assert ended.state == "damaged"
    (ended.path / "model").rmdir()
    assert ended.state == "finished"


def test_a_run_without_the_scores_of_a_set_is_damaged(ended):
    ended.scores_file("eval").unlink()
    assert ended.damage() == "scores/eval.parquet is gone"


def test_scores_of_before_hashes_are_taken_as_they_are(ended):
    ended.write_environment({})
    assert ended.state == "finished"


def test_a_full_disk_is_a_sentence_and_leaves_nothing(out, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rmlab.files.os.fsync", full)
    for write in (lambda: out.write_metrics({"eval": {}}), lambda: out.write_scores("eval", [scored()])):
        with pytest.raises(UserError, match=r"cannot write .*(metrics.json|eval.parquet).*No space left"):
            write()
    assert [p for p in out.path.rglob("*") if p.is_file()] == []


def test_scratch_files_of_a_killed_process_are_removed_before_the_next_try(out):
    (out.path / "metrics.1234.tmp").touch()
    out.forget_error()
    assert list(out.path.iterdir()) == []


def test_what_is_redone_is_no_longer_finished_before_anything_else_goes(ended, monkeypatch):
    """A kill in the middle must not leave a finished run without its scores."""
    seen = []
    monkeypatch.setattr(module.shutil, "rmtree", lambda *_, **__: seen.append(ended.has_metrics))
    ended.forget_results()
    assert seen
    assert not any(seen)


# ---- its state ----


def test_the_state_is_what_the_files_say(out):
    assert (out.state, out.is_run) == ("new", False)
    out.write_config({})
    assert (out.state, out.is_run) == ("new", True)
    out.write_environment({})
    assert out.state == "half-done"
    out.write_error(RuntimeError("x"))
    assert out.state == "failed"
    with FileLock(out.path / ".lock"):
        assert out.state == "running"
        out.write_metrics({"eval": {}})
        assert out.state == "finished"
    assert not out.is_reproduction
    out.write_reproduction({})
    assert out.is_reproduction


def test_a_locked_directory_is_busy_for_a_second_process_and_free_afterwards(out):
    with out.locked():
        assert out.is_locked
        with pytest.raises(BusyError, match="is being trained by another process"), out.locked():
            pass
    assert not out.is_locked
    with out.locked():
        pass


def test_stamps_tell_a_file_that_was_written_again(out):
    assert out.stamps() == (None, None)
    out.write_metrics({})
    out.write_error(RuntimeError("x"))
    os.utime(out.path / "metrics.json", ns=(5, 5))
    os.utime(out.path / "error.txt", ns=(6, 6))
    assert out.stamps() == (5, 6)


def test_what_is_redone_is_forgotten_and_the_rest_stays(out):
    out.write_config({"seed": 1})
    out.write_metrics({})
    out.write_scores("eval", [scored()])
    for place in (out.checkpoints / "checkpoint-1", out.model, out.path / "adapter"):
        place.mkdir(parents=True)
    assert set(out.contents()) == {"model", "adapter", "scores", "metrics.json", "config.yaml"}
    out.forget_results()
    assert {p.name for p in out.path.iterdir()} == {"config.yaml"}


def test_a_run_directory_is_known_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = RunDirectory.of(tmp_path / "runs" / "a")
    assert (str(out), out.name) == ("runs/a", "a")
    assert out == RunDirectory.of("runs/a")
    assert len({out, RunDirectory.of("runs/a")}) == 1


def test_the_objective_is_the_accuracy_of_the_first_set():
    assert objective({"eval": {"a": {"accuracy": 0.5}, "b": {"accuracy": 1.0}}}) == 0.5
    assert objective({"eval": {"a": {}}}) is None
    assert objective({"eval": {}}) is None


# ---- the one reader and writer ----


def test_nobody_else_spells_the_names_of_its_files():
    """A literal that is such a name, or a path that ends in one. Docstrings, help texts and messages say more.

    identity.py finds the model of a run directory, and lies below. What `say` prints is a message also where it joins a
    path for a reader.
    """
    names = {v for k, v in vars(module).items() if k.isupper() and isinstance(v, str)}
    assert names >= {"metrics.json", "config.yaml", "environment.json", "history.json", "error.txt"}
    spelled = []
    for file in sorted((ROOT / "rmlab").rglob("*.py")):
        if file.name in ("directory.py", "identity.py"):
            continue
        tree = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        said = {id(part) for call in tree if is_call_of(call, "say") for part in ast.walk(call)}
        texts = [n for n in tree if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in said]
        spelled += [f"{file.relative_to(ROOT)}:{n.lineno}" for n in texts if n.value.rpartition("/")[2] in names]
    assert spelled == []


def is_call_of(node, function):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function
