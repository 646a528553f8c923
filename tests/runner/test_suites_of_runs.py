"""Benchmark suites of a run: scored at its end, added later, kept out of what its numbers are checked by."""

import copy
import importlib
import json

import numpy as np
import pandas as pd
import pytest

from rmlab import run
from rmlab.files import read
from rmlab.messages import UserError
from rmlab.runner.check import check_run
from rmlab.runner.config import Config, content_id
from rmlab.runner.directory import RunDirectory
from rmlab.runner.suites import outstanding, read_suites
from rmlab.scoring.reward_model import RewardModel

ROWS = [
    {"prompt": f"tell me about {topic}", "chosen": f"{topic} are old", "rejected": "no", "subset": subset}
    for topic, subset in (("rivers", "a"), ("stars", "a"), ("chess", "b"))
]


@pytest.fixture
def config(composed, tmp_path):
    config = copy.deepcopy(composed)
    config["run"]["cache_dir"] = str(tmp_path / "cache")
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config["eval"] = {"mine": {"suite": "rows", "path": str(tmp_path / "mine.jsonl")}}
    return config


def without_training(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("it was trained again")

    monkeypatch.setattr("rmlab.runner.run.train_here", refused)


class Stopped(BaseException):
    """Before the training itself."""


def stop(*_):
    raise Stopped


def test_suites_are_scored_at_the_end_and_added_to_a_finished_run(config, tmp_path, monkeypatch, capsys):
    out = RunDirectory(tmp_path / "run")
    metrics = run(config, out.path)
    assert "mine: accuracy" in capsys.readouterr().out
    said = read(out.path / "suites" / "mine.json")
    assert (said["suite"], said["overall"]) == ("rows", "accuracy")
    assert set(said["subsets"]) == {"a", "b"}
    assert {"calibration", "length"} <= set(said["diagnostics"])
    known, scale = read(out.model / "rmlab_reward.json"), said["diagnostics"]["scale"]
    assert scale["shift"] == pytest.approx((scale["mean"] - known["mean"]) / known["std"])
    items = pd.read_parquet(out.path / "scores" / "mine.items.parquet")
    assert list(items.columns) == ["id", "prompt", "subset", "value", "comparison"]
    assert items["value"].mean() == pytest.approx(said["totals"]["accuracy"]["value"])
    assert "scores/mine.parquet" not in out.environment()["files"]
    assert "mine" not in metrics["eval"]

    before = [comparison.rewards for comparison in out.scores("mine").comparisons()]
    saved = RewardModel(str(out.path / "model")).score(ROWS)
    assert saved == pytest.approx(np.array(before), abs=1e-5)

    without_training(monkeypatch)
    more = {**config, "eval": {**config["eval"], "again": config["eval"]["mine"]}}
    assert outstanding(config["eval"], out) == []
    assert outstanding(more["eval"], out) == ["again"]
    (out.path / "scores" / "mine.items.parquet").unlink()  # which shows that this suite is not scored again
    assert run(more, out.path)["eval"] == metrics["eval"]
    assert out.state == "finished"
    assert read(out.path / "suites" / "again.json")["totals"] == said["totals"]
    assert not (out.path / "scores" / "mine.items.parquet").exists()
    assert np.array([c.rewards for c in out.scores("again").comparisons()]) == pytest.approx(saved, abs=1e-5)

    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:2]))
    run(config, out.path)  # its rows are others now
    assert read(out.path / "suites" / "mine.json")["totals"]["accuracy"]["items"] == 2
    out.forget_results()
    assert not (out.path / "suites").exists()


def test_rows_have_the_rewards_that_they_have_as_an_evaluation_set(config, tmp_path):
    mine = {"source": "load", "path": config["eval"]["mine"]["path"]}
    out = RunDirectory(tmp_path / "run")
    metrics = run({**config, "data": {**config["data"], "eval": {"held_out": mine}}}, out.path)
    both = [[c.rewards for c in out.scores(name).comparisons()] for name in ("held_out", "mine")]
    assert np.array(both[0]) == pytest.approx(np.array(both[1]), abs=1e-6)
    said = read(out.path / "suites" / "mine.json")["totals"]["accuracy"]
    assert said["value"] == pytest.approx(metrics["eval"]["held_out"]["accuracy"])


def test_prompts_that_are_trained_on_are_counted(config, tmp_path, monkeypatch, capsys):
    """White space and wrapping do not hide one."""
    rows = [{**row, "prompt": f"{row['prompt']}\n"} for row in ROWS[:2]] + [
        {"prompt": f"q {n}", "chosen": "x", "rejected": "y"} for n in range(20)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {**config["data"], "train": {"mine": {"source": "load", "path": str(tmp_path / "train.jsonl")}}}
    monkeypatch.setattr("rmlab.runner.run.train_and_evaluate", stop)
    with pytest.raises(Stopped):
        run({**config, "data": {**data, "eval_fraction": 0.0}}, tmp_path / "run")
    assert "warning: suite mine: 2 of 3 prompts are trained on too" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_kept_no_model_says_so(config, tmp_path):
    out = RunDirectory(tmp_path / "run")
    run({**config, "eval": {}, "run": {**config["run"], "keep": []}}, out.path)
    with pytest.raises(UserError, match="has kept no model"):
        run(config, out.path)
    assert out.state == "finished"


@pytest.mark.parametrize(("keep", "state"), [([], "half-done"), (["model"], "finished")])
def test_a_run_that_is_killed_in_its_suites_has_them_in_the_end(keep, state, config, tmp_path, monkeypatch):
    config["run"] = {**config["run"], "keep": keep}
    out = RunDirectory(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("rmlab.runner.suites.score_suite", stop)
        with pytest.raises(Stopped):
            run(config, out.path)
    assert out.state == state
    run(config, out.path)
    assert out.state == "finished"
    assert outstanding(config["eval"], out) == []


def test_suites_do_not_change_the_id_of_a_run(config):
    assert content_id(config) == content_id({**config, "eval": {}})


@pytest.mark.parametrize(
    ("evals", "sentence"),
    [
        ({"mine": {"suite": "rowz", "path": "x"}}, "eval.mine: no suite named 'rowz'; did you mean 'rows'"),
        ({"llmbar": {"pth": "x"}}, r"eval.llmbar takes \['path'\], the config gives \['pth'\]"),
        ({"llmbar": "x"}, "eval.llmbar is 'x'; it must hold the options of a suite"),
        ({"eval": {"suite": "rows", "path": "x"}}, "give the suite another name"),
        ({"held_out": {"suite": "rows", "path": "x"}}, "has the name of an evaluation set, data.eval.held_out"),
        ({"a/b": {"suite": "rows", "path": "x"}}, "'a/b' names files"),
    ],
)
def test_a_wrong_entry_is_a_sentence_before_rows_are_read(evals, sentence, config):
    data = {**config["data"], "eval": {"held_out": {"source": "load", "path": "x.jsonl"}}}
    with pytest.raises(UserError, match=sentence):
        check_run(Config.of({**config, "data": data, "eval": evals}))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "q", "chosen": "x"}, "no column 'rejected'.*eval.mine.columns"),
        (
            {"prompt": "q", "chosen": "x", "rejected": "y", "margin": "?"},
            r"row 0 \(counting from 0\): margin is '\?'",
        ),
    ],
)
def test_wrong_rows_are_named_when_they_are_read(row, sentence, config, tmp_path):
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=sentence):
        read_suites(config["eval"], Config.of(config).model)


def test_rows_are_read_before_a_model_loads(config, tmp_path, monkeypatch):
    without_training(monkeypatch)
    (tmp_path / "mine.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="no column 'chosen'"):
        run(config, tmp_path / "run")


SUITE = """
from rmlab.evaluation import SUITES, Item, Suite
from rmlab.evaluation.items import over_items, row_of


@SUITES.register
def counted_mine(*, least: float = 0.0):
    def items(scored):
        return [Item(c.id, c.prompt_id, c.subset, float(c.rewards[0] > least) * WORTH, (c.index,)) for c in scored]

    return Suite([row_of("q", ["a"], ["b"], 1, "s")], items, lambda counts: {"all": over_items(counts)})
"""


def test_what_is_counted_otherwise_is_not_finished(config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "counted_mine.py").write_text(SUITE.replace("WORTH", "1"))
    importlib.import_module("counted_mine")

    def key(**options):
        return read_suites({"counted_mine": options}, Config.of(config).model)[0].key

    first = key()
    assert key() == first
    assert key(least=5.0) != first
    (tmp_path / "counted_mine.py").write_text(SUITE.replace("WORTH", "0.5"))
    assert key() != first


def test_rows_that_have_moved_are_not_scored_again(config, tmp_path, monkeypatch):
    out = RunDirectory(tmp_path / "run")
    run(config, out.path)
    said = read(out.path / "suites" / "mine.json")
    monkeypatch.setattr("rmlab.runner.trained.saved_model", stop)
    moved = (tmp_path / "mine.jsonl").rename(tmp_path / "data.jsonl")
    config["eval"] = {"mine": {"suite": "rows", "path": str(moved)}}
    assert outstanding(config["eval"], out) == ["mine"]
    run(config, out.path)
    assert outstanding(config["eval"], out) == []
    assert read(out.path / "suites" / "mine.json") == {**said, "options": config["eval"]["mine"]}


def test_an_entry_may_name_the_suite_that_it_is_called_by(tmp_path, config):
    evals = {"rows": {**config["eval"]["mine"]}}
    out = RunDirectory(tmp_path / "run")
    (suite,) = read_suites(evals, Config.of(config).model)
    suite.file(out).parent.mkdir(parents=True)
    suite.file(out).write_text(json.dumps(suite.stated))
    assert outstanding(evals, out) == []
    assert outstanding({"rows": {"path": evals["rows"]["path"]}}, out) == []


def test_files_keep_their_names_in_errors(config, tmp_path):
    (tmp_path / "mydata.jsonl").write_text('{"prompt": "a')
    for name, sentence in (("mydata.jsonl", "mydata.jsonl line 1"), ("data.json", "eval.mine.path: .*data.json'")):
        config["eval"]["mine"]["path"] = str(tmp_path / name)
        with pytest.raises(UserError, match=sentence):
            read_suites(config["eval"], Config.of(config).model)
