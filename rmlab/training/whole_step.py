"""The pass without gradients that terms of a whole optimizer step need, where a step has several parts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from rmlab.heads import Head
from rmlab.losses import Preferences, Term
from rmlab.losses.whole import Shares, shares
from rmlab.model.head import rewards_of
from rmlab.scoring.batch import Batch, moved, parts_of


@torch.no_grad()
def with_shares(
    batches: Sequence[Any],
    terms: Sequence[Term],
    score: Callable[[Batch], Preferences],
    head: Head | None,
    accelerator: Accelerator,
) -> list[Any]:
    """The batches of a step, whose parts know their share of the terms of a whole step.

    As they are where there is no such term, or one part on one rank, which is the step. score: a part with its outputs,
    under what training computes in; random numbers (dropout) are those that training then draws again.
    """
    whole = [term for term in terms if term.per == "step"]
    parts = [part for inputs in batches for part in parts_of(inputs)]
    ranks = accelerator.num_processes
    if not whole or not parts or len(parts) == ranks == 1:
        return list(batches)
    device = accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        own = [score(part.to(device)) for part in parts]
    before, every = 0, own
    if ranks > 1:
        gathered = gather_object([(accelerator.process_index, [on(part, "cpu") for part in own])])
        before = sum(len(some) for rank, some in gathered if rank < accelerator.process_index)
        every = [on(part, device) for _, some in gathered for part in some]
    found = shares(whole, every, partial(rewards_of, head))[before : before + len(own)]
    told = [scaled(share, len(every) / len(own), ranks) for share in found]
    return cut_again(batches, [replace(part, shares=share) for part, share in zip(parts, told, strict=True)])


def scaled(of: Shares, value: float, ranks: int) -> Shares:
    """A share whose value is one of this rank's parts alone, and whose gradient outlives the mean over the ranks."""
    return Shares(
        {name: number * value for name, number in of.values.items()},
        {name: gradient * ranks for name, gradient in of.gradients.items()},
    )


def cut_again(batches: Sequence[Any], parts: Sequence[Batch]) -> list[Any]:
    """The parts in lists as the batches were."""
    left = iter(parts)
    return [[next(left) for _ in inputs] if isinstance(inputs, list) else next(left) for inputs in batches]


def on(preferences: Preferences, device: Any) -> Preferences:
    """They, on that device."""
    return moved(preferences, lambda tensor: tensor.to(device))
