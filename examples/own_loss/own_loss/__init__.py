"""The squared hinge loss, as a term that rmlab knows once this package is installed."""

from torch import Tensor

from rmlab import LOSSES, Preferences


@LOSSES.register
def squared_hinge(preferences: Preferences, *, gap: float) -> Tensor:  # (P,)
    """max(0, gap - (r_better - r_worse))^2, one value per pair."""
    return (gap - preferences.gap).relu().square()
