"""Statistics of a study: every run scores the same items, and seeds are few.

Two things make a difference of arms uncertain: which prompts were drawn to evaluate on, and which seeds were drawn to
train with. Both count, and they are crossed: every seed meets the same prompts. So one resampled set of prompts (whole,
with all their items) serves all runs. Five seeds are too few to resample: the variance between them enters as Student's
t with S - 1 degrees of freedom, and what it already holds of the sampling of items is taken off the other part.
`benchmarks/simulated_studies.py` shows that the intervals cover.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

DRAWS = 10_000
LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
POWER = 0.8


@dataclass(frozen=True)
class Means:
    """Mean of each run, and what it would have been on other prompts.

    value (R, M), draws (B, R, M): R runs, M metrics, B resampled sets of prompts. prompts (M,): how many count.
    """

    value: np.ndarray
    draws: np.ndarray
    prompts: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and items (or the difference of two), with its 95% interval and two-sided p-value for zero.

    NaN where fewer than two prompts count. seeds: how many there were; with one, the interval knows nothing of training
    noise. detectable: the smallest true difference that a study like this would find (p < 0.05 / tests) about four
    times in five.
    """

    value: float
    low: float
    high: float
    p: float
    seeds: int
    detectable: float


def resample(values: np.ndarray, prompts: np.ndarray, draws: int = DRAWS, seed: int = 0) -> Means:
    """Means of values (R, M, I) over items, and over items of resampled prompts.

    prompts (I,): integer prompt of each item. NaN: the item does not count for this metric (an undecided preference
    for accuracy); it must be NaN in all runs or in none.
    """
    runs, metrics, items = values.shape
    groups = int(prompts.max()) + 1
    flat = values.reshape(runs * metrics, items)
    counted = ~np.isnan(flat)
    sums = np.zeros((groups, runs * metrics))
    counts = np.zeros((groups, runs * metrics))
    for column, (value, count) in enumerate(zip(np.nan_to_num(flat), counted, strict=True)):
        sums[:, column] = np.bincount(prompts, value, groups)
        counts[:, column] = np.bincount(prompts, count, groups)
    generator = np.random.default_rng(seed)
    drawn = []
    with np.errstate(invalid="ignore"):
        for start in range(0, draws, 250):
            size = min(250, draws - start)
            picked = generator.integers(groups, size=(size, groups)) + groups * np.arange(size)[:, None]
            weights = np.bincount(picked.ravel(), minlength=size * groups).reshape(size, groups).astype(float)
            drawn.append((weights @ sums) / (weights @ counts))
        value = sums.sum(0) / counts.sum(0)
    counting = (counts.reshape(groups, runs, metrics)[:, 0] > 0).sum(0)
    return Means(value.reshape(runs, metrics), np.concatenate(drawn).reshape(draws, runs, metrics), counting)


def estimate(value: np.ndarray, draws: np.ndarray, prompts: int, tests: int = 1, seed: int = 1) -> Estimate:
    """Of values per seed (S,) and their draws over prompts (B, S): both sources of uncertainty together."""
    seeds, mean = len(value), float(value.mean())
    moved = draws[~np.isnan(draws).any(axis=1)] - value  # a draw may hold no item that counts
    if prompts < 2 or len(moved) < len(draws) / 2:
        nothing = float("nan")
        return Estimate(mean, nothing, nothing, nothing, seeds, nothing)
    generator = np.random.default_rng(seed)
    # Tails as heavy as the number of prompts, and of seeds, asks for.
    of_prompts = (moved.mean(axis=1) - moved.mean()) * np.sqrt(
        (prompts - 1) / generator.chisquare(prompts - 1, len(moved))
    )
    parts = (float(moved.mean(axis=1).var()), 0.0)  # variance that prompts alone, and that seeds put into the mean
    likely = mean + of_prompts
    if seeds > 1:
        of_seeds = float(value.var(ddof=1)) / seeds
        shared = max(0.0, parts[0] - float(moved.var(axis=1, ddof=1).mean()) / seeds)
        scale = np.sqrt(shared / parts[0]) if parts[0] else 0.0
        both = mean + of_prompts * scale + np.sqrt(of_seeds) * generator.standard_t(seeds - 1, len(moved))
        # Seeds may agree by chance, but never make a mean surer than its prompts do.
        if width(both) > width(likely):
            likely, parts = both, (shared, of_seeds)
    low, high = np.quantile(likely, TAILS)
    p = 2 * (min((likely <= 0).sum(), (likely >= 0).sum()) + 1) / (len(moved) + 1)
    return Estimate(mean, float(low), float(high), min(1.0, float(p)), seeds, detectable(*parts, prompts, seeds, tests))


def width(draws: np.ndarray) -> float:
    """From the lower to the upper end of the 95% interval of draws (B,)."""
    return float(np.subtract(*np.quantile(draws, TAILS[::-1])))


@dataclass(frozen=True)
class SignTest:
    """wins, losses: prompts on which one arm is right more often than the other, summed over seeds."""

    p: float
    wins: int
    losses: int


def sign_tests(arm: np.ndarray, baseline: np.ndarray, prompts: np.ndarray) -> SignTest:
    """McNemar's exact test of each seed's two runs, pooled over seeds. arm, baseline (S, I): accuracy of each item.

    Counted are prompts, which are independent, rather than preferences, which are not: on how many is the one right
    more often than the other? With one preference per prompt that is McNemar's test. It asks whether two trained
    models differ, seed by seed, and knows nothing of what another seed would have given. Seeds share their prompts, so
    pooling multiplies nothing: p is twice the mean of the seeds' p, which holds however they depend (Vovk & Wang 2020).
    """
    difference = np.nan_to_num(arm - baseline)
    sums = np.zeros((int(prompts.max()) + 1, len(difference)))
    np.add.at(sums, prompts, difference.T)
    wins, losses = (sums > 1e-9).sum(0), (sums < -1e-9).sum(0)
    tables = [[[0, win], [loss, 0]] for win, loss in zip(wins, losses, strict=True)]
    each = [float(mcnemar(table, exact=True).pvalue) for table in tables]
    pooled = each[0] if len(each) == 1 else min(1.0, 2 * float(np.mean(each)))
    return SignTest(pooled, int(wins.sum()), int(losses.sum()))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number, Holm (1979); NaN is no test."""
    corrected = np.array(p, dtype=float)
    tested = ~np.isnan(corrected)
    if tested.any():
        corrected[tested] = multipletests(corrected[tested], method="holm")[1]
    return [float(value) for value in corrected]


def detectable(prompt_variance: float, seed_variance: float, prompts: int, seeds: int, tests: int) -> float:
    """The difference that a t test with this standard error finds with power 0.8 at level 0.05 / tests.

    Degrees of freedom by Satterthwaite (1946).
    """
    variance = prompt_variance + seed_variance
    if not variance:
        return float("nan")
    parts = prompt_variance**2 / max(prompts - 1, 1) + (seed_variance**2 / (seeds - 1) if seeds > 1 else 0.0)
    freedom = variance**2 / parts
    critical = stats.t.isf((1 - LEVEL) / tests / 2, freedom)
    shift = optimize.brentq(lambda d: stats.nct.sf(critical, freedom, d) - POWER, 0, 10 * critical + 10)
    return float(shift * np.sqrt(variance))
