"""Calibration against scikit-learn, loops and known truths."""

import numpy as np
import pytest
from comparisons import random_set, scored
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from rmlab.metrics.calibration import binned_error, brier_parts, calibration, equal_mass, temperature, tempered
from rmlab.metrics.evaluate import evaluate
from rmlab.metrics.pairs import Pairs


def claims(count=3000, seed=0, scale=1.0):
    """(gap, label) of preferences that are Bradley-Terry on gap / scale."""
    rng = np.random.default_rng(seed)
    gap = rng.normal(0, 1.5, count)
    return gap * scale, (rng.random(count) < expit(gap)).astype(float)


def test_bins_of_equal_mass_are_scikit_learns():
    gap, label = claims()
    confidence, outcome = expit(np.abs(gap)), np.where(gap > 0, label, 1 - label)
    bins = equal_mass(confidence, 10)
    seen, claimed = calibration_curve(outcome, confidence, n_bins=10, strategy="quantile")
    assert [confidence[bins == b].mean() for b in range(10)] == pytest.approx(claimed)
    assert [outcome[bins == b].mean() for b in range(10)] == pytest.approx(seen)
    sizes = np.bincount(bins)
    assert binned_error(confidence, outcome, bins) == pytest.approx(
        (sizes / sizes.sum() * np.abs(seen - claimed)).sum()
    )


def test_equal_confidences_are_in_one_bin():
    bins = equal_mass(np.repeat([0.5, 0.6, 0.9], [50, 1, 4]))
    assert [len(set(bins[those])) for those in (slice(50), slice(51, 55))] == [1, 1]
    assert set(bins) == set(range(bins.max() + 1)), "none is empty"


def test_the_parts_of_brier_are_murphys_of_both_ways_round():
    """Few distinct gaps, so that a bin holds one forecast: the sum is exact, and each part as Murphy wrote it."""
    rng = np.random.default_rng(1)
    gap = rng.choice([-2.0, -0.7, 0.0, 0.7, 2.0], 400)
    probability = rng.choice([0.0, 0.3, 0.5, 1.0], 400)
    forecast, outcome = np.append(expit(gap), expit(-gap)), np.append(probability, 1 - probability)
    reliability = resolution = 0.0
    for value in np.unique(np.round(forecast, 12)):
        inside = np.isclose(forecast, value)
        reliability += inside.mean() * (value - outcome[inside].mean()) ** 2
        resolution += inside.mean() * (outcome[inside].mean() - outcome.mean()) ** 2
    found = brier_parts(gap, probability)
    wanted = {"reliability": reliability, "resolution": resolution, "uncertainty": outcome.var(), "within": 0.0}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)
    assert found["value"] == pytest.approx(np.mean((forecast - outcome) ** 2))


def test_brier_is_scikit_learns_and_the_sum_of_its_parts():
    gap, label = claims()
    parts = brier_parts(gap, label)
    assert parts["value"] == pytest.approx(brier_score_loss(label, expit(gap)))
    assert parts["uncertainty"] == 0.25
    assert parts["value"] == pytest.approx(
        parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within"]
    )
    assert parts["reliability"] < 0.002 < brier_parts(3 * gap, label)["reliability"]


def test_the_temperature_is_that_of_a_logistic_regression_and_finds_the_truth():
    gap, label = claims(20_000, scale=3.0)
    fitted = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-10).fit(gap[:, None], label)
    assert temperature(gap, label) == pytest.approx(1 / fitted.coef_[0, 0], rel=1e-4)
    assert temperature(gap, label) == pytest.approx(3.0, rel=0.05)


def test_ties_and_soft_labels_have_their_share_in_the_temperature():
    rng = np.random.default_rng(3)
    gap, probability = rng.normal(size=300), rng.choice([0.5, 0.7, 1.0], 300)
    gap = np.where(rng.random(300) < 0.8, np.abs(gap), -np.abs(gap))

    def nll(t):
        return np.mean(probability * np.logaddexp(0, -gap / t) + (1 - probability) * np.logaddexp(0, gap / t))

    assert temperature(gap, probability) == pytest.approx(minimize(nll, 1.0, method="Nelder-Mead").x[0], rel=1e-3)


@pytest.mark.parametrize("gap", [[1.0, 2.0], [-1.0, -2.0], [0.0, 0.0], [1.0, -2.0]])
def test_no_temperature_is_fitted_where_there_is_none(gap):
    assert temperature(np.array(gap), np.ones(2)) is None


def test_a_temperature_is_tried_on_prompts_that_it_was_not_fitted_on():
    """The other half is far too sure in the other direction: what was fitted does not know it."""
    rng = np.random.default_rng(4)
    sure = rng.random(400) < 0.8
    gaps = np.where(sure, 1.0, -1.0) * np.where(np.arange(400) % 2 == 0, 4.0, 0.1)
    pairs = Pairs.of([scored([g, 0.0], [0], [1], prompt=f"{n:04}") for n, g in enumerate(gaps)])
    found = tempered(pairs)
    half = gaps[::2]
    assert found["value"] == pytest.approx(4 / np.log((half > 0).sum() / (half < 0).sum()))
    assert found["n"] == 200
    assert found["nll_before"] == pytest.approx(np.logaddexp(0, -gaps[1::2]).mean())
    assert found["nll_after"] == pytest.approx(np.logaddexp(0, -gaps[1::2] / found["value"]).mean())


def test_calibration_does_not_depend_on_which_side_is_called_better():
    """A label of 0.3 for one is 0.7 for the other."""
    rng = np.random.default_rng(5)
    rewards, probability = rng.normal(size=(80, 2)), rng.choice([0.3, 0.5, 1.0], 80)
    rewards[:, 0] += 3 * (probability - 0.5)
    told = list(zip(rewards.tolist(), probability, strict=True))
    one = [scored(r, [0], [1], [p], prompt=f"{n:03}") for n, (r, p) in enumerate(told)]
    other = [scored(r, [1], [0], [1 - p], prompt=f"{n:03}") for n, (r, p) in enumerate(told)]
    a, b = calibration(Pairs.of(one)), calibration(Pairs.of(other))
    assert (a["ece"], a["ece_equal_mass"]) == pytest.approx((b["ece"], b["ece_equal_mass"]))
    assert a["brier"] == pytest.approx(b["brier"])
    assert a["temperature"] == pytest.approx(b["temperature"])
    assert a["ece"] == pytest.approx(evaluate(one)["ece"])


def test_the_bins_hold_all_preferences():
    bins = calibration(Pairs.of(random_set()))["bins"]
    assert sum(b["n"] for b in bins) == 120 * 6
    assert all(b["low"] <= b["value"] <= b["high"] for b in bins)
    assert [b["confidence"] for b in bins] == sorted(b["confidence"] for b in bins)
