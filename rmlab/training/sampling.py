"""The order of training comparisons: a function of the seed and the epoch, so that a resumed run goes on in it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler


class SeededByEpoch(Sampler[int]):
    """A sampler that would draw from torch's global generator, with one of its own for each epoch.

    Where it stands after a checkpoint depends on what else was drawn before; this does not.
    """

    def __init__(self, sampler: LengthGroupedSampler, seed: int) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Trainer tells it before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)
        self.sampler.generator = torch.Generator().manual_seed(int(state[0]))
        return iter(self.sampler)


def seeded(sampler: Any, seed: int) -> Any:
    """The sampler of Trainer, its order decided by seed and epoch alone. accelerate sees to random ones itself."""
    if isinstance(sampler, LengthGroupedSampler):
        return SeededByEpoch(sampler, seed)
    if hasattr(sampler, "seed"):  # BatchRebalanceSampler has one seed for all runs
        sampler.seed = seed
    return sampler
