"""Reward centering: fixes the constant that Bradley-Terry leaves free."""

from torch import Tensor

from rmlab.losses import LOSSES, Preferences


@LOSSES.register
def center(preferences: Preferences) -> Tensor:  # (P,)
    """(r_better + r_worse)^2 per pair, Eisenstein et al. eq. 2 (2312.09244); they and TRL weight it 0.01."""
    return (preferences.rewards[preferences.better] + preferences.rewards[preferences.worse]).square()
