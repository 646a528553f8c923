"""Terms of an ensemble of heads."""

from torch import Tensor
from torch.nn.functional import softplus

from rmlab.losses import LOSSES, Preferences
from rmlab.losses.parts import at_least_outputs


@LOSSES.register
def members(preferences: Preferences, outputs: Tensor) -> Tensor:  # (P,)
    """mean over members m of -log sigma(o_m,better - o_m,worse): each learns by itself, RewardUQ (2602.24040).

    Reads the `ensemble` head, of 20 members there. bradley_terry with that head trains the ensemble's reward instead. Probabilities are soft
    labels.
    """
    at_least_outputs("members", outputs, 2, "ensemble")
    gaps = outputs[preferences.better] - outputs[preferences.worse]  # (P, D)
    p = preferences.probability[:, None]
    return (p * softplus(-gaps) + (1 - p) * softplus(gaps)).mean(1)
