"""Sweeps as files: what those of sweeps/ promise, and that a file takes what the command line takes."""

import json
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from sweeping import TINY, here

from rmlab.runner.config import CONF, Config, register, run_id, to_dict
from rmlab.runner.directory import RunDirectory

register()
SWEEPS = sorted(file.stem for file in (ROOT / "sweeps").glob("*.yaml") if file.stem != "wandb")


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_file_asks_a_question_and_its_jobs_compose(name):
    text = (ROOT / "sweeps" / f"{name}.yaml").read_text()
    assert text.startswith("question: ")
    assert text.splitlines()[0].endswith("?")
    content = yaml.safe_load(text)
    assert f"| `{name}` | {content['question']} |" in (ROOT / "docs" / "sweeps.md").read_text()
    assert content["hydra"]["mode"] == "MULTIRUN"
    assert content["study"] == name
    params = content["hydra"]["sweeper"]["params"]
    ids = set()
    jobs = first_jobs(params) if name != "tune" else [["loss=plain", "trainer.learning_rate=0.001"]]
    for job in jobs:
        with initialize_config_dir(str(ROOT / "sweeps"), version_base="1.3"):
            config = compose(name, [*job, f"hydra.searchpath=[file://{CONF}]"], return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            OmegaConf.set_struct(config, False)
            del config.hydra
            Config.of(to_dict(config)).check()
            ids.add(run_id(config))
    assert len(ids) == len(jobs)


def first_jobs(params):
    """Every value of the first swept key, with the first value of the others."""
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    choices = []
    for override in parsed:
        if "glob" in str(params[override.key_or_group]):
            values = [file.stem for file in sorted((CONF / override.key_or_group).glob("*.yaml"))]
        elif override.is_sweep_override():
            values = list(override.sweep_string_iterator())
        else:
            values = [override.get_value_element_as_str()]
        choices.append([f"{override.key_or_group}={value}" for value in values])
    swept = next(i for i, values in enumerate(choices) if len(values) > 1)
    return [[values[0] if i != swept else value for i, values in enumerate(choices)] for value in choices[swept]]


def test_every_registered_loss_is_swept_and_an_experiment_replaces_the_embedded_default(tmp_path):
    """`glob(*)` finds the losses of -cd too, and one override brings other data."""
    command = [
        sys.executable,
        "-m",
        "rmlab.commands.train",
        "-cd",
        str(ROOT / "sweeps"),
        "-cn",
        "losses",
        "--cfg",
        "all",
    ]
    done = subprocess.run([*command, "experiment=topical_chat_minilm"], capture_output=True, text=True, cwd=tmp_path)
    config = yaml.safe_load(done.stdout)
    assert config["hydra"]["sweeper"]["params"] == {"loss": "glob(*)", "seed": "range(5)"}
    assert list(config["data"]["train"]) == ["train"]
    assert config["run"]["threads"] is None
    assert config["study"] == "losses"


# ---- what is written on the command line can be written in a file, and as a dict ----


def configs(place, study="s"):
    return [RunDirectory(file.parent).config() for file in sorted(place.glob(f"runs/{study}/*/config.yaml"))]


MINE = """
defaults: [train, override loss: plain, override debug: tiny, _self_]
study: s
trainer: {adam_beta2: 0.98, adam_beta1: 0.8}
run: {threads: 1}
hydra:
  mode: MULTIRUN
  searchpath: ["file://CONF"]
  sweeper:
    params:
      loss.center.weight: 0,0.1
      trainer.adam_epsilon: 1e-6
"""


@pytest.mark.slow
def test_a_sweep_file_adds_a_term_and_fields_that_its_options_lack(tmp_path):
    """loss=plain has no center, the trainer node no adam_*: neither needs a + in a file."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "center.yaml").write_text(MINE.replace("CONF", str(CONF)))
    printed = here(tmp_path, "-cd", "mine", "-cn", "center")
    assert "\n[2/2] plain-s0-" in printed
    found = configs(tmp_path)
    assert sorted(c["loss"]["center"]["weight"] for c in found) == [0, 0.1]
    for config in found:
        assert config["loss"]["bradley_terry"] == {"margin": 0.0}
        asked = {"adam_beta1": 0.8, "adam_beta2": 0.98, "adam_epsilon": 1e-6, "max_steps": 2}
        assert {key: config["trainer"][key] for key in asked} == asked


@pytest.mark.slow
def test_a_sweep_takes_dicts_with_new_keys(tmp_path):
    """A column mapping, alone and as the values of a sweep."""
    rows = [{"q": f"p{n} ", "ask": f"p{n}! ", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(40)]
    (tmp_path / "my.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mine = [*TINY, "data=files", "data.path=my.jsonl"]
    here(tmp_path, *mine, "data.columns={prompt: q}", "trainer={adam_beta2: 0.98}")
    (config,) = configs(tmp_path)
    assert config["data"]["columns"] == config["data"]["train"]["train"]["columns"] == {"prompt": "q"}
    assert (config["trainer"]["adam_beta2"], config["trainer"]["max_steps"]) == (0.98, 2)
    here(tmp_path, *mine, "data.columns={prompt: q},{prompt: ask}")
    columns = [config["data"]["columns"]["prompt"] for config in configs(tmp_path)]
    assert sorted(columns) == ["ask", "q", "q"]


@pytest.mark.slow
def test_a_new_key_is_swept_on_the_command_line_without_a_plus(tmp_path):
    here(tmp_path, *TINY, "loss=plain", "loss.center.weight=0,0.1", "trainer.adam_beta2=0.98")
    assert sorted(c["loss"]["center"]["weight"] for c in configs(tmp_path)) == [0, 0.1]


@pytest.mark.parametrize("argument", ["data.head=3,4", "+data.head=3", "model.train_layers=0,1"])
def test_an_old_name_is_refused_before_a_sweep_begins(argument, tmp_path):
    printed = here(tmp_path, *TINY, argument, status=2)
    assert " is now " in printed
    assert not list(tmp_path.glob("runs"))


def test_an_old_name_in_a_sweep_file_is_refused_too(tmp_path):
    (tmp_path / "mine").mkdir()
    params = "loss.center.weight: 0,0.1"
    (tmp_path / "mine" / "old.yaml").write_text(MINE.replace("CONF", str(CONF)).replace(params, "data.head: 3,4"))
    printed = here(tmp_path, "-cd", "mine", "-cn", "old", status=2)
    assert "data.head is now data.limit" in printed
    assert not list(tmp_path.glob("runs/s/*/metrics.json"))
