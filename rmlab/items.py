"""Batches and items: from rewards to the exact mean loss of a step, and to what an evaluation keeps of each item."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmlab.losses import Preferences, Term


def weights(batch: Mapping[str, Any]) -> Tensor:
    """(2,) summed weight of the pairs and of the responses of a batch."""
    return torch.stack([batch["pair_weight"].sum(), batch["response_weight"].sum()])


def to_preferences(rewards: Tensor, batch: Mapping[str, Any]) -> Preferences:
    return Preferences(rewards, *(batch[k] for k in ("better", "worse", "strength", "probability", "prompt")))


def loss_terms(terms: list[Term], preferences: Preferences, batch: Mapping[str, Any], totals: Tensor) -> list[Tensor]:
    """Each term's weighted sum over this batch, divided by the step's total weight of what it is defined on."""
    weight = {"pair": batch["pair_weight"], "response": batch["response_weight"]}
    total = dict(zip(weight, totals, strict=True))
    return [(term.function(preferences) * weight[term.per]).sum() / total[term.per] for term in terms]


def items_with_rewards(batch: Mapping[str, Any], rewards: np.ndarray) -> list[dict[str, Any]]:
    """The items of a batch, each with the rewards of its responses in their own order."""
    prompt = batch["prompt"].cpu().numpy()
    return [{**item, "rewards": rewards[prompt == c].tolist()} for c, item in enumerate(batch["items"])]


def as_arrays(items: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) rewards padded with NaN, and (N,) the response that wins most preferences."""
    most = max(len(item["rewards"]) for item in items)
    rewards = np.full((len(items), most), np.nan, dtype=np.float32)
    best = np.zeros(len(items), dtype=np.int64)
    for n, item in enumerate(items):
        rewards[n, : len(item["rewards"])] = item["rewards"]
        wins = np.zeros(most)
        np.add.at(wins, item["better"], item["probability"])
        np.add.at(wins, item["worse"], 1 - np.array(item["probability"]))
        best[n] = wins.argmax()
    return rewards, best


def set_loss(terms: list[Term], items: list[dict[str, Any]], pair_weighting: str) -> float:
    """The training loss over a whole evaluation set at once, from its items."""
    counts = [len(item["rewards"]) for item in items]
    start = np.cumsum([0, *counts[:-1]])
    pairs = [len(item["better"]) for item in items]
    by_prompt = pair_weighting == "prompt"

    def joined(column: str, offset: Any = None) -> Tensor:
        parts = [np.asarray(item[column]) + (0 if offset is None else offset[n]) for n, item in enumerate(items)]
        return torch.from_numpy(np.concatenate(parts))

    batch = {
        "better": joined("better", start),
        "worse": joined("worse", start),
        "strength": joined("strength").float(),
        "probability": joined("probability").float(),
        "prompt": torch.from_numpy(np.repeat(np.arange(len(items)), counts)),
        "pair_weight": torch.from_numpy(np.repeat([1 / p if by_prompt else 1.0 for p in pairs], pairs)),
        "response_weight": torch.from_numpy(np.repeat([1 / c if by_prompt else 1.0 for c in counts], counts)),
    }
    values = loss_terms(terms, to_preferences(joined("rewards").float(), batch), batch, weights(batch))
    return sum(term.weight * value.item() for term, value in zip(terms, values, strict=True))
