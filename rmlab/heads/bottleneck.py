"""A reward of what little a noisy channel lets through."""

import torch
from torch import Tensor, nn

from rmlab.heads import HEADS, Deviation, Head, count, draw


class Bottleneck(Head):
    """z ~ N(m, v), m = Ah, log v = Bh, both of L latents, and r = w'z; D = 1 + 2L: InfoRM (2402.09345).

    In training z is drawn anew each time, in evaluation it is m, so that r = w'Ah is one linear layer.
    """

    def __init__(self, d: int, latents: int) -> None:
        super().__init__(d, 2 * latents, bias=False)
        self.latents = latents
        self.last = nn.Linear(latents, 1, bias=False)
        of = range(1, latents + 1)
        self.names = ["reward", *(f"mean_{n}" for n in of), *(f"log_variance_{n}" for n in of)]

    def forward(self, input: Tensor) -> Tensor:
        """(R, d) -> (R, 1 + 2L)."""
        moments = super().forward(input)
        z, log_variance = moments.split(self.latents, dim=-1)
        if self.training:
            z = z + torch.exp(0.5 * log_variance) * torch.randn_like(z)
        return torch.cat([self.last(z), moments], dim=-1)

    def folded(self) -> Tensor:
        """(1, d) w'A."""
        return self.last.weight @ self.weight[: self.latents]

    def draw(self, deviation: Deviation) -> None:
        """Of the last layer; the channel has torch's own weights."""
        draw(self, lambda d: None)
        draw(self.last, deviation)


@HEADS.register
def bottleneck(d: int, *, latents: int) -> Head:
    """r = w'z, z ~ N(Ah, exp(Bh)). latents: L."""
    return Bottleneck(d, count("model.head.bottleneck.latents", latents, 1))
