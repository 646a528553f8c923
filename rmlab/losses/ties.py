"""Ties as an outcome of their own. A preference of probability 0.5 is a tie; any other is won with p, lost with 1 - p.

That a tie is half a win and half a loss is bradley_terry.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rmlab.losses import LOSSES, Preferences
from rmlab.losses.parts import either_way, reads_outputs, within
from rmlab.messages import UserError

LEARNED = "learned"
FARTHEST = 20.0  # of a learned log width from 0: what lies beyond is no tie at all, or nothing but ties


@LOSSES.register
def rao_kupper(preferences: Preferences, outputs: Tensor, *, theta: float | str) -> Tensor:  # (P,)
    """P(win) = sigma(gap - m), P(tie) = (theta^2 - 1) sigma(gap - m) sigma(-gap - m), m = log theta.

    Rao and Kupper (1967), for rewards in 2410.05328; VideoAlign's theta (2501.13918) is 5. `theta: learned` reads
    log m from the second output of the `ties` head. A theta of 1 makes ties impossible and is refused.
    """
    if theta == LEARNED:
        m = learned_width("rao_kupper.theta", preferences, outputs)
    else:
        m = fixed("rao_kupper.theta", theta, 1.0, preferences).log()
    gap = preferences.gap
    decided = either_way(preferences, gap, lambda z: softplus(m - z))
    tie = softplus(m - gap) + softplus(m + gap) - 2 * m - (-torch.expm1(-2 * m)).log()  # log(theta^2 - 1)
    return torch.where(preferences.probability == 0.5, tie, decided)


@LOSSES.register
def davidson(preferences: Preferences, outputs: Tensor, *, nu: float | str) -> Tensor:  # (P,)
    """P(win) = e^(gap/2) / Z, P(tie) = nu / Z, Z = e^(gap/2) + e^(-gap/2) + nu: Davidson (1970). No nu is published.

    Of equal responses nu / (2 + nu) tie. `nu: learned` reads log nu from the second output of the `ties` head. A nu of
    0 makes ties impossible and is refused; near 0, decided pairs count as in Bradley-Terry.
    """
    if nu == LEARNED:
        width = learned_width("davidson.nu", preferences, outputs)
    else:
        width = fixed("davidson.nu", nu, 0.0, preferences)
    half = preferences.gap / 2
    z = torch.logaddexp(torch.logaddexp(half, -half), width.log())
    decided = either_way(preferences, half, lambda half: z - half)
    return torch.where(preferences.probability == 0.5, z - width.log(), decided)


@LOSSES.register
def tied_dropped(preferences: Preferences, weight: Tensor) -> Tensor:  # ()
    """Mean of -log sigma(gap) over the decided pairs of a step: Bradley-Terry (InstructGPT, 2203.02155) without ties.

    What training on data filtered of ties computes, which 2410.05328 shows to be biased. It is one number of the step,
    since a mean over fewer pairs than there are cannot be a share of theirs. A step of nothing but ties is 0.
    """
    losses = either_way(preferences, preferences.gap, lambda z: softplus(-z))
    counted = weight * (preferences.probability != 0.5)
    total = counted.sum()
    return (losses * counted).sum() / torch.where(total > 0, total, 1.0)


@LOSSES.register
def tied_gap(preferences: Preferences) -> Tensor:  # (P,)
    """gap^2 of tied pairs, 0 of others: one meaning in two wordings has one reward, reWordBench (2503.11751).

    Every tie counts the same, however many are in its step: the mean is over all pairs, so `weight` is to be divided by
    the share of ties for a mean over those. With tied_dropped it takes the place of bradley_terry.
    """
    return preferences.gap.square() * (preferences.probability == 0.5)


def learned_width(key: str, preferences: Preferences, outputs: Tensor) -> Tensor:
    """(P,) the width of ties that the head has learned, of each pair the same."""
    reads_outputs(key, preferences, ("reward", "log_tie_width"), "ties")
    return within(outputs[preferences.better, 1], FARTHEST).exp()


def fixed(key: str, value: float | str, above: float, preferences: Preferences) -> Tensor:
    """() a width that the config states. UserError unless it is a number above `above`."""
    if isinstance(value, str | bool) or not above < value < float("inf"):
        raise UserError(f"loss.{key} is {value!r}; it must be a number above {above:g}, or {LEARNED}")
    return preferences.rewards.new_tensor(value)
