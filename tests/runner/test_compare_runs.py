"""Two run directories: when their numbers are the same, within tolerance or different, and what is said of it."""

import json
import shutil

import pandas as pd
import pytest
from conftest import rmlab, run_directory

from rmlab.runner.compare_runs import Agreement, SetAgreement, compare, print_sets
from rmlab.runner.directory import RunDirectory


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run."""
    place = tmp_path_factory.mktemp("finished")
    rmlab(place, "debug=tiny")
    return run_directory(place)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be changed."""
    return shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "model"))


def compared(then, now):
    return compare(RunDirectory(then), RunDirectory(now))


def change_rewards(run, change):
    file = run / "scores" / "eval.parquet"
    scores = pd.read_parquet(file)
    change(scores)
    scores.astype({"reward": "float32"}).to_parquet(file, index=False)


def test_a_shift_of_all_rewards_is_within_tolerance_up_to_1e_5(finished, copied):
    assert compared(finished, copied).verdict == "identical"

    def shift(scores):
        scores["reward"] += 5e-6

    change_rewards(copied, shift)
    result = compared(finished, copied)
    assert result.verdict == "within tolerance"
    assert result.sets["eval"].reward_difference == pytest.approx(5e-6, abs=3e-7)
    assert result.sets["eval"].changed_sides == 0
    change_rewards(copied, lambda scores: (shift(scores), shift(scores)))
    assert compared(finished, copied).verdict == "different"


def test_diagnostics_are_functions_of_the_rewards_and_not_compared(finished, copied):
    file = copied / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["eval"]["eval"]["diagnostics"] = {"calibration": {"bins": [{"n": 3}]}}
    file.write_text(json.dumps(metrics))
    assert compared(finished, copied).verdict == compared(copied, finished).verdict == "identical"


def test_one_changed_reward_is_found_and_its_preference_counted(finished, copied):
    """Both rewards of the third comparison are exchanged."""

    def exchange(scores):
        third = scores.comparison == scores.comparison.unique()[2]
        scores.loc[third, "reward"] = scores.loc[third, "reward"].to_numpy()[::-1]

    change_rewards(copied, exchange)
    result = compared(finished, copied)
    assert result.verdict == "different"
    assert result.sets["eval"].changed_sides == 1
    assert result.sets["eval"].same_rows


def test_the_order_of_rows_does_not_matter_but_every_row_does(finished, copied):
    file = copied / "scores" / "eval.parquet"
    scores = pd.read_parquet(file)
    scores.iloc[::-1].to_parquet(file, index=False)
    assert compared(finished, copied).verdict == "identical"
    scores.iloc[1:].to_parquet(file, index=False)
    result = compared(finished, copied)
    assert result.verdict == "different"
    assert result.sets["eval"].rows == [len(scores), len(scores) - 1]
    assert result.sets["eval"].reward_difference == 0
    scores.assign(id=scores["id"] + "x").to_parquet(file, index=False)
    assert compared(finished, copied).sets["eval"].reward_difference is None
    file.unlink()
    assert compared(finished, copied).sets["eval"].rows == [len(scores), 0]


def test_other_preferences_on_the_same_responses_are_different(finished, copied):
    file = copied / "scores" / "eval.preferences.parquet"
    preferences = pd.read_parquet(file)
    preferences.assign(strength=2.0).to_parquet(file, index=False)
    assert compared(finished, copied).verdict == "different"


@pytest.mark.parametrize(
    ("nodes", "change", "verdict"),
    [
        (("eval", "eval", "nll"), 5e-5, "within tolerance"),
        (("train", "loss"), 5e-5, "within tolerance"),
        (("eval", "eval", "nll"), 2e-4, "different"),
    ],
)
def test_metrics_are_compared_too(finished, copied, nodes, change, verdict):
    metrics = RunDirectory(copied).metrics()
    *parents, last = nodes
    place = metrics
    for node in parents:
        place = place[node]
    before = place[last]
    place[last] += change
    RunDirectory(copied).write_metrics(metrics)
    result = compared(finished, copied)
    assert result.verdict == verdict
    assert result.metrics == {".".join(nodes): [before, before + change]}


def test_a_metric_that_is_gone_is_different(finished, copied):
    metrics = RunDirectory(copied).metrics()
    gone = metrics["eval"]["eval"].pop("ece")
    RunDirectory(copied).write_metrics(metrics)
    result = compared(finished, copied)
    assert result.verdict == "different"
    assert result.metrics == {"eval.eval.ece": [gone, None]}


def test_a_metric_that_rmlab_has_learned_since_is_no_difference(finished, copied):
    metrics = RunDirectory(copied).metrics()
    del metrics["eval"]["eval"]["ece"]
    RunDirectory(copied).write_metrics(metrics)
    assert compared(copied, finished).verdict == "identical"


def test_a_set_that_only_one_of_them_evaluated_is_different(finished, copied):
    metrics = RunDirectory(copied).metrics()
    metrics["eval"]["other"] = metrics["eval"]["eval"]
    RunDirectory(copied).write_metrics(metrics)
    RunDirectory(copied).write_scores("other", RunDirectory(copied).scores("eval").comparisons())
    result = compared(finished, copied)
    assert result.verdict == "different"
    rows = len(RunDirectory(copied).scores("eval").responses)
    assert (result.sets["other"].rows, result.sets["other"].same_rows) == ([0, rows], False)
    assert result.sets["other"].accuracy == [None, metrics["eval"]["eval"]["accuracy"]]


# ---- what is kept and shown ----

OTHER = SetAgreement(
    rows=[4, 6], same_rows=False, reward_difference=None, changed_sides=None, accuracy=[0.5, None], nll=[0.6, 0.61]
)


def test_an_agreement_is_kept_as_plain_values():
    agreement = Agreement("different", {"eval": OTHER}, {"train.loss": [1.0, None]})
    kept = json.loads(json.dumps(agreement.as_dict()))
    assert kept["sets"]["eval"]["rows"] == [4, 6]
    assert kept == {
        "verdict": "different",
        "sets": {"eval": vars(OTHER)},
        "metrics": {"train.loss": [1.0, None]},
    }


def test_the_table_names_what_one_of_them_lacks(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    same = SetAgreement([8, 8], True, 1.5e-6, 0, [0.5, 0.5], [0.25, 0.5])
    print_sets({"a": same, "b": OTHER})
    printed = capsys.readouterr().out
    a, b = (next(line for line in printed.splitlines() if f" {name} " in line) for name in "ab")
    assert [cell.strip() for cell in a.split("│")[1:-1]] == [
        *("a", "8", "1.5e-06", "0", "0.5000 -> 0.5000", "0.2500 -> 0.5000")
    ]
    assert [cell.strip() for cell in b.split("│")[1:-1]] == [
        *("b", "4 -> 6, not the same", "none", "none", "0.5000 -> none", "0.6000 -> 0.6100")
    ]
    print_sets({})
    assert capsys.readouterr().out == ""
