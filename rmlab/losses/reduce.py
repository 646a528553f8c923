"""From one value per pair, response or comparison to the exact mean of a step, however the step is split."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rmlab.losses import Preferences, Term
from rmlab.losses.whole import Shares


@dataclass(frozen=True)
class Weights:
    """What each pair, response and comparison counts in a mean.

    Of a comparison whose preferences weigh w on average: a pair its own weight and the others w, or all of that
    divided by their number in the comparison (`pair_weighting=prompt`).
    """

    pair: Tensor  # (P,)
    response: Tensor  # (R,)
    comparison: Tensor  # (N,)

    def totals(self) -> Tensor:
        """(3,) summed weight of the pairs, of the responses and of the comparisons."""
        return torch.stack([self.pair.sum(), self.response.sum(), self.comparison.sum()])


def term_means(
    terms: Sequence[Term], preferences: Preferences, weights: Weights, totals: Tensor, shares: Shares | None = None
) -> list[Tensor]:
    """Each term's weighted sum over these preferences, divided by the step's total weight of what it is defined on.

    totals (3,): of the pairs, responses and comparisons of the whole optimizer step, so that the shares of its parts
    add up. shares: what terms of the whole step say of this part of it; None: it is all of the step.
    """
    weight = {"pair": weights.pair, "response": weights.response, "comparison": weights.comparison}
    total = dict(zip(weight, totals, strict=True))

    def mean(term: Term) -> Tensor:
        if term.per == "step" and shares is not None:
            return shares.of(term.name, preferences.column("outputs"))
        values = term.function(preferences)
        return values if term.per == "step" else (values * weight[term.per]).sum() / total[term.per]

    return [mean(term) for term in terms]


def weighted_sum(terms: Sequence[Term], means: Sequence[Tensor]) -> Tensor:
    """The loss: the sum of its terms, each with its weight."""
    return torch.stack([term.weight * mean for term, mean in zip(terms, means, strict=True)]).sum()
