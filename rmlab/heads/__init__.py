"""Heads: the last linear layer of a reward model, or a few more, and the reward that its outputs amount to.

`model.head` names one, with its options (`conf/model/head/*.yaml`). A head returns D numbers per response, `outputs`,
which terms of a loss may read; `rewards` is the one reduction of them that metrics, scoring and serving use. What a
loss needs of a head's weights (a learned tie width, the overlap of two rows) is an output too, the same for every
response: so it reaches the loss however the model is split over processes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rmlab.messages import UserError
from rmlab.registry import Registry

HEADS = Registry("head", "rmlab.heads")

Deviation: TypeAlias = Callable[[int], float | None]  # of first weights by what they read; None: torch's own


class Head(nn.Linear):
    """d hidden units -> D outputs, and what they amount to. A subclass per kind; this one is D rewards, the first of
    which counts.

    It is a linear layer, so that it stands where an architecture has its own (`score`, `classifier`, ...), and what
    knows that layer (peft, transformers) knows this one. What comes after the layer is the subclass's `forward`.
    """

    names: Sequence[str] = ("reward",)  # (D,) of the outputs, for files and figures
    compares = False  # whether the reward of a response depends on the others of its comparison
    kind = ""  # what it is registered as, and its options: set by `build_head`, written beside its weights
    options: Mapping[str, Any] = {}
    had_bias = False  # whether the layer whose place it takes has one, which a folded head leaves at 0

    def rewards(self, outputs: Tensor, prompt: Tensor) -> Tensor:
        """(R,) of outputs (R, D); no weight of the head is used. prompt (R,): which comparison each belongs to."""
        return outputs[:, 0]

    def folded(self) -> Tensor | None:
        """(1, d) the one linear layer without bias that gives the same rewards; None where there is none.

        With it the saved model is one for plain transformers.
        """
        return self.weight[:1]

    def draw(self, deviation: Deviation) -> None:
        """First weights, as `model.head_init` says: here of every row of the layer. Biases become 0."""
        draw(self, deviation)


def draw(layer: nn.Linear, deviation: Deviation) -> None:
    """Normal weights of that deviation, and a bias of 0. None leaves the layer's own weights."""
    std = deviation(layer.in_features)
    with torch.no_grad():
        if std is not None:
            layer.weight.normal_(0.0, std) if std else layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()


def build_head(config: Mapping[str, Any], d: int) -> Head:
    """The head of `{kind: options}` on d hidden units. UserError naming the key for one that cannot be."""
    ((kind, given),) = config.items()
    options = dict(given or {})
    head: Head = HEADS.build(kind, options, f"model.head.{kind}")(d)
    head.kind, head.options = kind, options
    check_outputs(head)
    return head


def outputs_of(config: Mapping[str, Any]) -> Sequence[str]:
    """(D,) names of the outputs of the head of `{kind: options}`. UserError as `build_head`."""
    return build_head(config, 1).names


@torch.no_grad()
def check_outputs(head: Head) -> None:
    """UserError for a head whose names are not its outputs, and for one that plain transformers would misread."""
    training = head.training
    outputs = head.eval()(torch.zeros(2, head.in_features))
    head.train(training)
    names = list(head.names)
    if not names or len({*names}) < len(names) or tuple(outputs.shape) != (2, len(names)):
        raise UserError(f"model.head.{head.kind} names its outputs {names}, and returns shape {tuple(outputs.shape)}")
    if not torch.isfinite(outputs).all():
        raise UserError(f"model.head.{head.kind} returns {outputs[0].tolist()} for no input, which must be finite")
    if head.folded() is None and head.out_features == 1:  # its weights would fit a plain model, and mean another thing
        raise UserError(f"model.head.{head.kind} does not fold into one layer; give it more than one row of weights")


def count(where: str, value: Any, least: int) -> int:
    """A whole number of at least `least`, which is what `where` must be. UserError for another."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{where} must be a whole number of at least {least}, not {value!r}")
    return value


def numbers(where: str, values: Any, least: int = 1) -> list[float]:
    """A list of at least so many finite numbers. UserError for another value."""
    given = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    right = [v for v in given if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    if len(given) < least or len(right) < len(given):
        raise UserError(f"{where} must be a list of at least {least} numbers, not {values!r}")
    return [float(v) for v in given]
