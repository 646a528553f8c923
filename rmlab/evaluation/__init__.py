"""Benchmarks for reward models: rows in, as comparisons; numbers out, from the rewards of each item alone.

A suite is one file with one registered function, named as in YAML, that returns a `Suite`.

result.py  its numbers, with their intervals
read.py    the files and hub data sets that its rows come from
items.py   what most suites count, and how they weigh it
chat.py    rows as the tokenizer of a model takes them
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmlab.metrics.scored import ScoredComparison
from rmlab.registry import Registry

SUITES = Registry("suite", "rmlab.evaluation")


@dataclass(frozen=True)
class Item:
    """What a suite counts once. `value`: 1 right, 0 wrong, between them where its authors give part of it."""

    id: str
    prompt_id: str  # items of one prompt are drawn together
    subset: str
    value: float
    comparisons: tuple[int, ...] = ()  # the `index` of each comparison that it was made of
    chance: float | None = 0.5  # its expected value where rewards are random; None: that depends on how they are spread


@dataclass(frozen=True)
class Suite:
    """A benchmark. Its numbers are weighted means of its subsets' means, which are means over items.

    rows: in a row format of training, each with id and subset; `gold_rewards` says which responses are right, where
    the authors do. items: what counts, from all scored comparisons. totals: items by subset -> name of a number ->
    weights of the subsets, which sum to 1; the first one is what the authors report as the suite's score.
    """

    rows: Sequence[Mapping[str, Any]]
    items: Callable[[Sequence[ScoredComparison]], list[Item]]
    totals: Callable[[Mapping[str, int]], Mapping[str, Mapping[str, float]]]
