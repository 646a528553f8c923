"""What a loaded model computes in: a device, eval mode, and random draws that are none of its business."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from rmlab.messages import UserError, first_line


def device_named(name: str | None) -> torch.device:
    """A device that is here, None: the accelerator, if there is one. UserError for another."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    try:
        device = torch.device(name) if name else found or torch.device("cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device is {name!r}, which torch does not have here: {first_line(error)}") from error
    return device


@contextmanager
def same_draws() -> Iterator[None]:
    """What is drawn afterwards is what would have been drawn without: loading sets all seeds, a script has its own."""
    before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, every module is in eval mode; then in that which it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
