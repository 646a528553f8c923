"""Arms against the baseline: of which seeds, and when there is a verdict."""

import numpy as np
import pytest
from studies import write_run, write_study

from rmlab.messages import UserError
from rmlab.report.compare import compare, references_of
from rmlab.report.items import load_items
from rmlab.report.statistics import estimate
from rmlab.report.study import load_study
from rmlab.report.tables import readable


@pytest.fixture
def study(tmp_path):
    """Two losses, three seeds, 60 prompts: margin is right 8 times more of them, for every seed."""
    return write_study(tmp_path)


def test_the_difference_is_of_common_seeds(study):
    """mean: over all seeds of the arm; difference: over those that the baseline has too."""
    write_run(study, 7, [1.0] * 60, loss="margin")
    loaded = load_study(study)
    rows = compare({"eval": load_items(loaded, "eval")}, list(loaded.arms), "plain")
    margin = rows[(rows.arm == "margin") & (rows.metric == "accuracy")].iloc[0]
    accuracy = {(r.arm, r.seed): r.metrics["eval"]["eval"]["accuracy"] for r in loaded.finished}
    means = [accuracy["margin", seed] for seed in (0, 1, 2, 7)]
    assert margin["mean"] == pytest.approx(np.mean(means))
    assert margin["sd"] == pytest.approx(np.std(means, ddof=1))
    gained = [accuracy["margin", seed] - accuracy["plain", seed] for seed in (0, 1, 2)]
    assert margin["difference"] == pytest.approx(np.mean(gained))
    assert (margin["seeds"], margin["pairs"]) == (4, 3)


def test_too_few_items_give_no_interval_and_no_verdict(tmp_path):
    """One prompt, however many preferences: nobody knows what another would give. Identical arms: p is 1."""
    for seed in range(3):
        write_run(tmp_path, seed, [1.0, -1.0, -1.0, 2.0], prompts=["same"] * 4)
        write_run(tmp_path, seed, [1.0, 1.0, 1.0, 2.0], loss="margin", prompts=["same"] * 4)
    loaded = load_study(tmp_path)
    rows = compare({"eval": load_items(loaded, "eval")}, list(loaded.arms), "plain")
    assert rows[["low", "p", "p_holm", "detectable"]].isna().all(axis=None)
    assert set(rows["verdict"].dropna()) <= {""}
    same = estimate(np.zeros((3, 50)), np.arange(50))
    assert (same.value, same.p) == (0.0, 1.0)


def test_a_clear_difference_is_called_and_noise_is_not(study):
    loaded = load_study(study)
    rows = compare({"eval": load_items(loaded, "eval")}, list(loaded.arms), "plain")
    margin = rows[(rows.arm == "margin") & (rows.metric == "accuracy")].iloc[0]
    assert margin["verdict"] == "better"
    assert margin["diff_low"] > 0
    assert margin["p_holm"] < 0.01
    assert (margin["only_arm"], margin["only_baseline"]) == (24, 0)


def test_the_baseline_is_an_arm_that_has_finished(tmp_path, capsys):
    write_run(tmp_path, 0, report__baseline="plain")
    run = write_run(tmp_path, 0, [1.0, -1.0, 1.0], loss="margin", report__baseline="plain")
    loaded = load_study(tmp_path)
    assert loaded.baseline == "margin"
    rows = compare({"eval": load_items(loaded, "eval")}, list(loaded.arms), "margin")
    assert rows[rows.arm == "plain"]["mean"].isna().all()
    readable(rows, references_of({"eval": load_items(loaded, "eval")}), "margin")
    with pytest.raises(UserError, match="is a run; give its study"):
        load_study(run.path)
