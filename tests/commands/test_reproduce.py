"""rmlab-reproduce: what it finds changed, what it trains, and how it judges the numbers."""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, rmlab, run_directory
from filelock import FileLock

from rmlab.commands.reproduce import config_now, differences_now, main, make_room, parse
from rmlab.messages import UserError
from rmlab.runner.config import Config
from rmlab.runner.directory import RunDirectory

OF_THE_CHECKOUT = {"commit", "diff", "code"}  # may change while the tests run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run, and its folder as the current one: the caches of a config are relative to it."""
    place = tmp_path_factory.mktemp("finished")
    rmlab(place, "debug=tiny")
    before = os.getcwd()
    os.chdir(place)
    yield run_directory(place)
    os.chdir(before)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be changed."""
    ignored = shutil.ignore_patterns("checkpoints", "model", "reproduction")
    return shutil.copytree(finished, tmp_path / "run", ignore=ignored)


def edit(file, **values):
    """Change values of a YAML or JSON file; `__` goes a level down."""
    content = yaml.safe_load(file.read_text()) if file.suffix == ".yaml" else json.loads(file.read_text())
    for key, value in values.items():
        *nodes, last = key.split("__")
        place = content
        for node in nodes:
            place = place[node]
        place[last] = value
    file.write_text(yaml.safe_dump(content, sort_keys=False) if file.suffix == ".yaml" else json.dumps(content))


def read(file):
    return json.loads(file.read_text())


def refused(capsys, *arguments):
    """The one sentence of a command that ends with status 2."""
    assert main([*map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("rmlab-reproduce: error: ")


# ---- the command ----


def test_a_run_is_identical_on_the_same_machine(finished, capsys):
    """Also where torch would now choose another number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # the run had one: `rmlab` of test_runner
    try:
        assert main([str(finished)]) == 0
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "identical"
    out = finished / "reproduction"
    report = read(out / "reproduction.json")
    assert set(report["environment"]) <= OF_THE_CHECKOUT
    assert ("nothing that was recorded differs" in printed) == (not report["environment"])
    assert (report["verdict"], report["config"], report["metrics"]) == ("identical", {}, {})
    rows = len(pd.read_parquet(finished / "scores" / "eval.parquet"))
    assert report["sets"]["eval"]["rows"] == [rows, rows]
    assert report["sets"]["eval"]["nll"] == [read(finished / "metrics.json")["eval"]["eval"]["nll"]] * 2
    assert read(out / "environment.json")["hardware"]["threads"] == 1
    assert (out / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


def test_an_edited_config_is_named_and_gives_other_numbers(copied, capsys):
    edit(copied / "config.yaml", trainer__learning_rate=0.002)
    edit(copied / "environment.json", data={"train/synthetic": "others"})
    before = (copied / "metrics.json").read_bytes()
    assert main([str(copied)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "  trainer.learning_rate: 0.001 -> 0.002" in lines
    assert any(line.startswith("  data.train/synthetic: others -> ") for line in lines)
    (causes,) = (line for line in lines if line.startswith("likely causes: trainer.learning_rate, "))
    assert "data.train/synthetic" in causes
    assert lines[-1] == "different"
    part = read(copied / "reproduction" / "reproduction.json")["sets"]["eval"]
    assert part["same_rows"]
    assert part["reward_difference"] > 1e-5
    assert (copied / "metrics.json").read_bytes() == before


def test_an_override_is_named_and_replaces_an_earlier_reproduction(finished, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (out / "reproduction.json").write_text("{}")
    assert main([str(finished), "-o", str(out), "trainer.learning_rate=2e-3", "trainer.save_strategy=no"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "  trainer.learning_rate: 0.001 -> 0.002" in lines
    assert lines[-1] == "different"
    assert read(out / "reproduction.json")["config"]["trainer.learning_rate"] == [0.001, 0.002]
    assert not (out / "checkpoints" / "checkpoint-1").exists()


def test_a_failed_rerun_is_one_line_after_what_differs(copied, capsys, monkeypatch):
    def stop(config, out):
        raise RuntimeError("no memory left\nand a second line")

    monkeypatch.setattr("rmlab.runner.run.run", stop)
    edit(copied / "environment.json", packages__torch="1.0", hardware__gpu="H100")
    assert main([str(copied)]) == 1
    printed = capsys.readouterr()
    assert printed.err == "rmlab-reproduce: error: the rerun failed: RuntimeError: no memory left\n"
    assert any(line.startswith("  packages.torch: 1.0 -> 2.") for line in printed.out.splitlines())
    assert "  hardware.gpu: H100 -> none" in printed.out.splitlines()


def test_other_numbers_without_a_cause_say_so(finished, copied, tmp_path, capsys, monkeypatch):
    def other(config, out):
        edit(copied / "metrics.json", train__loss=9.0)
        shutil.copytree(copied, out, dirs_exist_ok=True)

    monkeypatch.setattr("rmlab.runner.run.run", other)
    monkeypatch.setattr("rmlab.commands.reproduce.differences_now", lambda *_: {"commit": ["a", "b"]})
    assert main([str(finished), "-o", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "  commit: a -> b" in lines
    assert lines[-2:] == ["nothing that was recorded explains it", "different"]


def test_help_answers_without_torch():
    code = "import sys\nfrom rmlab.commands.reproduce import main\ntry:\n    main(['--help'])\nfinally:\n"
    code += "    print('TORCH', 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert "RUN_DIR" in done.stdout
    assert "TORCH False" in done.stdout


# ---- what is refused ----


def test_only_a_finished_run_directory_is_accepted(copied, tmp_path, capsys):
    assert refused(capsys, tmp_path / "gone") == f"there is no directory {tmp_path / 'gone'}"
    (tmp_path / "empty").mkdir()
    assert "is no run directory: it holds no config.yaml" in refused(capsys, tmp_path / "empty")
    (copied / "metrics.json").unlink()
    assert "is not finished but half-done" in refused(capsys, copied)
    with FileLock(copied / ".lock"):
        assert "is not finished but running" in refused(capsys, copied)
    (copied / "error.txt").write_text("a reason")
    assert "is not finished but failed" in refused(capsys, copied)
    assert not (copied / "reproduction").exists()


def test_a_run_without_its_scores_is_refused_before_it_is_trained(copied, capsys):
    (copied / "scores" / "eval.parquet").unlink()
    assert "is damaged: scores/eval.parquet is gone" in refused(capsys, copied)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.max_lenth=3", "the config has no 'data.max_lenth'; did you mean 'data.max_length'?"),
        ("loss=margin", "the config has no 'loss'"),
        ("trainer.learning_rate.x=3", "learning_rate is 0.001"),
        ("trainer.learning_rat=3", "trainer has no option 'learning_rat'; did you mean 'learning_rate'?"),
        ("trainer.max_steps=many", "trainer.max_steps must be int, not 'many'"),
        ("data.eval_fraction=much", "data.eval_fraction: Value 'much' of type 'str' could not be converted to Float"),
        ("data.columns=3", "data.columns"),
        ("model.train_layers=1", "the config has no 'model.train_layers'; did you mean 'model.train_last_layers'?"),
        ("plugins=[no_such_module]", "plugins: cannot import 'no_such_module'"),
        ("seed=[1", "cannot read the value '[1'"),
        ("seed", "'seed' is no override; write key=value"),
    ],
)
def test_a_wrong_override_is_one_sentence(finished, override, sentence, tmp_path, capsys):
    assert sentence in refused(capsys, finished, override, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_config_that_cannot_be_read_is_one_sentence(copied, capsys):
    content = yaml.safe_load((copied / "config.yaml").read_text())
    for key in ("run", "plugins"):
        (copied / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in content.items() if k != key}))
        assert refused(capsys, copied) == f"{copied} holds a config.yaml without '{key}'"
    (copied / "config.yaml").write_text(yaml.safe_dump({**content, "data": {**content["data"], "head": 64}}))
    assert refused(capsys, copied) == "data.head is now data.limit"
    (copied / "config.yaml").write_text("a: [")
    assert refused(capsys, copied).startswith(f"cannot read {copied / 'config.yaml'}: ")
    (copied / "config.yaml").write_text("[]")
    assert refused(capsys, copied) == f"{copied / 'config.yaml'} holds no keys and values"


def test_a_damaged_metrics_or_environment_file_is_one_sentence(copied, capsys):
    for name in ("metrics.json", "environment.json"):
        whole = (copied / name).read_text()
        (copied / name).write_text(whole[: len(whole) // 2])
        assert f"is damaged: cannot read {copied / name}: " in refused(capsys, copied)
        (copied / name).write_text(whole)


def test_nothing_but_an_earlier_reproduction_is_replaced(copied, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    assert "is something else than an earlier reproduction" in refused(capsys, copied, "-o", other)
    assert (other / "thesis.tex").exists()
    for place in (copied, copied.parent):
        (place / "reproduction.json").write_text("{}")
        assert "would replace" in refused(capsys, copied, "-o", place)
    out = tmp_path / "out"
    make_room(RunDirectory(out), RunDirectory(copied))
    with FileLock(out / ".lock"), pytest.raises(UserError, match="trained by another process"):
        make_room(RunDirectory(out), RunDirectory(copied))


# ---- the config ----


def test_a_new_option_is_taken_where_others_define_them(finished):
    overrides = ["+loss.center.weight=1e-2", "trainer.warmup_steps=0", "data.columns.prompt=question", "run.threads=1"]
    config, changes = config_now(RunDirectory(finished), read(finished / "environment.json"), overrides)
    assert config["loss"] == {"bradley_terry": {"margin": 0.0}, "center": {"weight": 0.01}}
    assert changes == {
        "trainer.warmup_steps": [0.1, 0],
        "loss.center.weight": [None, 0.01],
        "data.columns.prompt": [None, "question"],
    }
    assert config["run"]["threads"] == 1
    assert config["logger"] == {"report_to": "none"}


def test_a_part_that_config_yaml_lacks_has_its_default_and_is_named_if_it_was_another(copied):
    content = yaml.safe_load((copied / "config.yaml").read_text())
    del content["scoring"]
    (copied / "config.yaml").write_text(yaml.safe_dump(content))
    environment = read(copied / "environment.json")
    config, changes = config_now(RunDirectory(copied), environment, [])
    assert (config["scoring"], changes) == ({"layout": "auto"}, {})
    environment["config"]["scoring"]["layout"] = "packed"
    assert config_now(RunDirectory(copied), environment, [])[1] == {"scoring.layout": ["packed", "auto"]}


def test_an_older_run_without_its_config_as_trained_is_compared_with_config_yaml(copied):
    edit(copied / "config.yaml", trainer__learning_rate=0.002)
    environment = read(copied / "environment.json")
    assert config_now(RunDirectory(copied), environment, [])[1] == {"trainer.learning_rate": [0.001, 0.002]}
    del environment["config"], environment["hardware"]
    assert config_now(RunDirectory(copied), environment, [])[1] == {}
    assert config_now(RunDirectory(copied), environment, ["seed=7"])[1] == {"seed": [0, 7]}


@pytest.mark.parametrize(
    ("text", "before", "value"),
    [
        ("1e-3", 0.1, 0.001),
        ("1e-3", None, 0.001),
        ("1e-3", "v1", "1e-3"),
        ("no", "steps", "no"),
        ("True", False, True),
        ("a b", None, "a b"),
        ("[1, x]", None, [1, "x"]),
        ("", 3, None),
    ],
)
def test_values_are_read_as_rmlab_reads_them(text, before, value):
    assert parse(text, before) == value


# ---- what differs ----


def test_changed_and_missing_inputs_are_told_apart(tmp_path):
    from rmlab.runner.environment import describe_environment, fingerprints

    files = {name: tmp_path / f"{name}.jsonl" for name in ("same", "changed", "gone")}
    for file in files.values():
        file.write_text("{}\n")
    specs = {**{name: {"path": str(file)} for name, file in files.items()}, "hub": {"path": "some/name"}}
    config = {"data": {"train": specs, "eval": {}}, "plugins": [], "run": {"threads": None}}
    then = {**describe_environment(), "inputs": fingerprints(Config.of(config))}
    assert differences_now(then, config) == {}
    files["changed"].write_text("{}\n{}\n")
    files["gone"].unlink()
    differences = differences_now(then, config)
    assert differences.keys() == {f"inputs.{files['changed']}", f"inputs.{files['gone']}"}
    assert differences[f"inputs.{files['gone']}"][1] == "no file"
    assert "no file" not in differences[f"inputs.{files['changed']}"]


def test_what_was_recorded_then_is_compared_and_nothing_else():
    from rmlab.runner.environment import describe_environment

    config = {"data": {"train": {}, "eval": {}}, "plugins": [], "run": {"threads": 7}}
    then = {**describe_environment(), "inputs": {}, "processes": 4, "python": "3.9.1", "code": "other"}
    del then["packages"]["numpy"], then["commit"]
    then["hardware"].update(machine="riscv", threads=3)
    found = differences_now(then, config)
    assert found.keys() == {"code", "python", "processes", "hardware.machine", "hardware.threads"}
    assert found["hardware.threads"] == [3, 7]
    assert found["processes"] == [4, 1]


def test_a_gpu_that_is_here_now_and_was_not_then_is_named(monkeypatch):
    def here(**gpu):
        return {"processes": 1, "hardware": {"machine": "x", "threads": 2, **gpu}}

    config = {"data": {"train": {}, "eval": {}}, "plugins": [], "run": {"threads": None}}
    monkeypatch.setattr("rmlab.commands.reproduce.describe_environment", lambda: here(gpu="H100", gpus=1))
    assert differences_now(here(), config) == {"hardware.gpu": [None, "H100"], "hardware.gpus": [None, 1]}
    assert differences_now(here(gpu="H100", gpus=1), config) == {}


# ---- directories of somebody else ----


def test_code_is_not_run_unless_it_is_trusted(copied, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.py").write_text("open('it-ran', 'w')\n")
    edit(copied / "config.yaml", plugins=["hostile"])
    assert "the config would run plugin hostile (" in refused(capsys, copied, "-o", tmp_path / "out")
    assert not (tmp_path / "it-ran").exists()
    for override in ("model.trust_remote_code=false", "study=my_plugins=x"):
        assert "would run plugin hostile" in refused(capsys, copied, override, "-o", tmp_path / "out")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("open('it-ran', 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    edit(copied / "config.yaml", plugins=["package.sub"])
    assert "would run plugin package.sub (" in refused(capsys, copied, "-o", tmp_path / "out")
    assert not (tmp_path / "it-ran").exists(), "not even to see where it lies"
    edit(copied / "config.yaml", plugins=[], model__attn_implementation="them/kernel")
    assert "the kernel them/kernel" in refused(capsys, copied, "plugins=[]", "-o", tmp_path / "out")
    edit(copied / "config.yaml", model__attn_implementation="sdpa")
    edit(copied / "config.yaml", plugins=[], model__trust_remote_code=True, model__path="some/model")
    assert "the code that comes with the checkpoint some/model" in refused(capsys, copied, "-o", tmp_path / "out")


@pytest.mark.parametrize("name", ["/abs/x", "../x", "a/b"])
def test_a_set_whose_name_is_a_path_is_refused(name, copied, tmp_path, capsys):
    edit(copied / "config.yaml", data__eval={name: {"source": "load", "path": "x.jsonl"}})
    assert f"data.eval: {name!r} names a file" in refused(capsys, copied, "-o", tmp_path / "out")


@pytest.mark.parametrize("template", ["/etc/hostname", "../../secret"])
def test_a_file_of_this_machine_is_no_template_unless_it_is_named_here(template, copied, tmp_path, capsys):
    edit(copied / "config.yaml", model__chat_template=template)
    assert f"model.chat_template is {template}" in refused(capsys, copied, "-o", tmp_path / "out")


def test_a_link_to_elsewhere_is_no_place_for_a_reproduction(copied, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (copied / "reproduction").symlink_to(tmp_path / "elsewhere")
    assert "is a link to somewhere else" in refused(capsys, copied)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_nothing_is_pushed_or_written_elsewhere(copied, tmp_path, capsys):
    trainer = read_yaml(copied / "config.yaml")["trainer"]
    cache = tmp_path / "somewhere"
    edit(
        copied / "config.yaml", run__cache_dir=str(cache),
        trainer={**trainer, "push_to_hub": True, "hub_model_id": "them/theirs"},
    )  # fmt: skip
    main([str(copied), "-o", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert "trainer.push_to_hub is left out: a reproduction stays on this machine" in told
    assert not cache.exists()
    assert {p.name for p in tmp_path.iterdir()} == {"run", "out"}
    assert not {"push_to_hub", "hub_model_id"} & set(read_yaml(tmp_path / "out" / "config.yaml")["trainer"])


def read_yaml(file):
    return yaml.safe_load(file.read_text())
