"""Wrong values of a config: one sentence that names the key, whatever library would have stumbled over them."""

import copy

import pytest
import yaml
from conftest import rmlab

from rmlab import UserError, losses
from rmlab.messages import is_first_rank, processes, rank
from rmlab.model.adapters import PeftConfig
from rmlab.model.config import check_architecture
from rmlab.model.load import load_model
from rmlab.runner.arguments import reward_config
from rmlab.runner.config import Config
from rmlab.runner.directory import RunDirectory
from rmlab.runner.tracking import identity


def with_value(config, key, value):
    changed = copy.deepcopy(config)
    *nodes, last = key.split(".")
    place = changed
    for node in nodes:
        place = place.setdefault(node, {})
    place[last] = value
    return changed


def check(config, tmp_path):
    """Everything that a run checks before it trains, and its model."""
    typed = Config.of(config)
    typed.check()
    losses.build_loss(typed.loss)
    check_architecture(typed.model.config)
    reward_config(typed, RunDirectory(tmp_path))
    PeftConfig.of(typed.peft).build()
    load_model(typed.model, typed.seed)


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.config.model_type", None),
        ("model.config.model_type", 3),
        ("model.config.hidden_size", "wide"),
        ("model.config.hidden_size", -4),
        ("model.config.num_hidden_layers", 1.5),
        ("model.attn_implementation", "-5"),
        ("model.dtype", "int3"),
        ("model.head_init", "ones"),
        ("model.head_init", -1.0),
        ("model.head_init", NAN),
        ("model.path", "-1"),
        ("model.path", "/nowhere"),
        ("model", "a text"),
        ("trainer", "a text"),
        ("loss", "a text"),
        ("loss.bradley_terry", 3),
        ("data", [1]),
        ("peft", "lora"),
        ("trainer.accelerator_config", "steps"),
        ("trainer.log_level", " "),
        ("trainer.optim", "best"),
        ("trainer.lr_scheduler_type", "line"),
        ("trainer.learning_rate", NAN),
        ("trainer.learning_rate", -1.0),
        ("trainer.max_grad_norm", INF),
        ("trainer.per_device_train_batch_size", 0),
        ("trainer.gradient_accumulation_steps", -1),
        ("trainer.num_train_epochs", INF),
        ("trainer.max_steps", -7),
        ("trainer.save_steps", -3),
        ("trainer.data_seed", -1),
        ("trainer.label_smoothing_factor", 0.1),
        ("trainer.resume_from_checkpoint", "checkpoint-4"),
        ("trainer.ignore_data_skip", True),
        ("trainer.do_eval", True),
        ("trainer.prediction_loss_only", True),
        ("trainer.metric_for_best_model", "eval_margin"),
        ("seed", -1),
        ("seed", 2**32),
        ("data.split_seed", -1),
        ("data.max_length", 0),
        ("data.max_length", -1),
        ("data.max_rows", 0),
        ("data.limit", -2),
        ("data.eval_fraction", 1.0),
        ("data.eval_fraction", NAN),
        ("run.threads", 0),
        ("run.feature_cache_gb", NAN),
        ("data.eval", {"a/b": {"source": "load", "path": "x.jsonl"}}),
        ("data.eval", {"/tmp/x": {"source": "load", "path": "x.jsonl"}}),
        ("data.eval", {"..": {"source": "load", "path": "x.jsonl"}}),
        ("data.eval", {"": {"source": "load", "path": "x.jsonl"}}),
        ("data.eval", {"a\n": {"source": "load", "path": "x.jsonl"}}),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_in_a_sentence_that_names_its_key(key, value, composed, tmp_path):
    with pytest.raises(UserError) as error:
        check(with_value(composed, key, value), tmp_path)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert len(sentence) < 600
    assert key.rpartition(".")[2] in sentence or key.partition(".")[0] in sentence


def test_the_config_itself_is_right(composed, tmp_path):
    check(composed, tmp_path)


def test_what_does_not_resolve_is_one_sentence(tmp_path):
    done = rmlab(tmp_path, "debug=tiny", "trainer.learning_rate=${nowhere}", check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.strip() and "INFO" not in line]
    assert line.startswith("rmlab: error: trainer.learning_rate: Interpolation key 'nowhere' not found")


@pytest.mark.parametrize("project", ["a/b", "a#b", "50%"])
def test_a_project_that_wandb_refuses_is_refused_at_once(project, composed, tmp_path):
    logger = {"report_to": "wandb", "project": project}
    with pytest.raises(UserError, match=r"logger\.project is"):
        check({**composed, "logger": logger}, tmp_path)


def test_ids_for_wandb_hold_what_it_takes_and_differ_where_directories_do():
    name = identity("a: study; with, signs #? 'and' / more", "plain-s0-1234abcd")
    assert not set(name) & set(":;,#?'/ ")
    assert len({identity("s", "plain-s0-1"), identity("s", "margin-s0-1"), identity("s-plain", "s0-1"), name}) == 4
    assert len(identity("x" * 200, "y")) <= 64


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, (2, 4)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2)),
        ({"PMI_RANK": "3", "PMI_SIZE": "4"}, (3, 4)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1)),
    ],
)  # fmt: skip
def test_a_process_knows_its_number_whoever_started_it(environment, expected, monkeypatch):
    """The last one: a batch script, in which a single process runs."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (rank(), processes()) == expected
    assert is_first_rank() == (expected[0] == 0)


def test_processes_that_do_not_know_each_other_are_refused(composed, tmp_path, monkeypatch):
    from conftest import make_model, trainer_for

    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(
        UserError, match=r"2 processes were launched, but each would train alone: start them with torchrun"
    ):
        trainer_for(make_model(), None, tmp_path)


def test_yaml_of_the_config_reads_back(composed):
    assert Config.of(yaml.safe_load(yaml.safe_dump(Config.of(composed).as_written()))) == Config.of(composed)
