"""Terms of single rewards against labels: better responses should be above 0, worse ones below."""

from torch import Tensor
from torch.nn.functional import softplus

from rmlab.losses import LOSSES, Preferences


@LOSSES.register
def cross_entropy(preferences: Preferences) -> Tensor:  # (P,)
    """-log sigma(r_better) - log sigma(-r_worse): order consistency, Sun et al. (2411.04991).

    A classifier of good and bad responses, which orders them too. Added to Bradley-Terry it is Eurus (2404.02078).
    With probability p, each label is right with p: a tie pulls both rewards to 0.
    """
    better, worse = preferences.rewards[preferences.better], preferences.rewards[preferences.worse]
    p = preferences.probability
    return p * (softplus(-better) + softplus(worse)) + (1 - p) * (softplus(better) + softplus(-worse))


@LOSSES.register
def pos_reg(preferences: Preferences) -> Tensor:  # (P,)
    """-log sigma(r_better), a baseline of GRM (2406.10216), where it is added to Bradley-Terry with weight 0.1.

    GRM's code has the mean over a batch inside the logarithm; here each pair counts by itself, so that a step does not
    depend on how it is split. With probability p, -p log sigma(r_better) - (1 - p) log sigma(r_worse).
    """
    better, worse = preferences.rewards[preferences.better], preferences.rewards[preferences.worse]
    return preferences.probability * softplus(-better) + (1 - preferences.probability) * softplus(-worse)
