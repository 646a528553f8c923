"""Whether two models decide the same items alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmlab.messages import UserError
from rmlab.metrics.correlation import of_differences
from rmlab.metrics.evaluate import decisions
from rmlab.metrics.pairs import Number, Pairs, share
from rmlab.metrics.scored import ScoredComparison


@dataclass(frozen=True)
class Flip:
    """A preference that two models decide differently. gap: of each, better minus worse."""

    index: int  # of its comparison
    better: int
    worse: int
    gap_a: float
    gap_b: float


@dataclass(frozen=True)
class Agreement:
    """Of two models on the same preferences.

    alike: share that they decide alike: for the better response, for the worse one, or neither. kappa: how much more
    alike than two models as accurate as they are that err on unrelated items, 1 at most (Cohen 1960; error consistency,
    Geirhos et al. 2020); None where both decide all alike one way. correlation: Spearman's, of their gaps. flips: what
    one decides one way and the other one the other way, or not, surest first.
    """

    alike: Number
    kappa: float | None
    correlation: Number | None
    flips: list[Flip]


def agreement(a: Sequence[ScoredComparison], b: Sequence[ScoredComparison]) -> Agreement:
    """Of two scored sets of the same comparisons in any order. UserError where they are not the same."""
    a, b = sorted(a, key=lambda c: c.index), sorted(b, key=lambda c: c.index)
    if [(c.index, c.better, c.worse) for c in a] != [(c.index, c.better, c.worse) for c in b]:
        raise UserError("two scored sets that hold other comparisons cannot be compared; score the same rows with both")
    of_a, of_b = Pairs.of(a), Pairs.of(b)
    one, two = decisions(of_a.gap), decisions(of_b.gap)
    decided = of_a.decided
    return Agreement(
        alike=share((one == two).astype(float), of_a.prompt),
        kappa=kappa(one[decided], two[decided]),
        correlation=of_differences(of_a.gap, of_b.gap, of_a.prompt),
        flips=flips(a, of_a.gap, of_b.gap, np.flatnonzero(one != two)),
    )


def kappa(one: np.ndarray, two: np.ndarray) -> float | None:
    """Cohen's, of two decisions (P,)."""
    if not len(one):
        return None
    seen = float((one == two).mean())
    by_chance = sum(float((one == way).mean() * (two == way).mean()) for way in (-1, 0, 1))
    return None if by_chance == 1 else (seen - by_chance) / (1 - by_chance)


def flips(comparisons: Sequence[ScoredComparison], a: np.ndarray, b: np.ndarray, those: np.ndarray) -> list[Flip]:
    """Those (F,) of the preferences with gaps a and b (P,), the largest product of gaps first: it has no unit."""
    places = [
        (c.index, better, worse) if p >= 0.5 else (c.index, worse, better)
        for c in comparisons
        for better, worse, p in zip(c.better, c.worse, c.probability, strict=True)
    ]
    surest = those[np.argsort(-np.abs(a * b)[those], kind="stable")]
    return [Flip(places[p][0], places[p][1], places[p][2], float(a[p]), float(b[p])) for p in surest]
