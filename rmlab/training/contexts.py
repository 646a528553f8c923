"""Small contexts of the trainer."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from datasets import IterableDataset
from transformers import TrainingArguments


@contextlib.contextmanager
def with_attributes(target: Any, **values: Any) -> Iterator[None]:
    """Other values for attributes of an object, inside."""
    before = {name: getattr(target, name) for name in values}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


def activations_on_cpu(wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """A context that keeps activations in CPU memory between forward and backward."""
    if not wanted:
        return contextlib.nullcontext()
    return torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available())


def every_comparison_once(args: TrainingArguments, dataset: Any) -> contextlib.AbstractContextManager[None]:
    """Evaluation drops no last batch, and one process reads a stream, so that its comparisons are numbered once."""
    alone = {"num_workers": 0, "persistent_workers": False, "prefetch_factor": None}
    settings = alone if isinstance(dataset, IterableDataset) else {}
    loading = {f"dataloader_{name}": value for name, value in settings.items()}
    return with_attributes(args, dataloader_drop_last=False, **loading)
