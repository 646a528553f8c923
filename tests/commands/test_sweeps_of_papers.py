"""Sweeps that repeat papers: each composes, and every claim is about arms, columns and sets that it has."""

import copy
import functools
import itertools
import re
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from rmlab.commands.sweep import settings_of
from rmlab.report.arms import name_arms
from rmlab.report.published import arm_called
from rmlab.runner.config import CONF, Config, register
from rmlab.runner.published import Published


@pytest.fixture(autouse=True)
def earlier_runs():
    """Runs that are followed are there."""
    register()
    OmegaConf.register_new_resolver("rmlab_run", lambda study, seed: "targets-reward_mse", replace=True)
    yield
    register()


FOLDER = ROOT / "sweeps" / "papers"
PAPERS = sorted(file.stem for file in FOLDER.glob("*.yaml"))


def choices_of(params):
    """The swept keys but the seed, and the values of each."""
    parsed = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items() if k != "seed"])
    return {
        one.key_or_group: list(one.sweep_string_iterator())
        if one.is_sweep_override()
        else [one.get_value_element_as_str()]
        for one in parsed
    }


@functools.cache
def composed(name, options):
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return compose(name, [*options, f"hydra.searchpath=[file://{CONF}]"], return_hydra_config=True)


def run_of(name, job):
    """As `report.runs.Run`, of a job that nobody has run. Composing takes long: values and losses are put in place."""
    config = copy.deepcopy(composed(name, tuple(f"{k}={v}" for k, v in job.items() if "." not in k and k != "loss")))
    HydraConfig.instance().set_config(config)
    settings = settings_of(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]))
    for key, value in job.items():
        *nodes, last = key.split(".")
        if key == "loss":
            settings["run"]["choices"]["loss"], value = value, option("loss", value)
        if nodes or key == "loss":
            functools.reduce(dict.__getitem__, nodes, settings)[last] = yaml.safe_load(value)
    Config.of(settings).check_values()
    return SimpleNamespace(config=settings, state="finished", arm="", made=0.0)


def option(group, name):
    """The text of the option's file."""
    return next(file for root in (FOLDER, CONF) if (file := root / group / f"{name}.yaml").exists()).read_text()


@pytest.mark.parametrize("name", PAPERS)
def test_a_sweep_of_a_paper_composes_and_its_claims_are_about_its_arms(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    content = yaml.safe_load(text)
    first, second = text.splitlines()[:2]
    assert first.startswith("question: ")
    assert first.endswith("?")
    assert second.startswith("# ")
    assert "arXiv" in second
    assert f"| `{name}` | {content['question']} |" in (ROOT / "docs" / "papers.md").read_text()
    choices = choices_of(content["hydra"]["sweeper"]["params"])
    runs = [run_of(name, dict(zip(choices, job, strict=True))) for job in itertools.product(*choices.values())]
    named = name_arms(runs)
    study = SimpleNamespace(values=named.values, usual=named.usual, arms=named.values)
    assert len(named.values) == len(runs)
    assert runs[0].config["report"]["baseline"] in named.values
    published = Published.of(runs[0].config["report"]["published"])
    sets = set(runs[0].config["data"]["eval"]) or {"eval"}
    for claim in published.stated():
        assert arm_called(claim.arm, study), claim.text
        assert arm_called(claim.other, study), claim.text
        assert (published.columns[claim.column].set or min(sets)) in sets, claim.text


@pytest.mark.parametrize("name", ["batch_zero", "llama2_margin"])
def test_what_a_sweep_says_of_its_columns_on_other_data_is_an_override(name):
    """Which part of other rows a column of the table stands for; the others stay."""
    (override,) = re.findall(r"^# .*'(report\.published\.columns=.*)'$", (FOLDER / f"{name}.yaml").read_text(), re.M)
    before, after = (composed(name, options).report.published.columns for options in ((), (override,)))
    assert list(after) == list(before)
    assert after != before
