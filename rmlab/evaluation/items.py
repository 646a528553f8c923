"""What most suites count, and how they weigh it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rmlab.data import Text
from rmlab.evaluation import Item
from rmlab.evaluation.chat import asked
from rmlab.metrics.evaluate import TIE
from rmlab.metrics.scored import ScoredComparison

Totals = Mapping[str, Mapping[str, float]]


def row_of(prompt: Text, right: Sequence[Text], wrong: Sequence[Text], identity: object, subset: str) -> dict[str, Any]:
    """A native row: the right responses, then the wrong ones, of which each right one beats each."""
    places = [(r, len(right) + w) for r in range(len(right)) for w in range(len(wrong))]
    return {
        "prompt": asked(prompt),
        "responses": [*right, *wrong],
        "preferences": [{"better": better, "worse": worse} for better, worse in places],
        "gold_rewards": [1.0] * len(right) + [0.0] * len(wrong),
        "id": str(identity),
        "subset": subset,
    }


def right_and_wrong(comparison: ScoredComparison) -> tuple[list[float], list[float]]:
    """The rewards of right responses and those of wrong ones, by gold."""
    both = list(zip(comparison.rewards, comparison.gold, strict=True))
    return [reward for reward, gold in both if gold > 0], [reward for reward, gold in both if gold <= 0]


def all_beaten(comparison: ScoredComparison) -> bool:
    """Whether every right response has more reward than every wrong one; a tie is not more."""
    right, wrong = right_and_wrong(comparison)
    return min(right) - max(wrong) > TIE


def strict_items(scored: Sequence[ScoredComparison]) -> list[Item]:
    """An item per comparison, 1 where the one right response beats every wrong one; 0 also where one has as much."""
    return [Item(c.id, c.prompt_id, c.subset, float(all_beaten(c)), (c.index,), 1 / len(c.rewards)) for c in scored]


def over_items(counts: Mapping[str, int], subsets: Iterable[str] | None = None) -> dict[str, float]:
    """Weights of a mean over the items of these subsets, of all by default."""
    chosen = list(counts if subsets is None else subsets)
    whole = sum(counts[subset] for subset in chosen)
    return {subset: counts[subset] / whole for subset in chosen}


def over_subsets(subsets: Iterable[str]) -> dict[str, float]:
    """Weights of a mean over subsets, each counting as much."""
    chosen = list(subsets)
    return {subset: 1 / len(chosen) for subset in chosen}


def mean_of(*totals: Mapping[str, float]) -> dict[str, float]:
    """Weights of the mean of totals."""
    mean: dict[str, float] = {}
    for total in totals:
        for subset, weight in total.items():
            mean[subset] = mean.get(subset, 0.0) + weight / len(totals)
    return mean


def complete(totals: Totals, counts: Mapping[str, int]) -> Totals:
    """The totals of which all subsets are there; of a part of the data, where there is none, the mean of its items."""
    found = {name: weights for name, weights in totals.items() if set(weights) <= set(counts)}
    return found or {"mean of items": over_items(counts)}
