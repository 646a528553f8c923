"""Losses: pure functions of rewards and preferences. They never see tokens, layouts or the model.

A loss is a sum of named, weighted terms (`conf/loss/*.yaml`). A term returns one value per preference
(P,) or per response (R,); it never averages: the trainer alone does, so that one optimizer step is the
exact mean over its pairs however it was split into micro-batches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmlab.messages import UserError
from rmlab.registry import Registry

LOSSES = Registry("loss", "rmlab.losses")


@dataclass(frozen=True)
class Preferences:
    """A batch after scoring: R responses of some prompts and P preferences between them."""

    rewards: Tensor  # (R,) fp32
    better: Tensor  # (P,) index into R of the preferred response
    worse: Tensor  # (P,) index into R of the other one
    strength: Tensor  # (P,) fp32: rating difference or vote share, the margin; 1.0 when unknown
    probability: Tensor  # (P,) fp32: how surely better beats worse; 1.0, or 0.5 for a tie
    prompt: Tensor  # (R,) which comparison of the batch a response belongs to

    @property
    def gap(self) -> Tensor:
        """(P,) reward of the better response minus reward of the worse one."""
        return self.rewards[self.better] - self.rewards[self.worse]


@dataclass(frozen=True)
class Term:
    """One named summand of a loss: `weight * function(preferences)`."""

    name: str
    weight: float
    function: Callable[[Preferences], Tensor]
    per: str  # "pair" or "response": what it has one value of, and is averaged over


def build_loss(config: Mapping[str, Any]) -> list[Term]:
    """Terms from `{name: {weight: 1.0, **options}}`; every problem is a UserError naming the key.

    A term's `weight` defaults to 1. Negative weights are refused: they turn a regulariser into its opposite.
    """
    if not config:
        raise UserError("loss has no terms; name at least one, for example loss.bradley_terry.margin=0.0")
    terms = []
    for name, given in config.items():
        if not isinstance(given, Mapping):
            raise UserError(f"loss.{name} must be a mapping of options, not {given!r}; for no options write {{}}")
        options = dict(given)
        weight = options.pop("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise UserError(f"loss.{name}.weight must be a finite number >= 0, not {weight!r}")
        function = LOSSES.build(name, options)
        terms.append(Term(name, float(weight), function, values_per(name, function)))
    return terms


def values_per(name: str, function: Callable[[Preferences], Tensor]) -> str:
    """What a term returns one value of, seen on a batch of three responses and one pair.

    Asked once, here: in a batch with as many pairs as responses (K = 3) the shape alone would not tell.
    """
    one, zero = torch.ones(1), torch.zeros(3)
    shape = tuple(function(Preferences(zero, torch.tensor([0]), torch.tensor([1]), one, one, zero.long())).shape)
    if shape not in ((1,), (3,)):
        raise UserError(f"loss.{name} returns shape {shape} for 3 responses and 1 pair; it must be (1,) or (3,)")
    return "pair" if shape == (1,) else "response"
