"""What raters say of a response, attribute by attribute."""

from collections.abc import Sequence

from torch import Tensor

from rmlab.heads import HEADS, Head, numbers
from rmlab.messages import UserError


class Attributes(Head):
    """a_i = w_i'h of each attribute i, D = A: HelpSteer2 (2406.08673), ArmoRM (2406.12845). r = sum_i c_i a_i."""

    def __init__(self, d: int, names: Sequence[str], weights: Sequence[float]) -> None:
        super().__init__(d, len(names), bias=False)
        self.names, self.weights = names, weights

    def rewards(self, outputs: Tensor, prompt: Tensor) -> Tensor:
        """(R,) the weighted sum."""
        return outputs @ outputs.new_tensor(self.weights)

    def folded(self) -> Tensor:
        """(1, d) the weighted sum of the rows."""
        return self.weight.new_tensor([self.weights]) @ self.weight


@HEADS.register
def attributes(d: int, *, names: list[str], weights: list[float]) -> Head:
    """a_i = w_i'h. names: of the attributes, in the order of the rows' `ratings`; weights: c_i of each."""
    known = [str(name) for name in names]
    if len(given := numbers("model.head.attributes.weights", weights)) != len(known) or not any(given):
        raise UserError(f"model.head.attributes.weights must be {len(known)} numbers, not all 0, one of each name")
    return Attributes(d, known, given)
