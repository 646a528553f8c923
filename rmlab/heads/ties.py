"""A reward, and how near two of them are a tie: learned."""

import math

import torch
from torch import Tensor, nn

from rmlab.heads import HEADS, Deviation, Head
from rmlab.messages import UserError


class Ties(Head):
    """r = w'h and log nu, one learned number for all responses, D = 2.

    nu > 0 is the tie parameter of Davidson (1970), or log theta, half the width of the band of ties in the gap, of Rao
    and Kupper (1967; for reward models 2410.05328).
    """

    names = ("reward", "log_tie_width")

    def __init__(self, d: int, width: float) -> None:
        super().__init__(d, 1, bias=False)
        self.width = width
        self.log_width = nn.Parameter(torch.tensor([math.log(width)]))

    def forward(self, input: Tensor) -> Tensor:
        """(R, d) -> (R, 2)."""
        rewards = super().forward(input)
        return torch.cat([rewards, self.log_width.to(rewards.dtype).expand_as(rewards)], dim=-1)

    def draw(self, deviation: Deviation) -> None:
        """Of the reward's weights; the width is that of the option."""
        super().draw(deviation)
        with torch.no_grad():
            self.log_width.fill_(math.log(self.width))


@HEADS.register
def ties(d: int, *, width: float) -> Head:
    """r = w'h and log nu. width: the first nu."""
    if not 0 < width < math.inf:
        raise UserError(f"model.head.ties.width must be above 0, not {width!r}")
    return Ties(d, width)
