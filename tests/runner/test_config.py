"""Every option of every group composes and validates; the config that is documented is the one there is."""

import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from rmlab.messages import UserError
from rmlab.runner.config import CONF, SET_ELSEWHERE, check_trainer, register, run_id, to_dict, trainer_fields, validate

register()
OPTIONS = sorted(
    (group.name, file.stem)
    for group in CONF.iterdir()
    if group.is_dir() and group.name != "hydra"
    for file in group.glob("*.yaml")
)


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        OmegaConf.set_struct(config, False)
        del config.hydra
        return config


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_with_nothing_missing(group, option, monkeypatch):
    import rmlab.runner.config as module

    monkeypatch.setattr(module, "check_model_files", lambda *a: None)
    config = to_dict(composed(f"{group}={option}"))
    validate(config)
    computed_from = {"seed", "model", "data", "scoring", "trainer", "loss", "peft"}
    assert set(config) == computed_from | {"study", "question", "report", "plugins", "run", "logger"}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_says_what_it_is_in_its_first_comment(group, option):
    lines = (CONF / group / f"{option}.yaml").read_text().splitlines()
    comment = lines[1] if "@package" in lines[0] else lines[0]
    assert re.match(r"# \S+ \S+", comment), comment


def test_every_shared_key_carries_a_comment():
    """In train.yaml each key of a group of ours is explained on its line."""
    text = (CONF / "train.yaml").read_text()
    own = re.search(r"^study:.*?(?=^trainer:)", text, re.S | re.M).group()
    silent = [line for line in own.splitlines() if re.match(r"\s*\w+:\s*\S", line) and "#" not in line]
    assert silent == []


def test_the_default_config_is_the_golden_one():
    """A change of a default is a change of results: it must show in a diff. Regenerate: python tests/test_config.py"""
    assert yaml.safe_load((ROOT / "tests" / "runner" / "golden_default.yaml").read_text()) == golden()


def golden():
    config = to_dict(composed())
    return {**config, "run": {k: v for k, v in config["run"].items() if k not in ("dir", "id")}}


def test_the_id_hashes_what_is_computed_and_not_where():
    base = run_id(composed())
    assert re.fullmatch(r"[0-9a-f]{8}", base)
    for same in (
        "study=other",
        "run.redo=true",
        "logger=none",
        "run.cache_dir=null",
        "run.name=x",
        "report.baseline=x",
        "plugins=[json]",
    ):
        assert run_id(composed(same)) == base, same
    for other in ("seed=1", "loss=margin", "+trainer.adam_beta2=0.98", "data.max_length=100", "peft=lora"):
        assert run_id(composed(other)) != base, other


def test_sweeping_a_group_needs_no_null():
    for group in ("peft", "logger", "experiment", "debug"):
        assert (CONF / group / "none.yaml").exists()


def test_trainer_fields_are_read_right():
    """What the source says (read without importing) is what the class has."""
    from dataclasses import fields

    from rmlab import RewardConfig

    assert set(trainer_fields()) == {f.name for f in fields(RewardConfig)}
    assert set(SET_ELSEWHERE) <= set(trainer_fields())
    assert trainer_fields()["learning_rate"] == {"float"}
    assert trainer_fields()["max_steps"] == {"int"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rat": 1e-5}, "trainer has no option 'learning_rat'; did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, "trainer.learning_rate must be float, not 'fast'"),
        ({"max_steps": 1.5}, "trainer.max_steps must be int, not 1.5"),
        ({"bf16": "yes"}, "trainer.bf16 must be None or bool, not 'yes'"),
        ({"seed": 1}, "trainer.seed is set by seed"),
        ({"max_length": 1}, "trainer.max_length is set by data.max_length"),
    ],
)
def test_wrong_trainer_options_are_named(given, message):
    with pytest.raises(UserError, match=message):
        check_trainer(given)
    check_trainer({"learning_rate": 1, "bf16": None, "max_steps": 3, "lr_scheduler_kwargs": {"x": 1}})


def test_the_config_module_needs_no_torch():
    code = "import sys, rmlab.commands.train; print('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


if __name__ == "__main__":
    (ROOT / "tests" / "runner" / "golden_default.yaml").write_text(yaml.safe_dump(golden(), sort_keys=False))
