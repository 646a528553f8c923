"""Token trees -> a Batch: token ids laid out for the model, index tensors for losses and metrics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from rmlab.data.trees import TokenTree
from rmlab.losses import Column, as_column
from rmlab.losses.reduce import Weights
from rmlab.scoring.batch import Batch, Flat, Padded, floats, unscored
from rmlab.scoring.plan import packed_plan, shared_plan


@dataclass
class PreferenceCollator:
    """Makes a `Batch` of the rows of a data set of token trees.

    With `tokens_per_batch` a list of them, of at most so many computed tokens each, or of one comparison that is larger
    by itself.
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None
    pair_weighting: str = "pair"
    layout: str = "padded"
    causal: bool = True  # of packed rows: read at the last token, else at the first
    tokens_per_batch: int | None = None
    columns: tuple[Column, ...] = ()  # of the trees, that the loss reads
    outputs: int = 1  # D of the head
    logps: bool = False  # whether it reads log-probabilities of the responses

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch | list[Batch]:
        """The batch of these rows; with `tokens_per_batch` its micro-batches, longest comparisons first."""
        trees = [TokenTree.of(row) for row in rows]
        return self.batch(trees) if self.tokens_per_batch is None else self.micro_batches(trees)

    def micro_batches(self, trees: Sequence[TokenTree]) -> list[Batch]:
        """Batches of at most `tokens_per_batch` tokens each, or of one larger comparison; longest first."""
        return [self.batch(part) for part in self.parts(trees, self.tokens_per_batch or 0)]

    def to_prove(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """One batch of these rows in their order, or of the last of them where all are beyond `tokens_per_batch`."""
        trees = [TokenTree.of(row) for row in rows]
        while len(trees) > 2 and self.tokens_per_batch is not None and self.computed(trees) > self.tokens_per_batch:
            trees.pop(0)
        return self.batch(trees)

    def batch(self, trees: Sequence[TokenTree]) -> Batch:
        """All these comparisons in one batch, whatever `tokens_per_batch` says."""
        # Order responses by (rank in the comparison, comparison): position[(c, k)] is the row of response k of c.
        # Flat rows keep comparisons together instead.
        order = [(c, k) for c, tree in enumerate(trees) for k in range(len(tree.suffixes))]
        if self.layout == "padded":
            order.sort(key=lambda ck: (ck[1], ck[0]))
        position = {ck: row for row, ck in enumerate(order)}
        pairs = [(c, p) for c, tree in enumerate(trees) for p in range(len(tree.better))]
        by_prompt = self.pair_weighting == "prompt"
        lengths: list[Sequence[float]] = [tree.lengths or [math.nan] * len(tree.suffixes) for tree in trees]
        own = [tree.weight or [1.0] * len(tree.better) for tree in trees]
        mean = [sum(some) / len(some) if some else 1.0 for some in own]
        return Batch(
            tokens=self.tokens(trees, order),
            better=torch.tensor([position[c, trees[c].better[p]] for c, p in pairs]),
            worse=torch.tensor([position[c, trees[c].worse[p]] for c, p in pairs]),
            strength=floats([trees[c].strength[p] for c, p in pairs]),
            probability=floats([trees[c].probability[p] for c, p in pairs]),
            prompt=torch.tensor([c for c, _ in order]),
            weights=Weights(
                pair=floats([own[c][p] / (len(own[c]) if by_prompt else 1) for c, p in pairs]),
                response=floats([mean[c] / (len(trees[c].suffixes) if by_prompt else 1) for c, _ in order]),
                comparison=floats(mean),
            ),
            columns={
                "lengths": floats([lengths[c][k] for c, k in order]),
                **self.reference(trees, order),
                **{name.name: self.column(n, trees, order, pairs) for n, name in enumerate(self.columns)},
            },
            shares=None,
            comparisons=tuple(unscored(tree, self.columns) for tree in trees),
        )

    def reference(self, trees: Sequence[TokenTree], order: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """`reference_logps` (R,), where the trees have them."""
        known = all(tree.reference_logps for tree in trees)
        return {"reference_logps": floats([trees[c].reference_logps[k] for c, k in order])} if known else {}

    def column(
        self, n: int, trees: Sequence[TokenTree], order: Sequence[tuple[int, int]], pairs: Sequence[tuple[int, int]]
    ) -> Tensor:
        """The n-th of `columns`: (R,), (P,) or (R, D), in the order of the batch's responses or pairs."""
        kind = self.columns[n].kind
        values = [trees[c].columns[n][k] for c, k in (pairs if kind == "pair" else order)]
        return as_column(values, kind, self.outputs)

    def tokens(self, trees: Sequence[TokenTree], order: Sequence[tuple[int, int]]) -> Padded | Flat:
        """What the model computes: tokens, or what is above frozen layers whose vectors the trees carry."""
        if trees[0].response_vectors is not None:
            return Flat(features=torch.cat([cast(Tensor, tree.response_vectors) for tree in trees]))
        comparisons = [tree.responses for tree in trees]
        if self.layout == "padded":
            sequences = [comparisons[c][k] for c, k in order]
            lengths = [trees[c].lengths[k] for c, k in order] if self.logps else None
            return Padded.of(sequences, self.pad_token_id, self.pad_to_multiple_of, lengths)
        shared = self.layout == "shared_prefix"
        ids, plan = shared_plan(comparisons) if shared else packed_plan(comparisons, self.causal)
        return Flat(
            input_ids=torch.tensor([ids]),
            position_ids=plan.position_ids(),
            plan=plan,
            read=plan.last() if self.causal else plan.first(),
            features=None
            if trees[0].token_vectors is None
            else torch.cat([cast(Tensor, tree.token_vectors) for tree in trees]),
        )

    def parts(self, trees: Sequence[TokenTree], budget: int) -> list[list[TokenTree]]:
        """The comparisons in as few micro-batches as come of filling each up in turn, longest first."""
        parts: list[list[TokenTree]] = []
        room = 0
        for tree in sorted(trees, key=lambda tree: tree.longest, reverse=True):
            more = alone = self.computed([tree])
            if parts and self.layout == "padded":  # to the first one, which is the longest
                more = len(tree.suffixes) * parts[-1][0].longest
            if parts and more <= room:
                parts[-1].append(tree)
                room -= more
            else:
                parts.append([tree])
                room = budget - alone
        return parts

    def computed(self, trees: Sequence[TokenTree]) -> int:
        """Tokens that the model computes for these comparisons in one forward, or a few less where responses branch."""
        if self.layout == "padded":
            return sum(len(tree.suffixes) for tree in trees) * max(tree.longest for tree in trees)
        if self.layout == "shared_prefix":
            return sum(tree.tokens for tree in trees)
        return sum(len(tree.suffixes) * len(tree.prefix) + sum(map(len, tree.suffixes)) for tree in trees)
