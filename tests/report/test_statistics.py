"""Intervals and tests, against reference maths and against simulated studies."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from rmlab.report.statistics import detectable, estimate, holm, sign_tests


def two_way(values):
    """Mean squares of a two-way table (S, I) of crossed seeds and items: of seeds, of items, of the rest."""
    seeds, items = values.shape
    mean = values.mean()
    of_seed, of_item = values.mean(axis=1) - mean, values.mean(axis=0) - mean
    rest = values - mean - of_seed[:, None] - of_item[None, :]
    degrees = (seeds - 1) * (items - 1)
    return (
        items * (of_seed**2).sum() / (seeds - 1),
        seeds * (of_item**2).sum() / (items - 1),
        (rest**2).sum() / degrees,
    )


def made_up(seed_sd, seeds=6, items=400):
    generator = np.random.default_rng(1)
    values = 0.3 + generator.normal(0, 1, items) + generator.normal(0, seed_sd, seeds)[:, None]
    return values + generator.normal(0, 0.5, (seeds, items))


@pytest.mark.parametrize("seed_sd", [0.05, 0.1, 0.4])
def test_the_variances_are_those_of_crossed_seeds_and_items(seed_sd):
    """The classical variances of a random effects table; the interval weighs t of both as Cochran and Cox do."""
    values = made_up(seed_sd)
    found = estimate(values, np.arange(400))
    ms_seed, ms_item, ms_rest = (square / values.size for square in two_way(values))
    assert found.spread.seeds == pytest.approx(ms_seed)
    assert found.spread.own == pytest.approx(ms_rest)
    assert found.spread.shared == pytest.approx(ms_item - ms_rest)
    t_seed, t_item = stats.t.ppf(0.975, 5), stats.t.ppf(0.975, 398)
    variance = ms_seed + ms_item - ms_rest
    weight = (ms_seed / variance) ** 1.25
    both = math.sqrt(variance) * (weight * t_seed + (1 - weight) * t_item)
    assert found.high - found.value == pytest.approx(max(both, math.sqrt(ms_item) * t_item))
    assert found.low == pytest.approx(2 * found.value - found.high)


def test_the_interval_is_exact_for_one_seed_and_independent_items():
    values = np.random.default_rng(2).normal(0.1, 1, (1, 50))
    found = estimate(values, np.arange(50))
    error = values.std(ddof=1) / math.sqrt(50)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 48) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(found.value / error, 48))


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (2, 0.3), (3, 0.1), (6, 0.4)])
def test_p_is_the_level_at_which_the_interval_ends_at_zero(seeds, seed_sd):
    values = made_up(seed_sd, seeds, 60)
    found = estimate(values - values.mean() + 0.2, np.arange(60))
    assert found.spread.half_width(found.p) == pytest.approx(0.2)
    shifted = estimate(values - values.mean() + found.spread.half_width(), np.arange(60))
    assert shifted.p == pytest.approx(0.05)


@pytest.mark.parametrize(("seeds", "seed_sd", "noise"), [(2, 0.3, 0.3), (5, 0.05, 0.3), (5, 0.0, 1.0), (5, 0.5, 0.3)])
def test_intervals_cover_the_truth(seeds, seed_sd, noise):
    """400 studies of 100 prompts whose true mean is 0."""
    generator, covered = np.random.default_rng(8), 0
    for _ in range(400):
        values = generator.normal(0, 0.5, 100) + generator.normal(0, seed_sd, seeds)[:, None]
        found = estimate(values + generator.normal(0, noise, (seeds, 100)), np.arange(100))
        covered += found.low <= 0 <= found.high
    assert 0.915 <= covered / 400 <= 0.99


@pytest.mark.parametrize("shared", [0.1, 0.5, 0.9])
def test_intervals_cover_where_one_prompt_holds_much(shared):
    """One of 100 prompts has 30% of the items: intervals count it as what it is."""
    prompts = np.array([0] * 42 + list(range(1, 100)))
    generator, covered = np.random.default_rng(9), 0
    for _ in range(400):
        of_prompt = generator.normal(0, math.sqrt(shared), 100)[prompts]
        found = estimate((of_prompt + generator.normal(0, math.sqrt(1 - shared), 141))[None], prompts)
        covered += found.low <= 0 <= found.high
    assert covered / 400 >= 0.93
    assert found.spread.prompts == pytest.approx(141**2 / (42**2 + 99))


@pytest.mark.parametrize("accuracy", [0.01, 0.5, 0.98])
def test_intervals_of_shares_stay_within_bounds_and_cover(accuracy):
    """100 items each, also where all are right."""
    generator, covered = np.random.default_rng(10), 0
    for _ in range(400):
        found = estimate((generator.random((1, 100)) < accuracy).astype(float), np.arange(100), "share")
        assert 0 <= found.low <= found.value <= found.high <= 1
        covered += found.low <= accuracy <= found.high
    assert 0.93 <= covered / 400 <= 0.99
    all_right = estimate(np.ones((1, 25)), np.arange(25), "share")
    squared = stats.t.ppf(0.975, 23) ** 2  # Wilson's limit n / (n + z^2), with t for z
    assert (all_right.low, all_right.high) == (pytest.approx(25 / (25 + squared)), 1.0)


def test_an_interval_of_a_positive_mean_stays_positive():
    found = estimate(np.array([[0.001, 0.0, 5.0, 0.0, 0.01]]), np.arange(5), "positive")
    assert 0 < found.low < found.value < found.high
    assert found.low * found.high == pytest.approx(found.value**2)


def test_seeds_that_agree_do_not_make_prompts_certain():
    """Two seeds with the same difference by chance, from other items: the interval is that of the prompts at least."""
    values = np.zeros((2, 32))
    values[0, :3], values[0, 3] = 1.0, -1.0
    values[1, 10:13], values[1, 13] = 1.0, -1.0
    found = estimate(values, np.arange(32))
    alone = values.mean(axis=0).std(ddof=1) / math.sqrt(32) * stats.t.ppf(0.975, 30)
    assert found.value == pytest.approx(2 / 32)
    assert (found.high - found.low) / 2 == pytest.approx(alone)


def test_arms_that_are_right_on_the_same_items_are_not_the_same_for_certain():
    """As if one item more were there on which they disagree."""
    assert estimate(np.zeros((1, 100)), np.arange(100)).high == 0
    found = estimate(np.zeros((1, 100)), np.arange(100), spare=1)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 98) / 100)
    assert found.p == 1


def test_prompts_count_whole():
    """20 prompts of 10 equal items are 20 observations, not 200."""
    of_prompt = np.random.default_rng(2).normal(0, 1, 20)
    found = estimate(np.repeat(of_prompt, 10)[None], np.repeat(np.arange(20), 10))
    half = stats.t.ppf(0.975, 18) * of_prompt.std(ddof=1) / math.sqrt(20)
    assert (found.high - found.low) / 2 == pytest.approx(half)


def test_undecided_items_do_not_count():
    assert estimate(np.array([[1.0, np.nan, 0.0, 1.0]]), np.arange(4)).value == pytest.approx(2 / 3)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_detectable_is_what_is_found_four_times_in_five(seeds):
    """Of 500 studies with the median of what they call detectable as their true difference."""
    generator = np.random.default_rng(3)

    def study(shift):
        values = generator.normal(0, 1, 200) + generator.normal(0, 0.1, seeds)[:, None]
        arms = generator.normal(0, 0.1 / math.sqrt(2), (2, seeds))  # of a run, half of the variance of a difference
        return estimate(values + shift, np.arange(200)), float(arms.var(axis=1, ddof=1).mean())

    def size(found, variance):
        return detectable(found.spread, 2 * variance, 2 * (seeds - 1), 1)

    sizes = [size(*study(0.0)) for _ in range(500)]
    found = sum(study(float(np.median(sizes)))[0].p < 0.05 for _ in range(500))
    assert 0.75 <= found / 500 <= 0.85


def test_mcnemar_is_exact_and_pooled_over_seeds():
    """One preference per prompt: statsmodels' exact McNemar per seed, then twice the mean."""
    generator = np.random.default_rng(4)
    arm, base = (generator.integers(0, 2, (3, 50)).astype(float) for _ in range(2))
    arm[:, :20] = 1
    found = sign_tests(arm, base, np.arange(50))
    each = []
    for a, b in zip(arm, base, strict=True):
        table = [[((a == 1) & (b == 1)).sum(), ((a == 1) & (b == 0)).sum()], [((a == 0) & (b == 1)).sum(), 0]]
        each.append(mcnemar(table, exact=True).pvalue)
    assert found.p == pytest.approx(min(1, 2 * np.mean(each)))
    assert (found.wins, found.losses) == (((arm > base).sum()), ((arm < base).sum()))


def test_holm():
    """By hand: sorted p times 3, 2, 1, never falling."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.01, float("nan"), 0.02]) == pytest.approx([0.02, float("nan"), 0.02], nan_ok=True)
    assert holm([]) == []
