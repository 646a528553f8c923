"""Intervals of shares and means against statsmodels, textbook formulas and simulated prompts."""

import numpy as np
import pytest
from scipy.stats import t
from statsmodels.stats.proportion import proportion_confint

from rmlab.metrics.intervals import effective_items, mean_interval, share_interval, wilson


@pytest.mark.parametrize(("right", "items"), [(24, 25), (1, 3), (0, 7), (7, 7), (500, 1000)])
def test_of_independent_items_it_is_wilsons(right, items):
    values = np.array([1.0] * right + [0.0] * (items - right))
    expected = proportion_confint(right, items, method="wilson")
    assert share_interval(values, np.arange(items)) == pytest.approx(expected)


@pytest.mark.parametrize("share", [0.0, 1e-12, 0.5, 1 - 1e-12, 1.0])
@pytest.mark.parametrize("items", [0.02, 1.0, 3.0, 1e9])
def test_an_interval_holds_its_share_and_stays_in_the_unit(share, items):
    low, high = wilson(share, items)
    assert 0 <= low <= share <= high <= 1


def test_items_that_repeat_their_prompt_tell_nothing_more():
    """Each of 40 prompts ten times over, with the same answer: 40 items, by Student's quantiles instead of Wilson's."""
    prompts = np.repeat(np.arange(40), 10)
    values = (prompts % 4 > 0).astype(float)
    once = effective_items(values, prompts)
    few = (t.ppf(0.975, 399) / t.ppf(0.975, 39)) ** 2
    assert once == pytest.approx(few * 40 * 39 / 40)  # the variance between prompts has 39 degrees of freedom


def test_prompts_that_answer_alike_are_no_more_than_their_items():
    """Every prompt has one right and one wrong: no design effect makes two items more than two."""
    assert effective_items(np.array([1.0, 0.0] * 30), np.repeat(np.arange(30), 2)) <= 60


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_of_equal_answers_the_prompts_count(value):
    assert effective_items(np.full(12, value), np.repeat(np.arange(4), 3)) == 4


def test_it_covers_where_prompts_are_alike_and_plain_wilson_does_not():
    """60 prompts of 1 to 12 items; how often a prompt is answered right is itself drawn, 0.7 on average."""
    rng = np.random.default_rng(0)
    hits = {"ours": 0, "plain": 0}
    for _ in range(1000):
        sizes = rng.integers(1, 13, 60)
        prompts = np.repeat(np.arange(60), sizes)
        values = (rng.random(len(prompts)) < rng.beta(1.4, 0.6, 60)[prompts]).astype(float)
        ours, plain = share_interval(values, prompts), proportion_confint(values.sum(), len(values), method="wilson")
        for name, (low, high) in (("ours", ours), ("plain", plain)):
            hits[name] += low <= 0.7 <= high
    assert 930 <= hits["ours"] <= 970
    assert hits["plain"] < 800


def test_of_independent_values_a_mean_has_students_interval():
    values = np.random.default_rng(1).exponential(size=9)
    expected = t.interval(0.95, 8, values.mean(), values.std(ddof=1) / 3)
    assert mean_interval(values, np.arange(9)) == pytest.approx(expected)
    assert mean_interval(values, np.zeros(9)) is None
