"""Preferences that no one reward can say: A over B, B over C, C over A."""

import math

from torch import Tensor
from torch.nn.functional import normalize

from rmlab.heads import HEADS, Deviation, Head, count
from rmlab.messages import UserError


class Preference(Head):
    """v = Wh in D = 2k dimensions, s(a > b) = v_a'Rv_b / t with R of k blocks ((0, 1), (-1, 0)): the general preference
    model, GPM (2410.02197, t = 0.1 and |v| = 1).

    The reward of a response is the mean of s(it > other) over all responses of its comparison, itself included with
    s = 0: of a pair the gap of rewards is s, and where s is a difference of rewards all gaps are those.
    """

    compares = True

    def __init__(self, d: int, blocks: int, temperature: float, normalised: bool) -> None:
        super().__init__(d, 2 * blocks, bias=False)
        self.temperature, self.normalised = temperature, normalised
        self.names = [f"v_{n}" for n in range(1, 2 * blocks + 1)]

    def forward(self, input: Tensor) -> Tensor:
        """(R, d) -> (R, 2k)."""
        vectors = super().forward(input)
        return normalize(vectors, dim=-1) if self.normalised else vectors

    def rewards(self, outputs: Tensor, prompt: Tensor) -> Tensor:
        """(R,) how far a response is preferred to those of its comparison."""
        first, second = outputs[:, 0::2], outputs[:, 1::2]
        scores = (first @ second.T - second @ first.T) / self.temperature
        together = (prompt[:, None] == prompt[None, :]).to(scores.dtype)
        return (scores * together).sum(-1) / together.sum(-1)

    def folded(self) -> None:
        """There is none: a response alone has no reward."""

    def draw(self, deviation: Deviation) -> None:
        """Of every row. UserError for 0, from which no gradient leads away."""
        if deviation(self.in_features) == 0:
            raise UserError("model.head_init=zero gives the head `preference` no gradient; draw it at random")
        super().draw(deviation)


@HEADS.register
def preference(d: int, *, blocks: int, temperature: float, normalised: bool) -> Head:
    """s(a > b) = v_a'Rv_b / t. blocks: k; temperature: t; normalised: whether |v| = 1."""
    where = "model.head.preference"
    if not 0 < temperature < math.inf:
        raise UserError(f"{where}.temperature must be above 0, not {temperature!r}")
    if not isinstance(normalised, bool):
        raise UserError(f"{where}.normalised must be true or false, not {normalised!r}")
    return Preference(d, count(f"{where}.blocks", blocks, 1), temperature, normalised)
