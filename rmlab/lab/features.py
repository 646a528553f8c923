"""What the last linear layer of a model reads, for each preference of a set."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rmlab.data.trees import TokenTree
from rmlab.heads import Head
from rmlab.messages import UserError
from rmlab.metrics.scored import ScoredComparison
from rmlab.model.head import base_of, head_of, last_linear
from rmlab.scoring.contexts import evaluating
from rmlab.scoring.reward_model import RewardModel
from rmlab.scoring.windows import WINDOW


class Reader(Head):
    """A head that returns what it reads, D = d, with the rewards of one linear layer."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight.shape[1], 1, bias=bias is not None)
        self.weight.data = weight.detach().float()
        if bias is not None:
            self.bias.data = bias.detach().float()
        self.names = [f"feature_{n}" for n in range(weight.shape[1])]

    def forward(self, input: Tensor) -> Tensor:
        """(R, d) as it is."""
        return input

    def rewards(self, outputs: Tensor, prompt: Tensor) -> Tensor:
        """(R,) w'h."""
        return super().forward(outputs.float())[:, 0]


def read_features(model: RewardModel) -> np.ndarray:
    """Make `outputs` of what a model scores its features, its rewards stay; returns the head's weights (d,).

    UserError for a head that is not one linear layer.
    """
    if hasattr(model.model, "merge_and_unload"):
        model.model = cast(Any, model.model).merge_and_unload()
    base, head = base_of(model.model), head_of(model.model)
    name, layer = last_linear(base)
    weight = layer.weight if head is None else head.folded()
    if weight is None or weight.shape[0] != 1:
        raise UserError(f"{model.name}: its head is not one linear layer, of whose weights a posterior could be had")
    reader = Reader(weight, layer.bias if head is None else None).to(weight.device)
    base.set_submodule(name, reader)
    return reader.weight[0].detach().cpu().double().numpy()


def differences(
    model: RewardModel, trees: Sequence[Any], name: str
) -> Iterator[tuple[list[ScoredComparison], np.ndarray]]:
    """Some comparisons of a set of token trees, and (P, d) better minus worse of the features of their preferences.

    model: after `read_features`. name: of the set, for errors.
    """
    numbered = (replace(TokenTree.of(row), index=n) for n, row in enumerate(trees))
    while some := list(islice(numbered, WINDOW)):
        for batch in model.collator.micro_batches(some):
            here = batch.to(model.device)
            with torch.no_grad(), evaluating(model.model):
                if not model.scorer.is_proved:
                    model.scorer.prove(model.model, here, tell=False)
                outputs = model.scorer(model.model, here)
                scored = here.scored(outputs, head_of(model.model))
            if not torch.isfinite(outputs).all():
                raise UserError(f"{name}: the model's hidden states are no finite numbers; are its weights whole?")
            yield [replace(c, outputs=[]) for c in scored], differences_of(scored)


def differences_of(scored: Sequence[ScoredComparison]) -> np.ndarray:
    """(P, d) outputs of the better response minus those of the worse, comparison by comparison."""
    return np.concatenate([np.array(c.outputs)[c.better] - np.array(c.outputs)[c.worse] for c in scored])
