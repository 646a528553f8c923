"""Token trees -> a batch: padded token ids for the model, index tensors for losses and metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmlab.scoring import pad


@dataclass(frozen=True)
class PreferenceCollator:
    """A batch of comparisons as one dict; R responses, P preferences.

    input_ids, attention_mask (R, L): responses in order, all first responses before all second ones and so on, so
    that pairs lie as [chosen..., rejected...], as TRL's collator has them.
    better, worse, strength, probability, pair_weight (P,); prompt, response_weight (R,); items: what identifies each
    comparison, for metrics. Weights are 1, or 1 / (their number in the comparison) with pair_weighting="prompt".
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None
    pair_weighting: str = "pair"

    def __call__(self, trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        # Order responses by (rank in the comparison, comparison): position[(c, k)] is the row of response k of c.
        most = max(len(tree["suffixes"]) for tree in trees)
        order = [(c, k) for k in range(most) for c, tree in enumerate(trees) if k < len(tree["suffixes"])]
        position = {ck: row for row, ck in enumerate(order)}
        pairs = [(c, p) for c, tree in enumerate(trees) for p in range(len(tree["better"]))]

        def weight(c: int, column: str) -> float:
            return 1.0 / len(trees[c][column]) if self.pair_weighting == "prompt" else 1.0

        sequences = [[*trees[c]["prefix"], *trees[c]["suffixes"][k]] for c, k in order]
        return {
            **pad(sequences, self.pad_token_id, self.pad_to_multiple_of),
            "better": torch.tensor([position[c, trees[c]["better"][p]] for c, p in pairs]),
            "worse": torch.tensor([position[c, trees[c]["worse"][p]] for c, p in pairs]),
            "strength": floats([trees[c]["strength"][p] for c, p in pairs]),
            "probability": floats([trees[c]["probability"][p] for c, p in pairs]),
            "prompt": torch.tensor([c for c, _ in order]),
            "pair_weight": floats([weight(c, "better") for c, _ in pairs]),
            "response_weight": floats([weight(c, "suffixes") for c, _ in order]),
            "items": [item(tree) for tree in trees],
        }


def item(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What evaluation needs to know of a comparison besides its rewards."""
    kept = ("index", "id", "prompt_id", "subset", "gold", "lengths", "better", "worse", "strength", "probability")
    return {k: tree[k] for k in kept if k in tree}


def floats(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
