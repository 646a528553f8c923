"""Every option of every group composes and validates; the config that is documented is the one there is."""

import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from rmlab.messages import UserError
from rmlab.model.config import ModelConfig
from rmlab.runner.check import SET_ELSEWHERE, check_trainer, trainer_fields
from rmlab.runner.config import CONF, OPEN, Config, LoggerConfig, flatten, register, run_id, to_dict

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
    monkeypatch.setattr(ModelConfig, "check", lambda *_: None)  # of checkpoints that are not here
    config = to_dict(composed(f"{group}={option}"))
    Config.of(config).check()
    computed_from = {"seed", "model", "data", "scoring", "trainer", "loss", "peft"}
    assert set(config) == computed_from | {"study", "question", "report", "plugins", "run", "logger", "eval"}


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
    """A change of a default is a change of results: it must show in a diff.

    Regenerate: PYTHONPATH=tests python tests/runner/test_config.py
    """
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
    for other in ("seed=1", "loss=margin", "trainer.adam_beta2=0.98", "data.max_length=100", "peft=lora"):
        assert run_id(composed(other)) != base, other


def test_sweeping_a_group_needs_no_null():
    for group in ("peft", "logger", "experiment", "debug"):
        assert (CONF / group / "none.yaml").exists()


# ---- defaults: of the YAML and of Python ----

GROUPS = ("model", "data", "loss", "peft", "logger", "experiment", "debug")
PARTS = ("model", "data", "scoring", "run", "report")
OF_A_RUN = {"data.train", "run.name", "run.id", "run.dir"}  # what each run has its own of, or must give
OF_FILES = {f"data.{key}" for key in ("path", "name", "split", "revision", "columns", "prompt_separator", "streaming")}


def test_train_yaml_and_the_dataclasses_have_the_same_defaults():
    """A run from Python and one of the command line differ in nothing that neither of them says."""
    alone = [f"~{group}" for group in (*GROUPS, "model/head")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = OmegaConf.to_container(compose("train", alone), resolve=False)
    python = Config().as_dict()
    composed = {key: value for part in PARTS for key, value in flatten(node[part], part).items()}
    expected = {key: value for part in PARTS for key, value in flatten(python[part], part).items()}
    assert composed.keys() == expected.keys()
    different = {key: (value, expected[key]) for key, value in composed.items() if value != expected[key]}
    assert different.keys() <= OF_A_RUN, different
    assert {key: node[key] for key in ("study", "question", "seed", "plugins")} == {
        key: python[key] for key in ("study", "question", "seed", "plugins")
    }


def test_train_yaml_states_every_key_but_those_of_files():
    """The composed config has each key of the schema: this looks at what is written down, and so documented."""
    written = yaml.safe_load((CONF / "train.yaml").read_text())
    stated = {f"{part}.{key}" for part in PARTS for key in written[part]}
    python = {f"{part}.{key}" for part in PARTS for key in Config().as_dict()[part]}
    assert python - stated == OF_FILES | {"run.choices", "run.began"}
    assert stated <= python


@pytest.mark.parametrize("logger", ["none", "tensorboard", "trackio", "wandb"])
def test_the_logger_options_are_the_dataclass_defaults(logger):
    """Without `mode`, which WANDB_MODE may say."""
    node = yaml.safe_load((CONF / "logger" / f"{logger}.yaml").read_text())
    typed = LoggerConfig.of(node)
    assert {key: getattr(typed, key) for key in node if key != "mode"} == {k: v for k, v in node.items() if k != "mode"}
    assert {k for k in node if getattr(LoggerConfig(), k) != node[k]} <= {"report_to", "mode"}


# ---- names and types ----


@pytest.mark.parametrize(
    ("old", "new"), [("data.head", "data.limit"), ("model.train_layers", "model.train_last_layers")]
)
def test_an_old_name_is_refused_with_the_new_one(old, new):
    node, key = old.split(".")
    with pytest.raises(UserError, match=f"^{re.escape(old)} is now {re.escape(new)}$"):
        Config.of({node: {key: 1}})
    assert getattr(getattr(Config.of({node: {new.split(".")[1]: 1}}), node), new.split(".")[1]) == 1


def test_the_trainer_refuses_the_old_name_too():
    from rmlab import RewardConfig

    with pytest.raises(UserError, match="train_layers is now train_last_layers"):
        RewardConfig(output_dir="unused", train_layers=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": {"max_lenght": 3}}, "data has no 'max_lenght'; did you mean 'max_length'?"),
        ({"dta": {}}, "the config has no 'dta'; did you mean 'data'?"),
        ({"data": {"limit": "long"}}, "data.limit: Value 'long' of type 'str' could not be converted"),
        ({"seed": "x"}, "seed: Value 'x' of type 'str' could not be converted"),
    ],
)
def test_a_wrong_key_or_type_of_a_mapping_is_named(given, message):
    with pytest.raises(UserError, match="^" + re.escape(message)):
        Config.of(given)


@pytest.mark.parametrize(
    ("key", "least"),
    [
        ("data.limit", 1),
        ("data.max_rows", 1),
        ("data.max_length", 1),
        ("run.threads", 1),
        ("run.num_proc", 1),
        ("run.feature_cache_gb", 0),
        ("model.train_last_layers", 0),
        ("trainer.tokens_per_batch", 1),
    ],
)
def test_a_number_below_its_range_is_named(key, least):
    node, name = key.split(".")
    message = f"^{re.escape(key)} is {float(least - 1) if 'gb' in key else least - 1}; it must be at least {least}$"
    model = {"config": {"model_type": "qwen3"}}
    with pytest.raises(UserError, match=message):
        Config.of({"model": model, node: {**(model if node == "model" else {}), name: least - 1}}).check()


def test_a_config_is_what_its_mapping_says_and_comes_back_as_one():
    mapping = to_dict(composed("loss=centered", "peft=lora", "data=files", "data.path=x.jsonl"))
    whole = Config.of(mapping).as_dict()
    assert whole == mapping
    assert Config.of(whole).as_dict() == whole
    assert Config.of({}).as_dict() == Config().as_dict()


# ---- open nodes ----


@pytest.mark.parametrize("node", OPEN)
def test_an_open_node_takes_new_keys_without_a_plus(node):
    """By itself, deeper, and as a dict that is merged into what is there."""
    before = OmegaConf.to_container(OmegaConf.select(composed(), node))
    assert OmegaConf.select(composed(f"{node}.brand_new=1"), f"{node}.brand_new") == 1
    assert OmegaConf.select(composed(f"{node}.brand.new=1"), f"{node}.brand.new") == 1
    merged = OmegaConf.to_container(OmegaConf.select(composed(f"{node}={{brand_new: q}}"), node))
    assert merged == {**before, "brand_new": "q"}
    assert OmegaConf.select(composed(f"+{node}.brand_new=1"), f"{node}.brand_new") == 1


@pytest.mark.parametrize("override", ["data.max_lenght=3", "scoring.layot=auto", "run.rdeo=true", "brand_new=1"])
def test_other_nodes_stay_closed(override):
    with pytest.raises(ConfigCompositionException):
        composed(override)


def test_open_keys_in_a_config_file_are_taken_on_top_of_an_option(tmp_path):
    """What a study of one's own states: a term that loss=plain lacks, and a field of TrainingArguments."""
    (tmp_path / "mine.yaml").write_text(
        "defaults: [train, _self_]\nloss: {center: {weight: 0.1}}\ntrainer: {adam_beta2: 0.98}\n"
        "data: {columns: {prompt: q}, chat_template_kwargs: {x: 1}}\nmodel: {config: {rope_theta: 5.0}}\n"
    )
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("mine", [f"hydra.searchpath=[file://{CONF}]", "run.name=x", "run.id=x", "run.dir=x"])
    assert config.loss == {"bradley_terry": {"margin": 0.0}, "center": {"weight": 0.1}}
    assert config.trainer.adam_beta2 == 0.98
    assert config.trainer.learning_rate == 0.001
    assert (config.data.columns, config.data.chat_template_kwargs) == ({"prompt": "q"}, {"x": 1})
    assert (config.model.config.rope_theta, config.model.config.model_type) == (5.0, "qwen3")


# ---- the trainer node ----


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
