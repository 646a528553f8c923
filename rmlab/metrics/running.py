"""Training metrics between two logs: sums over preferences that stay on the device until they are read."""

import math

import torch
from accelerate import Accelerator
from torch import Tensor

from rmlab.losses import Preferences, Term
from rmlab.metrics.evaluate import TIE


class RunningMetrics:
    """Adds up what every micro-batch knows; `read` turns the sums of all ranks into metrics and starts anew."""

    def __init__(self, terms: list[Term]) -> None:
        self.terms = terms
        self.sums: Tensor | None = None
        self.steps = 0  # optimizer steps since the last read

    @torch.no_grad()
    def add(self, preferences: Preferences, terms: list[Tensor]) -> None:
        """One micro-batch; `terms` are its shares of each loss term's mean over the step."""
        gap, rewards = preferences.gap, preferences.rewards
        better, worse = rewards[preferences.better], rewards[preferences.worse]
        decided = preferences.probability != 0.5
        side = torch.where(preferences.probability > 0.5, gap, -gap)
        tied = decided & (side.abs() <= TIE)
        sums = [
            decided.sum(),
            (decided & (side > TIE)).sum() + 0.5 * tied.sum(),
            tied.sum(),
            (decided * torch.where(preferences.probability > 0.5, better, worse)).sum(),
            (decided * torch.where(preferences.probability > 0.5, worse, better)).sum(),
            torch.ones_like(rewards).sum(),
            rewards.sum(),
            rewards.square().sum(),
            *(term.detach() for term in terms),
        ]
        precise = torch.float32 if gap.device.type == "mps" else torch.float64  # which has no float64
        added = torch.stack([value.to(precise) for value in sums])
        self.sums = added if self.sums is None else self.sums + added

    def clear(self) -> None:
        """Begin anew."""
        self.sums, self.steps = None, 0

    def state(self) -> tuple[list[float] | None, int]:
        """(sums, steps) of this rank since the last read, for a checkpoint."""
        return None if self.sums is None else self.sums.tolist(), self.steps

    def load(self, sums: list[float] | None, steps: int, device: torch.device) -> None:
        """Go on from a `state`."""
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.sums = None if sums is None else torch.tensor(sums, dtype=precise, device=device)
        self.steps = steps

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Metrics of all preferences since the last read, under the names that evaluation uses; {} of none."""
        if self.sums is None:
            return {}
        sums, steps = accelerator.reduce(self.sums, "sum").tolist(), self.steps
        self.clear()
        decided, right, tied, chosen, rejected, responses, total, squares, *terms = sums
        mean = total / responses
        metrics = {}
        if decided:
            metrics = {"accuracy": right / decided, "ties": tied / decided, "gap_mean": (chosen - rejected) / decided}
            metrics |= {"chosen_mean": chosen / decided, "rejected_mean": rejected / decided}
        metrics |= {"reward_mean": mean, "reward_std": math.sqrt(max(squares / responses - mean**2, 0.0))}
        if len(self.terms) > 1:  # of one term it is the loss itself
            named = zip(self.terms, terms, strict=True)
            metrics |= {f"loss_{term.name}": value / steps / accelerator.num_processes for term, value in named}
        return metrics
