"""One hidden layer before the reward."""

import torch
from torch import Tensor, nn

from rmlab.heads import HEADS, Deviation, Head, count, draw


class Mlp(Head):
    """r = w'relu(Ah + a) + b, D = 1: the head of GRM (2406.10216, width 1024) and of INF-ORM."""

    def __init__(self, d: int, width: int) -> None:
        super().__init__(d, width)
        self.last = nn.Linear(width, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(R, d) -> (R, 1)."""
        return self.last(torch.relu(super().forward(input)))

    def folded(self) -> None:
        """There is none."""

    def draw(self, deviation: Deviation) -> None:
        """Of the last layer; the first has torch's own weights."""
        draw(self, lambda d: None)
        draw(self.last, deviation)


@HEADS.register
def mlp(d: int, *, width: int) -> Head:
    """r = w'relu(Ah + a) + b. width: of the hidden layer, at least 2."""
    return Mlp(d, count("model.head.mlp.width", width, 2))
