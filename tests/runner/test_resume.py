"""A run that is killed and run again leaves the same files as one that was not: metrics, curves, scores, weights."""

import copy

import pytest
from conftest import make_pairs

from rmlab import run
from rmlab.training.trainer import RewardTrainer

SHORT = {"max_steps": 8, "per_device_train_batch_size": 4, "logging_steps": 3, "save_steps": 2, "save_total_limit": 2}
WATCHED = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_nll",
}
CASES = {
    "logging and saving do not meet": {},
    "logging and saving meet": {"trainer.logging_steps": 2},
    "nothing logged before the checkpoint": {"trainer.logging_steps": 7},
    "one checkpoint is kept": {"trainer.save_total_limit": 1},
    "lora": {"peft": {"method": "lora", "r": 4, "target_modules": "all-linear", "lora_dropout": 0.1}},
    "accumulation": {"trainer.gradient_accumulation_steps": 2},
    "micro-batches by tokens": {"trainer.tokens_per_batch": 300},
    "by length": {"trainer.train_sampling_strategy": "group_by_length"},
    "balanced": {"trainer.train_sampling_strategy": "batch_rebalance"},
    "grouped by prompt, K = 4": {"data.train.synthetic.responses": 4, "data.group_by_prompt": True},
    "a momentum": {"trainer.optim": "sgd", "trainer.optim_args": "momentum=0.9", "trainer.learning_rate": 0.1},
    "the last layer": {"model.train_last_layers": 1},
    "several terms": {"loss": {"bradley_terry": {"margin": 1.0}, "center": {"weight": 0.01}}},
    "the best model": {f"trainer.{key}": value for key, value in WATCHED.items()},
    "early stopping": {
        **{f"trainer.{key}": value for key, value in WATCHED.items()},
        "trainer.early_stopping_patience": 2, "trainer.learning_rate": 0.3, "trainer.max_steps": 12,
    },
    "a stream of several passes": {
        "data.train": {"mine": {"source": "load", "path": "train.jsonl", "streaming": True}},
        "data.eval": {"dev": {"source": "load", "path": "dev.jsonl"}},
    },
}  # fmt: skip
TELLING = {
    "logging and saving do not meet": 5,
    "by length": 7,
    "the last layer": 5,
    "a stream of several passes": 5,
}


def config_of(composed, changes, place):
    config = copy.deepcopy(composed)
    config["run"]["cache_dir"] = str(place / "cache")
    config["data"]["limit"] = None
    config["data"]["train"]["synthetic"]["prompts"] = 20  # 16 to train on: steps 5 to 8 are of the second epoch
    config["trainer"].update(SHORT)
    for key, value in changes.items():
        *nodes, last = key.split(".")
        part = config
        for node in nodes:
            part = part[node]
        part[last] = value
    return config


class Killed(BaseException):
    """As a SIGKILL, nothing that handles errors sees it."""


def killed_at(step, config, out, monkeypatch):
    """Run until the last micro-batch of the step after the given one, and no further."""
    whole, seen = RewardTrainer.training_step, []

    def training_step(self, *arguments, **options):
        seen.append(self.state.global_step)
        if seen.count(step) == self.args.gradient_accumulation_steps or self.state.global_step > step:
            raise Killed
        return whole(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(RewardTrainer, "training_step", training_step)
        with pytest.raises(Killed):
            run(config, out)


def assert_same_files(one, other):
    names = sorted(str(f.relative_to(one)) for f in one.rglob("*") if f.suffix in (".json", ".parquet", ".safetensors"))
    kept = [n for n in names if not n.startswith(("checkpoints", "environment"))]
    assert {"metrics.json", "history.json"} <= set(kept)
    for name in kept:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def check(case, steps, composed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_pairs(10).to_json("train.jsonl")
    make_pairs(5, seed=3).to_json("dev.jsonl")
    config = config_of(composed, CASES[case], tmp_path)
    run(config, tmp_path / "whole")
    for step in steps:
        out = tmp_path / f"killed{step}"
        killed_at(step, config, out, monkeypatch)
        saved = [int(place.name.split("-")[1]) for place in out.glob("checkpoints/checkpoint-*")]
        assert max(saved, default=0) >= step - step % SHORT["save_steps"]
        capsys.readouterr()
        run(config, out)
        assert not saved or f"goes on from step {max(saved)} of " in capsys.readouterr().out
        assert_same_files(tmp_path / "whole", out)


@pytest.mark.parametrize("case", TELLING)
def test_a_killed_run_leaves_what_a_whole_one_leaves(case, composed, tmp_path, monkeypatch, capsys):
    check(case, [TELLING[case]], composed, tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_wherever_it_is_killed(case, composed, tmp_path, monkeypatch, capsys):
    last = 6 if case == "early stopping" else 8
    check(case, range(1, last), composed, tmp_path, monkeypatch, capsys)
