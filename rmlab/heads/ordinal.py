"""How likely each grade of a scale is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rmlab.heads import HEADS, Head, numbers
from rmlab.messages import UserError


class Ordinal(Head):
    """p(g) = softmax(Wh + b)_g of each grade g, D = G logits. The reward is the expected grade, sum_g g p(g)."""

    def __init__(self, d: int, grades: Sequence[float]) -> None:
        super().__init__(d, len(grades))
        self.grades = list(grades)
        self.names = [f"grade_{grade:g}" for grade in grades]

    def rewards(self, outputs: Tensor, prompt: Tensor) -> Tensor:
        """(R,) the expected grade."""
        return torch.softmax(outputs, dim=-1) @ outputs.new_tensor(self.grades)

    def folded(self) -> None:
        """There is none: the softmax is not linear."""


@HEADS.register
def ordinal(d: int, *, grades: list[float]) -> Head:
    """p(g) = softmax(Wh + b)_g. grades: their values, as rows rate them, from the worst to the best."""
    known = numbers("model.head.ordinal.grades", grades, 2)
    if known != sorted({*known}):
        raise UserError(f"model.head.ordinal.grades must rise from the worst to the best, not {grades!r}")
    return Ordinal(d, known)
