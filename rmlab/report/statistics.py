"""Statistics of a study: every run scores the same items, and seeds are few.

Two things make a difference of arms uncertain: which prompts were drawn to evaluate on, and which seeds were drawn to
train with. Both count, and they are crossed: every seed meets the same prompts. Each has a variance that the data
estimate, and degrees of freedom that say how well; an interval is Student's t with both. Nothing is drawn at random.
`benchmarks/simulated_studies.py` shows that the intervals cover.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

LEVEL = 0.05
POWER = 0.8
GRID = (np.arange(40) + 0.5) / 40  # quantiles at which `detectable` looks at what a study may find its variances to be


@dataclass(frozen=True)
class Spread:
    """What makes a mean over S seeds and G prompts uncertain, as variances of that mean.

    shared: which prompts were drawn, alike for all seeds. own: how differently seeds take the same prompts. seeds: the
    variance between the means of the seeds, divided by S; it holds `own`, too. NaN for S = 1. prompts: how many there
    are in effect, (sum n)^2 / sum n^2 for n items each (Kish 1965).
    """

    shared: float
    own: float
    seeds: float
    number: int  # S
    prompts: float

    @property
    def of_prompts(self) -> float:
        """Degrees of freedom; one less than usual, for the values of few prompts are skewed."""
        return max(1.0, self.prompts - 2)

    def errors(self) -> list[tuple[float, float]]:
        """(standard error, how far t is that of the seeds) of prompts alone, and of both; the wider one counts.

        Seeds may agree by chance, but never make a mean surer than its prompts do.
        """
        alone, both = self.shared + self.own, self.shared + self.seeds
        if self.number < 2 or not both:
            return [(alone**0.5, 0.0)]
        return [(alone**0.5, 0.0), (both**0.5, self.seeds / both)]

    def critical(self, share: float, tail: float) -> float:
        """Of a standard error, the multiple that is exceeded with probability `tail` on either side.

        Between t of the prompts and t of the seeds, by the seeds' share of the variance, as Cochran and Cox (1950)
        weigh them; see `weight`.
        """
        of_prompts = -float(special.stdtrit(self.of_prompts, tail))
        if not share:
            return of_prompts
        return of_prompts + weight(share, tail) * (-float(special.stdtrit(self.number - 1, tail)) - of_prompts)

    def half_width(self, level: float = LEVEL) -> float:
        """Of the interval at 1 - level."""
        return max(error * self.critical(share, level / 2) for error, share in self.errors())

    def p(self, value: float) -> float:
        """Two-sided, of a value for which zero is expected: the level at which its interval ends at zero."""
        return max(self.p_of(abs(value), error, share) for error, share in self.errors())

    def p_of(self, value: float, error: float, share: float) -> float:
        """The same for one standard error."""
        if not error or not value:
            return float(not value)
        if not share:
            return float(2 * stats.t.sf(value / error, self.of_prompts))
        lowest = -230.0  # log of 1e-100, which is as good as zero
        if self.critical(share, float(np.exp(lowest)) / 2) < value / error:
            return 0.0
        found = optimize.brentq(lambda log: self.critical(share, float(np.exp(log)) / 2) - value / error, lowest, 0)
        return float(np.exp(found))


def weight(share: Any, tail: float) -> Any:
    """Of t of the seeds, where they have that share of the variance.

    Cochran and Cox's weight is the share itself. At the 95% level that is too careful, and its power of 1.25 covers; at
    the small levels of many comparisons it is not careful enough, for t of two seeds decides more and more alone.
    """
    return share ** min(0.75 + 20 * tail, 1.25)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and items (or the difference of two), with its 95% interval and two-sided p-value for zero.

    NaN where fewer than two prompts count. With one seed the interval knows nothing of training noise.
    """

    value: float
    low: float
    high: float
    p: float
    spread: Spread


def estimate(values: np.ndarray, prompts: np.ndarray, scale: str = "line", spare: int = 0) -> Estimate:
    """Of values (S, I) of S seeds on the same I items, prompts (I,) being the integer prompt of each item.

    NaN: the item does not count (an undecided preference for accuracy); it must be NaN for all seeds or for none.
    scale: where the interval is symmetric. `line`: a difference. `share`: on the log odds, so that it stays within 0
    and 1. `positive`: on the logarithm. spare: so many items more that count as disagreement in one seed, without
    which two arms that are right on the same items would be the same for certain (Agresti and Min 2005).
    """
    counted = ~np.isnan(values[0])
    values, prompts = values[:, counted], np.unique(prompts[counted], return_inverse=True)[1]
    mean = float(values.mean()) if values.size else float("nan")
    if not prompts.size or not prompts.max():
        nothing = float("nan")
        return Estimate(mean, nothing, nothing, nothing, Spread(nothing, nothing, nothing, len(values), 1.0))
    found = spread(values, prompts, spare)
    return Estimate(mean, *interval(mean, found, scale), found.p(mean), found)


def spread(values: np.ndarray, prompts: np.ndarray, spare: int = 0) -> Spread:
    """The variances of values (S, I), none of which is NaN; prompts (I,) are numbered from 0, two at least.

    Of prompts: what each adds to the mean, squared and summed, larger by 1 / (1 - its share of the items) (CR2 of Bell
    and McCaffrey 2002, for a mean).
    """
    seeds, items = values.shape
    sizes = np.bincount(prompts).astype(float)
    means = values.mean(axis=1)
    sums = np.stack([np.bincount(prompts, value) for value in values])
    rest = (sums - sizes * means[:, None]) / items / np.sqrt(1 - sizes / items)
    alone = float((rest.mean(axis=0) ** 2).sum()) + spare / items**2 / seeds
    own = float(((rest - rest.mean(axis=0)) ** 2).sum()) / max(seeds * (seeds - 1), 1)
    of_seeds = float(means.var(ddof=1)) / seeds if seeds > 1 else float("nan")
    own = min(own, alone)
    return Spread(alone - own, own, of_seeds, seeds, float(items**2 / (sizes**2).sum()))


def interval(mean: float, found: Spread, scale: str) -> tuple[float, float]:
    """The 95% interval of a mean, symmetric on the scale."""
    half = found.half_width()
    if scale == "share":
        if not 0 < mean < 1:  # all of them, or none: Wilson's (1927), of as many trials as there are prompts
            squared = float(stats.t.isf(LEVEL / 2, found.of_prompts)) ** 2
            margin = squared / (found.prompts + squared)
            return (1 - margin, 1.0) if mean >= 1 else (0.0, margin)
        odds, move = mean / (1 - mean), np.exp(min(half / mean / (1 - mean), 700.0))
        return float(odds / (odds + move)), float(odds * move / (1 + odds * move))
    if scale == "positive":
        move = float(np.exp(min(half / mean, 700.0))) if mean > 0 else 1.0
        return mean / move, mean * move
    return mean - half, mean + half


def detectable(found: Spread, seed_variance: float | None, freedom: int, tests: int) -> float:
    """The difference that a study like this finds at level 0.05 / tests with power 0.8; NaN for fewer than two seeds.

    seed_variance: of a difference of two runs between seeds, pooled over arms with so many degrees of freedom, for two
    or three seeds alone say little; it enters at its median-unbiased value, as likely too large as too small. What
    variances such a study would find is taken into account: with two seeds t decides by them more than by the effect.
    None: of two arms that no seed changes, so that only prompts do.
    """
    fixed = seed_variance is None
    if not found.shared + found.own + (seed_variance or 0) or (found.number < 2 and not fixed):
        return float("nan")
    tail, low = LEVEL / tests / 2, stats.t.isf(LEVEL / tests / 2, found.of_prompts)
    prompts = (stats.chi2.ppf(GRID, found.of_prompts) / found.of_prompts)[:, None]
    needed, true = np.sqrt((found.shared + found.own) * prompts) * low, (found.shared + found.own) ** 0.5
    if seed_variance is not None:
        of_seeds = max(found.own, seed_variance * freedom / float(stats.chi2.median(freedom)) / found.number)
        true = (found.shared + of_seeds) ** 0.5
        seeds = stats.chi2.ppf(GRID, found.number - 1) / (found.number - 1)
        both, high = found.shared * prompts + of_seeds * seeds, stats.t.isf(tail, found.number - 1)
        needed = np.maximum(needed, np.sqrt(both) * (low + (high - low) * weight(of_seeds * seeds / both, tail)))
    return float(
        optimize.brentq(lambda d: stats.norm.cdf((d - needed) / true).mean() - POWER, 0, 9 * (true + needed.max()))
    )


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
