"""The Bradley-Terry negative log-likelihood, with margins, soft labels and ties, and two uses of a strength."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rmlab.losses import LOSSES, Preferences
from rmlab.losses.parts import either_way, numbers, positive, rising
from rmlab.messages import UserError


@LOSSES.register
def bradley_terry(
    preferences: Preferences, *, margin: float, temperature: float = 1.0, label_smoothing: float = 0.0
) -> Tensor:  # (P,)
    """-log sigma(z), z = (gap - margin * strength) / temperature: InstructGPT eq. 1 (2203.02155), Llama 2 eq. 2
    (2307.09288).

    `margin` scales the strength of a preference; 0 is the plain loss. With `probability` p < 1 the term is
    the cross-entropy -p log sigma(z) - (1 - p) log sigma(-z), so a tie (p = 0.5) pulls the two rewards together.
    `label_smoothing` e takes every label as wrong with that probability: p becomes (1 - e) p + e (1 - p), and the best
    gap of a sure pair is logit(1 - e); GRM's baseline (2406.10216) has e = 0.1. Written with softplus, so it is finite
    for any finite rewards.
    """
    positive("bradley_terry.temperature", temperature)
    if not 0 <= label_smoothing <= 0.5:
        raise UserError(f"loss.bradley_terry.label_smoothing is {label_smoothing}; it must be between 0 and 0.5")
    z = (preferences.gap - margin * preferences.strength) / temperature
    p = (1 - label_smoothing) * preferences.probability + label_smoothing * (1 - preferences.probability)
    return p * softplus(-z) + (1 - p) * softplus(z)


@LOSSES.register
def scaled_bt(preferences: Preferences) -> Tensor:  # (P,)
    """-strength * log sigma(gap), HelpSteer2-Preference (2410.01257), where strengths are 1, 2 and 3.

    A pair of strength 3 counts as three copies of it; no gap of 3 is asked for, as a margin would. Probabilities are
    soft labels, as in bradley_terry. A strength of 0 counts nothing.
    """
    return preferences.strength * either_way(preferences, preferences.gap, lambda z: softplus(-z))


@LOSSES.register
def discrete_margin(
    preferences: Preferences, *, levels: list[float], margins: list[float], scales: list[float]
) -> Tensor:  # (P,)
    """-scale * log sigma(gap - margin), both by the level of the strength: Llama 2 table 27 (2307.09288), INF-ORM.

    `levels` are rising thresholds: a strength below levels[0] has margins[0] and scales[0], one from levels[i] on
    margins[i + 1] and scales[i + 1]. Llama 2's margins for negligibly, slightly, clearly and significantly better are
    0, 1/3, 2/3, 1 (small) and 0, 1, 2, 3 (large); INF-ORM's scales are 1, 3, 10. Probabilities are soft labels, as in
    bradley_terry; a tie has the margin of its strength, 0 where the rows state no other.
    """
    bands = len(rising("discrete_margin.levels", levels)) + 1
    numbers("discrete_margin.margins", margins, bands)
    if min(numbers("discrete_margin.scales", scales, bands)) < 0:
        raise UserError(f"loss.discrete_margin.scales must be at least 0, not {scales}")
    strength = preferences.strength
    level = torch.bucketize(strength, strength.new_tensor(levels), right=True)
    z = preferences.gap - strength.new_tensor(margins)[level]
    return strength.new_tensor(scales)[level] * either_way(preferences, z, lambda z: softplus(-z))
