"""Log-probabilities of the responses before training, for terms that compare the model with what it was."""

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm

from rmlab.data.trees import TokenTree, Trees
from rmlab.messages import UserError
from rmlab.metrics.scored import ScoredComparison
from rmlab.upstream import fingerprint

ROWS = 8  # of a forward


class References:
    """Of data sets, each computed the first time that it is asked for."""

    def __init__(self) -> None:
        self.sets: dict[str | None, dict[int, list[float]]] = {}

    def know(self, trees: Trees) -> bool:
        """Whether they have been computed."""
        return isinstance(trees, Dataset) and fingerprint(trees) in self.sets

    def add_to(self, trees: Trees, scored: Callable[[list[TokenTree]], list[ScoredComparison]]) -> Dataset:
        """The trees with their `reference_logps`. UserError for a stream, which is not read before training.

        scored: some of them with their `logps` by the model as it is now.
        """
        if not isinstance(trees, Dataset):
            raise UserError("the loss reads reference_logps, which a stream has none of; leave data.streaming out")
        name = fingerprint(trees)
        if name not in self.sets:
            self.sets[name] = computed(trees, scored)
        found = self.sets[name]

        def with_reference(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
            if "index" in rows:
                rows["reference_logps"] = [found[index] for index in rows["index"]]
            return rows

        return trees.with_transform(with_reference)


@torch.no_grad()
def computed(trees: Dataset, scored: Callable[[list[TokenTree]], list[ScoredComparison]]) -> dict[int, list[float]]:
    """Index of a comparison -> (K,) of its responses."""
    found: dict[int, list[float]] = {}
    for first in tqdm(range(0, len(trees), ROWS), desc="reference log-probabilities"):
        some = [TokenTree.of(trees[n]) for n in range(first, min(first + ROWS, len(trees)))]
        for one in scored(some):
            found[one.index] = [value for (value,) in one.columns["logps"]]
    return found
