"""Metrics against their definitions, computed here by hand or by loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
from comparisons import scored
from scipy.stats import spearmanr

from rmlab.metrics.evaluate import as_arrays, calibration_error, evaluate, flatten, preference_metrics, rank_correlation


def test_accuracy_counts_reward_ties_half_and_reports_them():
    metrics = preference_metrics(np.array([1.0, -1.0, 0.0, 5e-6]), np.ones(4))
    assert metrics["accuracy"] == (1 + 0 + 0.5 + 0.5) / 4
    assert metrics["ties"] == 0.5


def test_label_ties_are_left_out_of_accuracy_but_not_of_nll():
    metrics = preference_metrics(np.array([1.0, 3.0]), np.array([1.0, 0.5]))
    assert metrics["accuracy"] == 1.0
    tie = -0.5 * math.log(1 / (1 + math.exp(-3.0))) - 0.5 * math.log(1 / (1 + math.exp(3.0)))
    assert metrics["nll"] == pytest.approx((-math.log(1 / (1 + math.exp(-1.0))) + tie) / 2)


def test_only_label_ties_leave_accuracy_undefined():
    assert "accuracy" not in preference_metrics(np.array([1.0]), np.array([0.5]))


def test_a_probability_below_one_half_turns_the_sign():
    assert preference_metrics(np.array([1.0]), np.array([0.2]))["accuracy"] == 0.0


def test_brier_is_the_squared_error_of_the_probability():
    metrics = preference_metrics(np.array([0.0, 2.0]), np.array([1.0, 0.7]))
    sigma = 1 / (1 + math.exp(-2.0))
    assert metrics["brier"] == pytest.approx((0.25 + (sigma - 0.7) ** 2) / 2)


def test_ece_is_the_binned_gap_of_confidence_and_outcome():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 500)
    outcome = (rng.random(500) < 0.8).astype(float)
    expected = 0.0
    for b in range(15):
        low, high = 0.5 + b / 30, 0.5 + (b + 1) / 30
        inside = (confidence >= low) & ((confidence < high) | (b == 14))
        if inside.any():
            expected += inside.sum() / 500 * abs(outcome[inside].mean() - confidence[inside].mean())
    assert calibration_error(confidence, outcome) == pytest.approx(expected)


def test_ece_vanishes_for_calibrated_rewards_and_not_for_inflated_ones():
    rng = np.random.default_rng(1)
    gap = rng.normal(0, 2, 200_000)
    wins = rng.random(gap.size) < 1 / (1 + np.exp(-gap))
    signed = np.where(wins, gap, -gap)
    assert preference_metrics(signed, np.ones(gap.size))["ece"] < 0.01
    assert preference_metrics(3 * signed, np.ones(gap.size))["ece"] > 0.05


def test_a_set_is_measured_over_comparisons_and_by_subset():
    comparisons = [scored([1.0, 0.0], [0], [1], subset="a"), scored([0.0, 1.0], [0], [1], subset="b")]
    comparisons += [scored([3.0, 2.0, 1.0], [0, 0, 1], [1, 2, 2], subset="b")]
    metrics = evaluate(comparisons)
    assert metrics["accuracy"] == 4 / 5
    assert metrics["subsets"]["a"]["accuracy"] == 1.0
    assert metrics["subsets"]["b"]["accuracy"] == 3 / 4
    assert metrics["comparisons"] == 3
    assert metrics["preferences"] == 5
    assert metrics["reward_mean"] == pytest.approx(np.mean([1, 0, 0, 1, 3, 2, 1]))
    assert metrics["chosen_mean"] == pytest.approx(np.mean([1, 0, 3, 3, 2]))
    assert metrics["gap_mean"] == pytest.approx(np.mean([1, -1, 1, 2, 1]))


def test_length_correlation_is_spearmans():
    metrics = evaluate([scored([1.0, 8.0, 3.0], [1], [0], lengths=[5, 7, 6])])
    assert metrics["length_correlation"] == pytest.approx(1.0)
    assert "length_correlation" not in evaluate([scored([1.0, 2.0], [0], [1], lengths=[4, 4])])


def test_a_rank_correlation_is_scipys():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 9, 50).astype(float), rng.integers(0, 9, 50)
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-14)


def test_bayes_accuracy_is_that_of_the_gold_rewards_on_the_same_labels():
    comparisons = [scored([0.0, 1.0], [0], [1], gold=[2.0, 1.0]), scored([0.0, 1.0], [0], [1], gold=[0.0, 1.0])]
    metrics = evaluate(comparisons)
    assert metrics["bayes_accuracy"] == 0.5
    assert metrics["bayes_accuracy_low"] < 0.5 < metrics["bayes_accuracy_high"]
    assert metrics["accuracy"] == 0.0


def test_ratings_that_the_labels_were_read_off_have_no_bayes_accuracy():
    """It would be 1; where one label is another's, it is told."""
    rated = scored([0.0, 1.0, 2.0], [0, 0, 1], [1, 2, 2], [1.0, 1.0, 0.5], gold=[4, 2, 2], strength=[2.0, 2.0, 0.0])
    assert "bayes_accuracy" not in evaluate([rated])
    assert evaluate([rated, scored([0.0, 1.0], [0], [1], gold=[1.0, 2.0])])["bayes_accuracy"] == 2 / 3


def test_extreme_rewards_stay_finite():
    metrics = preference_metrics(np.array([1e4, -1e4]), np.ones(2))
    assert all(math.isfinite(v) for v in metrics.values())
    assert metrics["nll"] == pytest.approx(5e3)


def test_ties_are_calibrated():
    """Confidence one half, right half the time."""
    assert preference_metrics(np.zeros(10), np.ones(10))["ece"] == 0.0
    assert preference_metrics(np.full(10, -1e-8), np.ones(10))["ece"] == pytest.approx(0.0, abs=1e-7)


def test_gold_rewards_of_ties_alone_give_no_bayes_accuracy():
    assert "bayes_accuracy" not in evaluate([scored([0.0, 1.0], [0], [1], [0.5], gold=[1.0, 2.0])])


def test_gaps_are_of_decided_preferences_and_their_likelier_side():
    """A tie, whose order means nothing, and a preference that the votes turn; test_running.py has the same."""
    rewards, better, worse, probability = [1.0, 3.0, 7.0], [0, 1, 2], [1, 2, 0], [0.5, 0.2, 0.9]
    chosen, rejected = [7.0, 7.0], [3.0, 1.0]  # of the second and third preference
    expected = {"chosen_mean": 7.0, "rejected_mean": 2.0, "gap_mean": 5.0, "accuracy": 1.0}
    metrics = evaluate([scored(rewards, better, worse, probability)])
    assert {k: metrics[k] for k in expected} == pytest.approx(expected)
    assert metrics["gap_std"] == pytest.approx(np.std(np.subtract(chosen, rejected)))
    assert "gap_mean" not in evaluate([scored([0.0, 1.0], [0], [1], [0.5])])


def test_subsets_are_logged_under_their_names():
    flat = flatten({"accuracy": 0.5, "subsets": {"hard": {"accuracy": 0.25, "nll": 1.0}}})
    assert flat == {"accuracy": 0.5, "hard_accuracy": 0.25, "hard_nll": 1.0}


def test_arrays_hold_a_row_per_comparison_and_its_most_preferred_response():
    """Where one has fewer responses, NaN; a probability below one half is a win of the other side."""
    rewards, best = as_arrays(
        [scored([1.0, 2.0], [0], [1], [0.2]), scored([3.0, 4.0, 5.0], [2, 2, 0], [0, 1, 1], [1.0, 0.5, 1.0])]
    )
    assert np.array_equal(rewards, np.float32([[1, 2, np.nan], [3, 4, 5]]), equal_nan=True)
    assert best.tolist() == [1, 2]


def test_preferring_the_longer_response_is_measured_as_the_model_is():
    """Longer is right, wrong, as long (half) and, of votes for the other side, right; a label tie does not count."""
    lengths = [[9, 2], [2, 9], [4, 4], [2, 9], [9, 2]]
    probability = [1.0, 1.0, 1.0, 0.2, 0.5]
    metrics = evaluate(
        [scored([0.0, 1.0], [0], [1], [p], lengths=n) for p, n in zip(probability, lengths, strict=True)]
    )
    assert metrics["longer_wins"] == (1 + 0 + 0.5 + 1) / 4
    assert 0 <= metrics["longer_wins_low"] < metrics["longer_wins"] < metrics["longer_wins_high"] <= 1


def test_intervals_know_which_preferences_share_a_prompt():
    rng = np.random.default_rng(2)
    alone = [replace(scored([r, 0.0], [0], [1]), prompt_id=str(n)) for n, r in enumerate(rng.normal(0.5, 1, 40))]
    together = [replace(c, prompt_id=str(n // 2)) for n, c in enumerate(c for c in alone for _ in range(2))]
    of_alone, of_together = evaluate(alone), evaluate(together)
    for key in ("accuracy", "nll"):
        assert of_alone[key] == pytest.approx(of_together[key])
        widths = [m[f"{key}_high"] - m[f"{key}_low"] for m in (of_alone, of_together)]
        assert widths[1] == pytest.approx(widths[0], rel=0.05)  # said twice, not known better
    assert "nll_low" not in evaluate(alone[:1])
