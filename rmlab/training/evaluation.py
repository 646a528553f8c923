"""What an evaluation makes of the comparisons that it has scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import EvalPrediction
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_utils import EvalLoopOutput, denumpify_detensorize

from rmlab.losses import Preferences
from rmlab.messages import UserError
from rmlab.metrics.evaluate import as_arrays, evaluate, flatten
from rmlab.metrics.scored import ScoredComparison


@dataclass
class RewardOutput(SequenceClassifierOutput):
    """What `compute_loss` returns beside the loss. logits: (2 P, 1), all better responses, then all worse ones.

    That is TRL's order of chosen and rejected. rewards: (R,), in the order of the batch.
    """

    rewards: Tensor | None = None

    @classmethod
    def of(cls, preferences: Preferences) -> "RewardOutput":
        """Of a scored batch."""
        rewards = preferences.rewards
        pairs = torch.cat([rewards[preferences.better], rewards[preferences.worse]])
        return cls(logits=pairs[:, None], rewards=rewards)


def refuse_divergence(loss: float, step: int) -> None:
    """UserError for a training loss that is no number."""
    if not np.isfinite(loss):
        raise UserError(
            f"training has diverged: the loss is {loss} at step {step}; lower trainer.learning_rate or "
            "trainer.max_grad_norm"
        )


@dataclass(frozen=True)
class Evaluation:
    """An evaluation set as it was last scored: its comparisons in order, and their metrics."""

    comparisons: list[ScoredComparison]
    metrics: dict[str, Any]

    @classmethod
    def of(cls, scored: Sequence[ScoredComparison], name: str) -> "Evaluation":
        """Of what every rank has scored, without the duplicates that even batches add.

        UserError where there is nothing, and for rewards that are no numbers.
        """
        comparisons = sorted({c.index: c for c in gather_object(list(scored))}.values(), key=lambda c: c.index)
        if not comparisons:
            raise UserError(f"{name}: the evaluation set is empty")
        lost = sum(not np.isfinite(c.rewards).all() for c in comparisons)
        if lost:
            raise UserError(
                f"{name}: the rewards of {lost} of {len(comparisons)} comparisons are not finite: training has "
                "diverged; lower trainer.learning_rate or trainer.max_grad_norm"
            )
        return cls(comparisons, evaluate(comparisons))

    def output(self, loss: float, prefix: str, compute: Callable[..., Any] | None, **options: Any) -> EvalLoopOutput:
        """What Trainer's loop returns, with metrics called `prefix_NAME`. compute(prediction, **options) adds others.

        predictions: (N, K) rewards in the order of the set, NaN where one has fewer responses; for pairs the
        columns are chosen and rejected. label_ids: (N,) the index of the most preferred response.
        """
        predictions, best = as_arrays(self.comparisons)
        metrics = {"loss": loss, **flatten(self.metrics)}
        if compute is not None:
            metrics.update(compute(EvalPrediction(predictions=predictions, label_ids=best), **options))
        named = {k if k.startswith(f"{prefix}_") else f"{prefix}_{k}": v for k, v in metrics.items()}
        return EvalLoopOutput(predictions, best, denumpify_detensorize(named), len(self.comparisons))
