"""Several rewards from one body."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rmlab.heads import HEADS, Deviation, Head, count, draw
from rmlab.messages import UserError, check_at_least, check_one_of

# (R, M) rewards of M members -> (R,). c: how much a member's disagreement costs.
REDUCE: dict[str, Callable[[Tensor, float], Tensor]] = {
    "mean": lambda rewards, c: rewards.mean(-1),
    "min": lambda rewards, c: rewards.amin(-1),
    "median": lambda rewards, c: rewards.quantile(0.5, dim=-1),
    "mean-var": lambda rewards, c: rewards.mean(-1) - c * rewards.var(-1, correction=0),
}


class Ensemble(Head):
    """r_m = w_m'h, or w_m'relu(A_m h + a_m), of M members on one body, D = M (Coste et al. 2310.02743; RewardUQ
    2602.24040). The reward is their mean, min, median, or mean - c * variance (of the population).

    With `anchor` one output more: the squared distance of all weights from the first ones, per member, which keeps the
    members apart where a loss holds it down.
    """

    first: Tensor  # all weights as they were drawn, with `anchor`

    def __init__(self, d: int, members: int, width: int, reduce: str, c: float, anchor: bool) -> None:
        super().__init__(d, members * (width or 1), bias=bool(width))
        self.members, self.reduce, self.c, self.anchor = members, reduce, c, anchor
        self.last = nn.Linear(width, members, bias=False) if width else None
        self.names = [f"member_{m}" for m in range(1, members + 1)] + ["distance"] * anchor
        if anchor:
            self.register_buffer("first", self.flat().detach().clone())

    def flat(self) -> Tensor:
        """All weights as one vector."""
        return torch.cat([p.flatten() for p in self.parameters()])

    def forward(self, input: Tensor) -> Tensor:
        """(R, d) -> (R, M), or (R, M + 1)."""
        rewards = super().forward(input)
        if self.last is not None:
            hidden = torch.relu(rewards).unflatten(-1, (self.members, self.last.in_features))
            rewards = (hidden * self.last.weight).sum(-1)
        if not self.anchor:
            return rewards
        distance = (self.flat() - self.first).square().sum() / self.members
        return torch.cat([rewards, distance.to(rewards.dtype).expand(*rewards.shape[:-1], 1)], dim=-1)

    def rewards(self, outputs: Tensor, prompt: Tensor) -> Tensor:
        """(R,) the members' rewards as one."""
        return REDUCE[self.reduce](outputs[:, : self.members], self.c)

    def folded(self) -> Tensor | None:
        """(1, d) the mean of the rows, where that is the reward."""
        linear = self.last is None and self.reduce == "mean"
        return self.weight.mean(0, keepdim=True) if linear else None

    def draw(self, deviation: Deviation) -> None:
        """Of every member: its only layer, or its last. UserError for members that are all the same."""
        top = self if self.last is None else self.last
        if deviation(top.in_features) == 0 and self.members > 1:
            raise UserError("model.head_init=zero makes all members of an ensemble the same; draw them at random")
        draw(self, deviation if self.last is None else lambda d: None)
        if self.last is not None:
            draw(self.last, deviation)
        if self.anchor:
            self.first.copy_(self.flat().detach())


@HEADS.register
def ensemble(d: int, *, members: int, width: int, reduce: str, c: float, anchor: bool) -> Head:
    """r_m = w_m'h, or of one hidden layer of `width` units a member (0: none).

    reduce: to one reward, see REDUCE; c: of mean-var; anchor: whether the distance from the first weights is an output.
    """
    where = "model.head.ensemble"
    check_one_of(f"{where}.reduce", reduce, REDUCE)
    check_at_least(f"{where}.c", c, 0)
    least = 1 if reduce == "mean" and not width else 2
    if not isinstance(anchor, bool):
        raise UserError(f"{where}.anchor must be true or false, not {anchor!r}")
    return Ensemble(d, count(f"{where}.members", members, least), count(f"{where}.width", width, 0), reduce, c, anchor)
