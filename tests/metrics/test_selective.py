"""Whether doubt finds errors: against counting pairs, scikit-learn, a bootstrap and numbers by hand."""

import numpy as np
import pytest

from rmlab.metrics.selective import (
    area,
    auroc,
    auroc_difference,
    confidence_score,
    confident_rates,
    coverage,
    detection,
    kept,
)


def drawn(count=300, prompts=100, seed=0):
    """(doubt with ties, right, prompt): errors are doubted more; preferences on a prompt share a part of their luck."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(0, prompts, count)
    luck = rng.normal(size=prompts)[prompt] + rng.normal(size=count)
    right = (luck > -0.6).astype(float)
    return np.round(rng.normal(size=count) - 0.7 * luck, 1), right, prompt


def test_the_auroc_is_that_of_scikit_learn_with_ties():
    roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score
    doubt, right, prompt = drawn()
    assert auroc(doubt, right, prompt)["value"] == pytest.approx(roc_auc_score(1 - right, doubt), abs=1e-12)


def test_a_tie_of_rewards_is_half_an_error():
    """By counting: errors weigh 1 and 1/2, what is right 1 and 1/2; the tied one is beside itself too."""
    doubt, right = np.array([3.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.5])
    won = 1 * (1 + 0.5) + 0.5 * (1 + 0.5 * 0.5)
    assert detection(doubt, right).mean() == pytest.approx(won / (1.5 * 1.5))


def test_intervals_of_the_auroc_and_of_a_difference_are_those_of_a_bootstrap_of_prompts():
    doubt, right, prompt = drawn()
    other = np.random.default_rng(1).normal(size=len(doubt)) + 0.3 * doubt
    rng, draws = np.random.default_rng(2), []
    members = [np.flatnonzero(prompt == p) for p in np.unique(prompt)]
    for _ in range(600):
        those = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        one, two = (detection(d[those], right[those]).mean() for d in (doubt, other))
        draws.append((one, one - two))
    found = auroc(doubt, right, prompt), auroc_difference(doubt, other, right, prompt)
    for number, sd in zip(found, np.std(draws, axis=0), strict=True):
        assert (number["high"] - number["low"]) / 2 / 1.98 == pytest.approx(sd, rel=0.1)


def test_doubt_of_what_has_no_error_is_no_number():
    assert auroc(np.arange(4.0), np.ones(4), np.arange(4)) is None


def test_accuracy_by_coverage_by_hand():
    """The second and third are doubted equally, so that each order of them is as likely."""
    doubt, right = np.array([0.1, 0.5, 0.5, 0.9]), np.array([1.0, 0.0, 1.0, 0.0])
    assert coverage(doubt, right) == pytest.approx([1, 0.75, 2 / 3, 0.5])
    assert area(doubt, right) == pytest.approx(1 - (1 + 0.75 + 2 / 3 + 0.5) / 4)
    assert kept(doubt, right, np.arange(4), 0.25)["value"] == 1
    assert kept(doubt, right, np.arange(4), 0.5) == pytest.approx(kept(doubt, right, np.arange(4), 0.75))
    assert kept(doubt, right, np.arange(4), 0.75)["n"] == 3


def test_doubt_at_random_has_the_error_rate_as_its_area():
    rng = np.random.default_rng(0)
    right = (rng.random(20_000) < 0.8).astype(float)
    assert area(rng.random(20_000), right) == pytest.approx(0.2, abs=0.01)


def test_confident_rates_and_their_score_by_hand():
    """Of five: three right, two of them surely; two wrong, one of them surely."""
    gap, sd = np.array([2.0, 3.0, 0.5, -2.0, -0.5]), np.ones(5)
    rates = confident_rates(gap, sd, (gap > 0).astype(float), width=1.0)
    assert rates == pytest.approx({"true": 0.6, "false": 0.4, "confident_true": 0.4, "confident_false": 0.2})
    assert confidence_score(rates, 1.0) == pytest.approx(0.4 - 0.2)
    assert confidence_score(rates, 0.0) == pytest.approx(2 / 3 - 1 / 2)
    assert confidence_score(rates, 0.5) == pytest.approx(0.4 / 0.8 - 0.2 / 0.7)
