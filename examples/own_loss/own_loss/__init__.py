"""A loss term and a head that rmlab knows once this package is installed."""

from torch import Tensor

from rmlab import HEADS, LOSSES, Head, Preferences


@LOSSES.register
def squared_hinge(preferences: Preferences, *, gap: float) -> Tensor:  # (P,)
    """max(0, gap - (r_better - r_worse))^2, one value per pair."""
    return (gap - preferences.gap).relu().square()


class Scaled(Head):
    """r = scale * w'h: with a scale below 1 the head learns more slowly than the body."""

    def __init__(self, d: int, scale: float) -> None:
        super().__init__(d, 1, bias=False)
        self.scale = scale

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., d) -> (..., 1)."""
        return self.scale * super().forward(hidden)

    def folded(self) -> Tensor:
        """(1, d) of one linear layer: what plain transformers loads."""
        return self.scale * self.weight


@HEADS.register
def scaled(d: int, *, scale: float) -> Head:
    """On d hidden units; `scale` multiplies the reward."""
    return Scaled(d, scale)
