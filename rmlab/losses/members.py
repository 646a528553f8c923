"""Terms of an ensemble of heads."""

from torch import Tensor
from torch.nn.functional import softplus

from rmlab.losses import LOSSES, Preferences
from rmlab.losses.parts import reads_outputs
from rmlab.messages import UserError


@LOSSES.register
def members(preferences: Preferences, outputs: Tensor, *, count: int) -> Tensor:  # (P,)
    """mean over members m of -log sigma(o_m,better - o_m,worse): each learns by itself, RewardUQ (2602.24040).

    Reads the `ensemble` head of `count` members, 20 in the paper, with or without anchor. bradley_terry with that head
    trains the ensemble's reward instead. Probabilities are soft labels.
    """
    anchored = outputs.shape[1] == count + 1
    reads_outputs("members", preferences, names_of("members", count, anchored), "ensemble of as many members")
    rewards = outputs[:, :count]
    gaps = rewards[preferences.better] - rewards[preferences.worse]  # (P, M)
    p = preferences.probability[:, None]
    return (p * softplus(-gaps) + (1 - p) * softplus(gaps)).mean(1)


@LOSSES.register
def anchor(preferences: Preferences, outputs: Tensor, *, count: int) -> Tensor:  # (R,)
    """mean over members of |w - w_0|^2, the distance from the first weights: RewardUQ (2602.24040), weight 0.1.

    Reads the last output of the `ensemble` head of `count` members with `anchor: true`, the same for every response.
    """
    head = "ensemble model.head.ensemble.anchor=true of as many members"
    reads_outputs("anchor", preferences, names_of("anchor", count, True), head)
    return outputs[:, count]


def names_of(term: str, count: int, anchored: bool) -> list[str]:
    """Of the outputs of such a head. UserError unless count is a whole number above 1."""
    if isinstance(count, bool) or count != int(count) or count < 2:
        raise UserError(f"loss.{term}.count is {count!r}; it must be the number of members of the head, at least 2")
    return [*(f"member_{n}" for n in range(1, int(count) + 1)), *(["distance"] if anchored else [])]
