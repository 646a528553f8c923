"""Intervals and tests, against reference maths and against simulated studies."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from rmlab.report.statistics import estimate, holm, resample, sign_tests


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


@pytest.mark.parametrize(("seed_sd", "wider"), [(0.0, False), (0.1, True), (0.4, True)])
def test_the_interval_is_that_of_crossed_seeds_and_items(seed_sd, wider):
    """The classical variances of a random effects table: seeds with t of S - 1, what items add with t of I - 1.

    Or items alone with t of I - 1, where that is wider: seeds never make a mean surer than its items.
    """
    generator = np.random.default_rng(1)
    values = 0.3 + generator.normal(0, 1, 400) + generator.normal(0, seed_sd, 6)[:, None]
    values = values + generator.normal(0, 0.5, (6, 400))
    if not wider:
        values += values.mean() - values.mean(axis=1, keepdims=True)  # seeds that agree
    means = resample(values[:, None, :], np.arange(400))
    found = estimate(means.value[:, 0], means.draws[:, :, 0], 400)
    ms_seed, ms_item, ms_rest = (square / values.size for square in two_way(values))
    t_seed, t_item = generator.standard_t(5, 1_000_000), generator.standard_t(399, 1_000_000)
    both = np.sqrt(ms_seed) * t_seed + np.sqrt(ms_item - ms_rest) * t_item
    of_both, of_items = np.quantile(both, 0.975), np.sqrt(ms_item) * stats.t.ppf(0.975, 399)
    assert (of_both > of_items) == wider
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(max(of_both, of_items), rel=0.05)
    reference = both if wider else np.sqrt(ms_item) * t_item
    assert found.p == pytest.approx((np.abs(reference) >= abs(values.mean())).mean(), abs=0.02)


@pytest.mark.parametrize(("seeds", "seed_sd", "noise"), [(2, 0.3, 0.3), (5, 0.05, 0.3), (5, 0.0, 1.0), (5, 0.5, 0.3)])
def test_intervals_cover_the_truth(seeds, seed_sd, noise):
    """200 studies of 100 prompts whose true mean is 0: 95% intervals hold it; p is uniform enough and agrees."""
    generator, covered, agreed = np.random.default_rng(8), 0, 0
    for n in range(200):
        values = generator.normal(0, 0.5, 100) + generator.normal(0, seed_sd, seeds)[:, None]
        values = values + generator.normal(0, noise, (seeds, 100))
        means = resample(values[:, None, :], np.arange(100), draws=400, seed=n)
        found = estimate(means.value[:, 0], means.draws[:, :, 0], 100, seed=n)
        covered += found.low <= 0 <= found.high
        agreed += (found.low <= 0 <= found.high) == (found.p >= 0.05)
    assert 0.91 <= covered / 200 <= 0.99
    assert agreed / 200 >= 0.98


def test_seeds_that_agree_do_not_make_prompts_certain():
    """Two seeds with the same difference by chance, from other items: the interval is that of the prompts at least."""
    values = np.zeros((2, 32))
    values[0, :3], values[0, 3] = 1.0, -1.0
    values[1, 10:13], values[1, 13] = 1.0, -1.0
    means = resample(values[:, None, :], np.arange(32))
    found = estimate(means.value[:, 0], means.draws[:, :, 0], 32)
    alone = values.mean(axis=0).std(ddof=1) / math.sqrt(32) * stats.t.ppf(0.975, 31)
    assert found.value == pytest.approx(2 / 32)
    assert (found.high - found.low) / 2 == pytest.approx(alone, rel=0.1)


def test_prompts_are_resampled_whole():
    """20 prompts of 10 equal items are 20 observations, not 200."""
    generator = np.random.default_rng(2)
    of_prompt = generator.normal(0, 1, 20)
    values = np.repeat(of_prompt, 10)[None, None, :]
    means = resample(values, np.repeat(np.arange(20), 10))
    found = estimate(means.value[:, 0], means.draws[:, :, 0], int(means.prompts[0]))
    half = stats.t.ppf(0.975, 19) * of_prompt.std(ddof=1) / math.sqrt(20)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_undecided_items_do_not_count():
    values = np.array([[[1.0, np.nan, 0.0, 1.0]]])
    assert resample(values, np.arange(4), draws=10).value[0, 0] == pytest.approx(2 / 3)


def test_detectable_is_what_is_found_four_times_in_five():
    """Simulated: differences of that size are significant in about 80% of studies (estimated from five seeds)."""
    generator = np.random.default_rng(3)
    found, sizes = 0, []
    for n in range(400):
        noise = generator.normal(0, 1, 200) + generator.normal(0, 0.1, 5)[:, None]
        means = resample(noise[:, None, :], np.arange(200), draws=500, seed=n)
        sizes.append(estimate(means.value[:, 0], means.draws[:, :, 0], 200, seed=n).detectable)
    shift = float(np.mean(sizes))
    for n in range(400):
        noise = shift + generator.normal(0, 1, 200) + generator.normal(0, 0.1, 5)[:, None]
        means = resample(noise[:, None, :], np.arange(200), draws=500, seed=n)
        found += estimate(means.value[:, 0], means.draws[:, :, 0], 200, seed=n).p < 0.05
    assert found / 400 == pytest.approx(0.8, abs=0.12)


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
