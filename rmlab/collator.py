"""Token trees -> a batch: token ids laid out for the model, index tensors for losses and metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmlab.scoring.heads import pad
from rmlab.scoring.plan import packed_plan, shared_plan

Tree = Mapping[str, Any]


@dataclass
class PreferenceCollator:
    """A batch of comparisons as one dict; R responses, P preferences.

    layout "padded": input_ids, attention_mask (R, L), responses in order, all first responses before all second ones
    and so on, so that pairs lie as [chosen..., rejected...], as TRL's collator has them. "packed", "shared_prefix":
    input_ids, position_ids (1, T), plan (who sees whom) and read (R,), where the reward is read in the row.
    better, worse, strength, probability, pair_weight (P,); prompt, response_weight (R,); items: what identifies each
    comparison, for metrics. Weights are 1, or 1 / (their number in the comparison) with pair_weighting="prompt".

    With `tokens_per_batch` the batch is {"parts": [...]}: such dicts of at most so many computed tokens each, or of
    one comparison that is larger by itself.
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None
    pair_weighting: str = "pair"
    layout: str = "padded"
    causal: bool = True  # of packed rows: read at the last token, else at the first
    tokens_per_batch: int | None = None

    def __call__(self, trees: Sequence[Tree]) -> dict[str, Any]:
        if self.tokens_per_batch is None:
            return self.batch(trees)
        return {"parts": [self.batch(part) for part in self.parts(trees, self.tokens_per_batch)]}

    def batch(self, trees: Sequence[Tree]) -> dict[str, Any]:
        # Order responses by (rank in the comparison, comparison): position[(c, k)] is the row of response k of c.
        # Flat rows keep comparisons together instead.
        sizes = [len(tree["suffixes"]) for tree in trees]
        order = [(c, k) for c, size in enumerate(sizes) for k in range(size)]
        if self.layout == "padded":
            order.sort(key=lambda ck: (ck[1], ck[0]))
        position = {ck: row for row, ck in enumerate(order)}
        pairs = [(c, p) for c, tree in enumerate(trees) for p in range(len(tree["better"]))]

        def weight(c: int, column: str) -> float:
            return 1.0 / len(trees[c][column]) if self.pair_weighting == "prompt" else 1.0

        return {
            **self.tokens(trees, order),
            "better": torch.tensor([position[c, trees[c]["better"][p]] for c, p in pairs]),
            "worse": torch.tensor([position[c, trees[c]["worse"][p]] for c, p in pairs]),
            "strength": floats([trees[c]["strength"][p] for c, p in pairs]),
            "probability": floats([trees[c]["probability"][p] for c, p in pairs]),
            "prompt": torch.tensor([c for c, _ in order]),
            "pair_weight": floats([weight(c, "better") for c, _ in pairs]),
            "response_weight": floats([weight(c, "suffixes") for c, _ in order]),
            "items": [item(tree) for tree in trees],
        }

    def tokens(self, trees: Sequence[Tree], order: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """What the model computes: tokens, or what is above frozen layers whose vectors the trees carry."""
        if "rows" in trees[0]:
            return {"features": torch.cat([tree["rows"] for tree in trees])}
        comparisons = [responses(tree) for tree in trees]
        if self.layout == "padded":
            return dict(pad([comparisons[c][k] for c, k in order], self.pad_token_id, self.pad_to_multiple_of))
        shared = self.layout == "shared_prefix"
        ids, plan = shared_plan(comparisons) if shared else packed_plan(comparisons, self.causal)
        return {
            "input_ids": torch.tensor([ids]),
            "position_ids": plan.position_ids(),
            "plan": plan,
            "read": plan.last() if self.causal else plan.first(),
            **({"features": torch.cat([tree["hidden"] for tree in trees])} if "hidden" in trees[0] else {}),
        }

    def parts(self, trees: Sequence[Tree], budget: int) -> list[list[Tree]]:
        """The comparisons in as few micro-batches as come of filling each up in turn, longest first."""
        parts: list[list[Tree]] = []
        for tree in sorted(trees, key=longest, reverse=True):
            if parts and self.computed([*parts[-1], tree]) <= budget:
                parts[-1].append(tree)
            else:
                parts.append([tree])
        return parts

    def computed(self, trees: Sequence[Tree]) -> int:
        """Tokens that the model computes for these comparisons in one forward, or a few less where responses branch."""
        if self.layout == "padded":
            return sum(len(tree["suffixes"]) for tree in trees) * max(map(longest, trees))
        copies = [1 if self.layout == "shared_prefix" else len(tree["suffixes"]) for tree in trees]
        return sum(n * len(t["prefix"]) + sum(map(len, t["suffixes"])) for n, t in zip(copies, trees, strict=True))


def responses(tree: Tree) -> list[list[int]]:
    """The K responses of a comparison as whole token ids."""
    return [[*tree["prefix"], *suffix] for suffix in tree["suffixes"]]


def longest(tree: Tree) -> int:
    return len(tree["prefix"]) + max(map(len, tree["suffixes"]))


def parts_of(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The micro-batches of a batch; of one that was not cut, itself."""
    return batch["parts"] if "parts" in batch else [dict(batch)]


def item(tree: Tree) -> dict[str, Any]:
    """What evaluation needs to know of a comparison besides its rewards."""
    kept = ("index", "id", "prompt_id", "subset", "gold", "lengths", "better", "worse", "strength", "probability")
    return {k: tree[k] for k in kept if k in tree}


def floats(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
