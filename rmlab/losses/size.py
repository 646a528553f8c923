"""Terms that keep rewards small or within bounds."""

from torch import Tensor

from rmlab.losses import LOSSES, Preferences
from rmlab.messages import UserError


@LOSSES.register
def l2(preferences: Preferences) -> Tensor:  # (R,)
    """r^2 of every response; OpenAssistant's 0.5 (r_better^2 + r_worse^2), weight 0.001, for pairs (2304.07327)."""
    return preferences.rewards.square()


@LOSSES.register
def log_barrier(preferences: Preferences, *, bound: float, edge: float) -> Tensor:  # (R,)
    """-(log(bound + r) + log(bound - r)): InternLM2 (2403.17297), bound 5 and weight 0.02.

    Nearer to a bound than `edge`, and beyond it, each logarithm goes on as its tangent: finite, and always pointing
    inward. The paper has no edge, and no loss where a reward is out of bounds.
    """
    if not 0 < edge < bound < float("inf"):
        raise UserError(f"loss.log_barrier needs 0 < edge < bound, not edge={edge} and bound={bound}")

    def wall(distance: Tensor) -> Tensor:
        inside = distance.clamp_min(edge)
        return -inside.log() + (inside - distance) / edge

    return wall(bound + preferences.rewards) + wall(bound - preferences.rewards)
