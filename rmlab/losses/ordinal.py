"""Terms of a head whose outputs are the logits of G grades, from the worst to the best."""

import torch
from torch import Tensor

from rmlab.losses import LOSSES, PerResponse, Preferences
from rmlab.losses.parts import at_least_outputs, known
from rmlab.messages import UserError


@LOSSES.register
def ordinal_ce(preferences: Preferences, outputs: Tensor, ratings: PerResponse, *, lowest: float) -> Tensor:  # (R,)
    """-log p(grade), p = softmax(outputs), of the rated grade, as OPRM's rated responses (2602.12660), with 9 grades.

    Reads the `ordinal` head. `lowest` is the rating of its first grade, the others follow in steps of 1. A rating
    between two grades is shared by them. UserError for one outside.
    """
    at_least_outputs("ordinal_ce", outputs, 2, "ordinal")
    there, rating = known(ratings)
    place = torch.where(there, rating - lowest, 0.0)
    last = outputs.shape[1] - 1
    if bool(((place < 0) | (place > last)).any()):
        raise UserError(
            f"loss.ordinal_ce: a rating lies outside the {last + 1} grades from {lowest:g} to {lowest + last:g}; set "
            "lowest, or the number of grades of model/head=ordinal"
        )
    log_p = outputs.log_softmax(1)
    below = place.floor().clamp_max(last - 1).long()
    share = place - below
    low, high = (log_p.gather(1, (below + up)[:, None])[:, 0] for up in (0, 1))
    return -torch.where(there, (1 - share) * low + share * high, 0.0)


@LOSSES.register
def ordinal_preference(preferences: Preferences, outputs: Tensor) -> Tensor:  # (P,)
    """-log P, P = sum over i > j of p_better(i) p_worse(j), the chance of a higher grade: OPRM (2602.12660), 9 grades.

    Reads the `ordinal` head. A tie (probability 0.5) is -log of the chance of equal grades; else, with probability p,
    -p log P(higher) - (1 - p) log P(lower).
    """
    at_least_outputs("ordinal_preference", outputs, 2, "ordinal")
    log_p = outputs.log_softmax(1)
    joint = log_p[preferences.better][:, :, None] + log_p[preferences.worse][:, None, :]  # (P, G, G)
    i, j = torch.tril_indices(joint.shape[1], joint.shape[2], -1, device=joint.device)
    higher, lower = joint[:, i, j].logsumexp(1), joint[:, j, i].logsumexp(1)
    equal = joint.diagonal(dim1=1, dim2=2).logsumexp(1)
    p = preferences.probability
    return -torch.where(p == 0.5, equal, p * higher + (1 - p) * lower)
