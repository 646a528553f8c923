"""The numbers of a suite: means of its subsets, weighted totals of them, and how far each may be trusted.

A total is a sum of subset means, each with its weight. What one item adds to its error is its distance from the mean of
its subset times weight / items of the subset; that is summed by prompt, over all subsets, since the items of a prompt
are drawn together. The interval is Wilson's, of as many independent items as would be as uncertain (metrics/intervals).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmlab.evaluation import Item, Suite
from rmlab.messages import UserError
from rmlab.metrics.evaluate import TIE, sides
from rmlab.metrics.intervals import student_quantile, wilson
from rmlab.metrics.scored import ScoredComparison


@dataclass(frozen=True)
class Number:
    """A mean, its 95% interval, how many items it is of, and its expected value for random rewards, where known.

    ties: the share of decided preferences whose rewards tie; None where there is no decided one.
    """

    value: float
    low: float
    high: float
    items: int
    ties: float | None
    chance: float | None


@dataclass(frozen=True)
class Result:
    """What a suite says of a model. The first total is the suite's score; subsets in the order of their items.

    weights: of the subsets in each total.
    """

    totals: dict[str, Number]
    weights: dict[str, dict[str, float]]
    subsets: dict[str, Number]
    items: list[Item]

    @classmethod
    def of(cls, suite: Suite, scored: Sequence[ScoredComparison], name: str) -> "Result":
        """Of all comparisons of the suite, in their order. UserError for rewards that are no numbers."""
        lost = sum(not np.isfinite(c.rewards).all() for c in scored)
        if lost:
            raise UserError(f"{name}: the rewards of {lost} of {len(scored)} comparisons are not finite")
        items = suite.items(scored)
        counts = Counter(item.subset for item in items)
        tied = {c.index: tied_preferences(c) for c in scored}
        alone = {subset: number(items, {subset: 1.0}, tied) for subset in counts}
        weights = {key: dict(weights) for key, weights in suite.totals(counts).items()}
        return cls({key: number(items, w, tied) for key, w in weights.items()}, weights, alone, items)

    def as_dict(self) -> dict[str, Any]:
        """{"overall", "totals", "subsets", "ties"} as suites/NAME.json holds them."""
        overall = next(iter(self.totals))
        totals = {key: {**vars(n), "weights": self.weights[key]} for key, n in self.totals.items()}
        subsets = {key: dict(vars(n)) for key, n in self.subsets.items()}
        return {"overall": overall, "totals": totals, "subsets": subsets, "ties": self.totals[overall].ties}


Tied = tuple[int, int]  # preferences whose rewards tie, decided preferences


def tied_preferences(comparison: ScoredComparison) -> Tied:
    """Counts of one comparison; undecided preferences, the ties in the labels, are left out."""
    decided = np.array(comparison.probability) != 0.5
    if not decided.any():
        return 0, 0
    better, worse = sides([comparison], [comparison.rewards])
    return int((np.abs(better - worse) <= TIE)[decided].sum()), int(decided.sum())


def number(items: Sequence[Item], weights: Mapping[str, float], tied: Mapping[int, Tied]) -> Number:
    """The total of these weights. Raises KeyError for a subset without items."""
    of = [item for item in items if item.subset in weights]
    names = {subset: n for n, subset in enumerate(weights)}
    subset = np.array([names[item.subset] for item in of])
    values = np.array([item.value for item in of])
    counts = np.bincount(subset, minlength=len(names))
    if not counts.all():
        raise KeyError(f"no items of {[s for s, n in names.items() if not counts[n]]}")
    weight = np.array([*weights.values()])
    value = round(float((weight * np.bincount(subset, values) / counts).sum()), 12)  # weights sum to 1 but for rounding
    prompts = np.unique([item.prompt_id for item in of], return_inverse=True)[1]
    low, high = interval(value, values, subset, prompts, weight)
    ties = np.array([tied[n] for n in {n: None for item in of for n in item.comparisons}]).reshape(-1, 2).sum(axis=0)
    return Number(value, low, high, len(of), float(ties[0] / ties[1]) if ties[1] else None, chance_of(of, weights))


def chance_of(items: Sequence[Item], weights: Mapping[str, float]) -> float | None:
    """What random rewards reach; None where that is not known of some item."""
    if any(item.chance is None for item in items):
        return None
    means = {s: np.mean([item.chance for item in items if item.subset == s]) for s in weights}
    return float(sum(weight * means[s] for s, weight in weights.items()))


def interval(
    value: float, values: np.ndarray, subset: np.ndarray, prompts: np.ndarray, weight: np.ndarray
) -> tuple[float, float]:
    """(low, high) of the total `value`. values, subset, prompts: (N,); weight: (S,) of each subset.

    A value outside of [0, 1], which bonus points make, is at an end of its interval.
    """
    share = min(max(value, 0.0), 1.0)
    low, high = wilson(share, effective_number(share, values, subset, prompts, weight))
    return min(low, value), max(high, value)


def effective_number(
    share: float, values: np.ndarray, subset: np.ndarray, prompts: np.ndarray, weight: np.ndarray
) -> float:
    """How many independent items would tell as much of a share; never more than there are.

    Where the items of each subset are alike, nothing shows how alike those of a prompt are: then the prompts count.
    """
    groups = np.array([len(np.unique(prompts[subset == s])) for s in range(len(weight))])
    by_prompts = float(1 / (weight**2 / groups).sum())
    variance, alone = variance_of_total(values, subset, prompts, weight, groups), share * (1 - share)
    if variance == 0 or alone == 0:
        return by_prompts
    items, all_prompts = len(values), len(np.unique(prompts))
    few = 1.0 if all_prompts in (1, items) else (student_quantile(items - 1) / student_quantile(all_prompts - 1)) ** 2
    return float(few * min(items, alone / variance))


def variance_of_total(
    values: np.ndarray, subset: np.ndarray, prompts: np.ndarray, weight: np.ndarray, groups: np.ndarray
) -> float:
    """Of a total, from how the sums of its prompts differ; groups: (S,) the prompts of each subset."""
    counts = np.bincount(subset, minlength=len(weight))
    means = np.bincount(subset, values, len(weight)) / counts
    few = np.sqrt(groups / np.maximum(groups - 1, 1))  # as a variance is divided by n - 1
    parts = (weight * few / counts)[subset] * (values - means[subset])
    return float((np.bincount(prompts, parts) ** 2).sum())
