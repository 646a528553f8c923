"""Reward centering: fixes the constant that Bradley-Terry leaves free."""

from torch import Tensor

from rmlab.losses import LOSSES, Preferences


@LOSSES.register
def center(preferences: Preferences) -> Tensor:  # (P,)
    """(r_better + r_worse)^2 per pair, Eisenstein et al. eq. 2 (2312.09244); they and TRL weight it 0.01."""
    return (preferences.rewards[preferences.better] + preferences.rewards[preferences.worse]).square()


@LOSSES.register
def batch_zero(preferences: Preferences) -> Tensor:  # ()
    """(mean of r over all responses of the step)^2: batch-wise sum-to-zero, BSR (2505.07271); weight 0.001 there.

    Fixes one constant for all prompts, where center fixes one for each. The paper's code multiplies its weight by the
    batch of one device; here the weight is what it says, and the mean is over the whole optimizer step.
    """
    return preferences.rewards.mean().square()
