"""The distribution of a reward, as its quantiles."""

from collections.abc import Sequence

from torch import Tensor

from rmlab.heads import HEADS, Head, numbers
from rmlab.messages import UserError


class Quantile(Head):
    """q_t = w_t'h of each level t, D = Q: QRM (2409.10164). The reward is their mean.

    That is the mean of the distribution where the levels are the middles of Q equal shares: 1/2Q, 3/2Q, ...
    """

    def __init__(self, d: int, levels: Sequence[float]) -> None:
        super().__init__(d, len(levels), bias=False)
        self.names = [f"quantile_{level:g}" for level in levels]

    def rewards(self, outputs: Tensor, prompt: Tensor) -> Tensor:
        """(R,) the mean of the quantiles."""
        return outputs.mean(-1)

    def folded(self) -> Tensor:
        """(1, d) the mean of the rows."""
        return self.weight.mean(0, keepdim=True)


@HEADS.register
def quantile(d: int, *, levels: list[float]) -> Head:
    """q_t = w_t'h. levels: t of each, between 0 and 1, rising."""
    known = numbers("model.head.quantile.levels", levels)
    if known != sorted({*known}) or not 0 < known[0] <= known[-1] < 1:
        raise UserError(f"model.head.quantile.levels must rise between 0 and 1, not {levels!r}")
    return Quantile(d, known)
