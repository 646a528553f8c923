"""From one value per pair or response to the exact mean of an optimizer step, however the step is split."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rmlab.losses import Preferences, Term


@dataclass(frozen=True)
class Weights:
    """What each pair and each response counts in a mean: 1, or 1 / (their number in the comparison)."""

    pair: Tensor  # (P,)
    response: Tensor  # (R,)

    def totals(self) -> Tensor:
        """(2,) summed weight of the pairs and of the responses."""
        return torch.stack([self.pair.sum(), self.response.sum()])


def term_means(terms: Sequence[Term], preferences: Preferences, weights: Weights, totals: Tensor) -> list[Tensor]:
    """Each term's weighted sum over these preferences, divided by the step's total weight of what it is defined on.

    totals (2,): of the pairs and responses of the whole optimizer step, so that the shares of its parts add up.
    """
    weight = {"pair": weights.pair, "response": weights.response}
    total = dict(zip(weight, totals, strict=True))
    return [(term.function(preferences) * weight[term.per]).sum() / total[term.per] for term in terms]


def weighted_sum(terms: Sequence[Term], means: Sequence[Tensor]) -> Tensor:
    """The loss: the sum of its terms, each with its weight."""
    return torch.stack([term.weight * mean for term, mean in zip(terms, means, strict=True)]).sum()
