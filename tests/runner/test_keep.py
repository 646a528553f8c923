"""What a finished run leaves on the disk, and that a kill on the way there loses nothing."""

import copy
import json

import pandas as pd
import pytest
from conftest import make_model, make_pairs

from rmlab import reward_function, run
from rmlab.messages import UserError
from rmlab.runner.config import RunConfig
from rmlab.runner.directory import RunDirectory


class Killed(BaseException):
    """As a SIGKILL, nothing that handles errors sees it."""


@pytest.fixture
def config(composed, tmp_path):
    config = copy.deepcopy(composed)
    config["run"]["cache_dir"] = str(tmp_path / "cache")
    return config


def keeping(config, *names):
    return {**config, "run": {**config["run"], "keep": list(names)}}


def left(place):
    return {f.name for f in place.iterdir()} & {"model", "adapter", "checkpoints"}


@pytest.mark.parametrize(
    ("names", "kept"),
    [([], set()), (["checkpoints"], {"checkpoints"})],
)
def test_a_finished_run_keeps_what_it_is_told_to(names, kept, config, tmp_path):
    out = RunDirectory(tmp_path / "run")
    metrics = run(keeping(config, *names), out.path)
    assert left(out.path) == kept
    assert out.state == "finished"
    assert out.has_scores("eval")
    assert run(keeping(config, *names), out.path) == metrics


def test_a_kill_between_metrics_and_tidying_loses_nothing(config, tmp_path, monkeypatch, capsys):
    out = RunDirectory(tmp_path / "run")

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("rmlab.runner.run.forget_checkpoints", killed)
        with pytest.raises(Killed):
            run(config, out.path)
    assert left(out.path) == {"model", "checkpoints"}
    assert out.state == "finished"
    before = (out.path / "metrics.json").read_bytes()
    run(config, out.path)
    assert "it is finished" in capsys.readouterr().out
    assert left(out.path) == {"model"}
    assert (out.path / "metrics.json").read_bytes() == before


def test_what_was_kept_is_not_removed_by_a_later_launch_without_the_option(config, tmp_path):
    out = tmp_path / "run"
    run(keeping(config, "model", "checkpoints"), out)
    run(keeping(config), out)
    assert left(out) == {"model", "checkpoints"}


def test_the_best_model_is_kept_after_its_checkpoint_is_gone(config, tmp_path):
    best = {
        "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True,
        "metric_for_best_model": "eval_nll", "greater_is_better": False, "learning_rate": 0.5,
    }  # fmt: skip
    config["trainer"].update(best)
    out = RunDirectory(tmp_path / "run")
    metrics = run(config, out.path)
    assert left(out.path) == {"model"}
    assert metrics["eval"]["eval"]["nll"] == pytest.approx(
        min(entry["eval_nll"] for entry in out.history() if "eval_nll" in entry)
    )


@pytest.mark.parametrize(
    ("names", "sentence"),
    [(["modl"], "run.keep is 'modl'; did you mean 'model'?"), (["model", "changes"], "name one of model and changes")],
)
def test_what_cannot_be_kept_is_refused(names, sentence):
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")):
        RunConfig(keep=names).check()


def test_a_frozen_run_keeps_its_changes_and_is_scored_alike(config, built_tokenizer, tmp_path):
    """Its checkpoints held what was trained alone; rewards are those of the scores file."""
    base = make_model(intermediate_size=512)
    base.model.save_pretrained(tmp_path / "base")
    built_tokenizer.save_pretrained(tmp_path / "base")
    config["model"].update(path=str(tmp_path / "base"), tokenizer=None, config={}, train_last_layers=0)
    config["data"].update(train={"mine": {"source": "load", "path": str(tmp_path / "my.jsonl")}})
    make_pairs(40).to_json(str(tmp_path / "my.jsonl"))
    out = RunDirectory(tmp_path / "run")
    run(keeping(config, "changes"), out.path)
    assert {"base.json", "changes.safetensors"} <= {f.name for f in out.model.iterdir()}
    assert not (out.model / "model.safetensors").exists()
    rows = make_pairs(40)
    rewards = reward_function(str(out.model))
    scored = pd.read_parquet(out.scores_file("eval"))
    for side, kept in scored.groupby("response"):
        texts = [rows[int(n)] for n in kept["id"]]
        found = rewards([row["prompt"] for row in texts], [row[("chosen", "rejected")[side]] for row in texts])
        assert found == pytest.approx(kept["reward"].tolist(), abs=1e-5)
    told = json.loads((out.model / "rmlab_reward.json").read_text())
    expected = {"mean": scored["reward"].mean(), "std": scored["reward"].std(ddof=0), "responses": len(scored)}
    assert told == {**{k: pytest.approx(v, abs=1e-6) for k, v in expected.items()}, "on": told["on"]}
    assert "evaluation set eval" in told["on"]
    (out.model / "rmlab_reward.json").write_text(json.dumps({**told, "mean": 0.0}))
    assert out.is_finished, "its scale may be measured anew"
