"""The hinge loss, as a term that rmlab knows once this package is installed."""

from torch import Tensor

from rmlab import LOSSES, Preferences


@LOSSES.register
def hinge(preferences: Preferences, *, gap: float) -> Tensor:  # (P,)
    """max(0, gap - (r_better - r_worse)), one value per pair."""
    return (gap - preferences.gap).relu()
