"""Terms of a head whose outputs are the logits of G grades, from the worst to the best."""

import torch
from torch import Tensor

from rmlab.losses import LOSSES, PerResponse, Preferences
from rmlab.losses.parts import known, reads_outputs, rising
from rmlab.messages import UserError


@LOSSES.register
def ordinal_ce(
    preferences: Preferences, outputs: Tensor, ratings: PerResponse, *, grades: list[float]
) -> Tensor:  # (R,)
    """-log p(grade), p = softmax(outputs), of the rated grade, as OPRM's rated responses (2602.12660), with 9 grades.

    Reads the `ordinal` head; `grades` are its own. A rating between two grades is shared by them in proportion, an
    unknown one counts 0. UserError for one outside.
    """
    if len(rising("ordinal_ce.grades", grades)) < 2:
        raise UserError(f"loss.ordinal_ce.grades must be at least 2, not {grades}")
    names = [f"grade_{grade:g}" for grade in grades]
    reads_outputs("ordinal_ce", preferences, names, "ordinal with these grades")
    there, rating = known(ratings)
    if bool((there & ((rating < grades[0]) | (rating > grades[-1]))).any()):
        raise UserError(
            f"loss.ordinal_ce: a rating lies outside the grades from {grades[0]:g} to {grades[-1]:g}; set grades, here "
            "and in model/head=ordinal"
        )
    log_p, scale = outputs.log_softmax(1), outputs.new_tensor(grades)
    below = (torch.bucketize(rating, scale, right=True) - 1).clamp(0, len(grades) - 2)
    share = (rating - scale[below]) / (scale[below + 1] - scale[below])
    low, high = (log_p.gather(1, grade[:, None])[:, 0] for grade in (below, below + 1))
    return -torch.where(there, (1 - share) * low + share * high, 0.0)


@LOSSES.register
def ordinal_preference(preferences: Preferences, outputs: Tensor) -> Tensor:  # (P,)
    """-log P, P = sum over i > j of p_better(i) p_worse(j), the chance of a higher grade: OPRM (2602.12660), 9 grades.

    Reads the `ordinal` head. A tie (probability 0.5) is -log of the chance of equal grades; else, with probability p,
    -p log P(higher) - (1 - p) log P(lower).
    """
    names = [name if name.startswith("grade_") else "grade_..." for name in preferences.names]
    reads_outputs("ordinal_preference", preferences, names or [""] * max(outputs.shape[1], 2), "ordinal")
    log_p = outputs.log_softmax(1)
    joint = log_p[preferences.better][:, :, None] + log_p[preferences.worse][:, None, :]  # (P, G, G)
    i, j = torch.tril_indices(joint.shape[1], joint.shape[2], -1, device=joint.device)
    higher, lower = joint[:, i, j].logsumexp(1), joint[:, j, i].logsumexp(1)
    equal = joint.diagonal(dim1=1, dim2=2).logsumexp(1)
    p = preferences.probability
    return -torch.where(p == 0.5, equal, p * higher + (1 - p) * lower)
