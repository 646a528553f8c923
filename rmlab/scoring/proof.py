"""The proof that a layout is exact for a model: rewards of a flat batch, compared with those of padded rows."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from datasets import IterableDataset
from torch import nn

from rmlab.data.trees import Trees
from rmlab.heads import Head
from rmlab.messages import first_line
from rmlab.model.layers import Refused
from rmlab.scoring.batch import Batch, Flat, Padded
from rmlab.scoring.heads import score
from rmlab.scoring.plan import Plan
from rmlab.upstream import without_mixed_precision

EXACT, ROUNDED = 1e-4, 5e-2  # of the largest reward: in full precision, and where something computes in 16 bits
MOVEMENT = 4  # times what padded rewards themselves move by, between a row alone and the same row in a batch


@dataclass(frozen=True)
class Proof:
    """The largest difference from padded rewards, as a share of the largest one, and what is wrong, if anything."""

    difference: float
    wrong: str | None = None


def rows_to_prove(trees: Trees, count: int) -> list[Mapping[str, Any]]:
    """`count` rows and, last, where a wrong place in the flat row would show, the longest; of a stream the first."""
    if isinstance(trees, IterableDataset):
        return list(trees.take(count))
    if not len(trees):
        return []
    longest = int(np.argmax(trees["length"]))
    others = [n for n in range(min(count + 1, len(trees))) if n != longest][:count]
    return [trees[n] for n in (*others, longest)]


@torch.no_grad()
def prove(
    model: nn.Module,
    batch: Batch,
    pad_token_id: int,
    autocast: Callable[[], AbstractContextManager[None]] | None = None,
    features: torch.Tensor | None = None,
) -> Proof:
    """Compare the rewards of a flat batch with those of padded rows, in eval mode.

    They are compared in full precision, and where training runs under `autocast` in that as well: it may take another
    kernel. With `features`, what frozen layers made of the batch, these are compared.
    """
    assert isinstance(batch.tokens, Flat)
    low = bool({p.dtype for p in model.parameters()} & {torch.float16, torch.bfloat16, torch.uint8, torch.int8})
    tokens, training = replace(batch.tokens, features=features), model.training
    assert tokens.read is not None
    model.eval()
    try:
        with informative_head(model), without_mixed_precision(model):
            difference = rounded = moved = 0.0
            if features is None or autocast is None:  # features are computed once, under what training runs
                with torch.autocast(tokens.read.device.type, enabled=False):
                    difference, moved = largest_difference(model, batch, tokens, pad_token_id)
            if autocast is not None:
                with autocast():
                    rounded, _ = largest_difference(model, batch, tokens, pad_token_id)
    except Refused as refused:
        return Proof(float("nan"), str(refused))
    finally:
        model.train(training)
    allowed = max(ROUNDED if low else EXACT, MOVEMENT * moved)
    if not (difference <= allowed and rounded <= max(ROUNDED, allowed)):  # also when it is not a number
        return Proof(difference, f"rewards differ from padded ones by {max(difference, rounded):.1g}")
    return Proof(difference)


def largest_difference(model: nn.Module, batch: Batch, tokens: Flat, pad_token_id: int) -> tuple[float, float]:
    """(of flat outputs from padded ones, of padded ones from those of a row alone), as shares of the largest of each.

    The second is what a batch does to rewards in any layout: nothing in full precision, and more with fewer bits.
    Raises Refused.
    """
    chosen = to_compare(batch)
    padded = score(model, padded_tokens(batch, pad_token_id, chosen))
    few = chosen[:4]  # each is a forward of its own
    alone = torch.cat([score(model, padded_tokens(batch, pad_token_id, [r])) for r in few])
    scale = padded.abs().amax(0).clamp(min=1.0)  # of each output
    try:
        flat = score(model, tokens)[chosen]
    except Refused:
        raise
    except Exception as error:  # whatever it is, the padded layout has just worked
        raise Refused(first_line(error)) from error
    moved = ((alone - padded[: len(few)]).abs() / scale).max().item()
    return ((flat - padded).abs() / scale).max().item(), moved


def plan_of(batch: Batch) -> Plan:
    """The plan of a flat batch; AssertionError for one that has none, padded or of features alone."""
    assert isinstance(batch.tokens, Flat)
    assert batch.tokens.plan is not None
    return batch.tokens.plan


def padded_tokens(batch: Batch, pad_token_id: int, responses: list[int] | None = None) -> Padded:
    """The tokens of a flat batch as padded rows; only these `responses` if given."""
    assert isinstance(batch.tokens, Flat)
    ids = batch.tokens.input_ids
    assert ids is not None
    index = plan_of(batch).index(responses).to(ids.device)
    here = index >= 0
    return Padded(torch.where(here, ids[0][index.clamp(min=0)], pad_token_id), here.long())


def to_compare(batch: Batch) -> list[int]:
    """As many responses as fit padded into the memory of the flat row, but two in any case.

    The comparison with the longest response comes first, and in it the response that most others lie before: that is
    where a window, a position or a branch would show.
    """
    plan, prompts = plan_of(batch), batch.prompt.tolist()
    lengths = plan.lengths
    longest: dict[int, int] = {}
    for prompt, length in zip(prompts, lengths, strict=True):
        longest[prompt] = max(longest.get(prompt, 0), length)
    order = sorted(range(len(lengths)), key=lambda r: (-longest[prompts[r]], prompts[r], -r))
    sizes = [n * width for n, width in enumerate(accumulate((lengths[r] for r in order), max), start=1)]
    return order[: max(2, sum(size <= plan.tokens for size in sizes))]


@contextlib.contextmanager
def informative_head(model: nn.Module) -> Iterator[None]:
    """Random weights for the head, that make outputs of about 1: under small ones any two rewards are nearly equal."""
    linears = (m for m in model.modules() if isinstance(m, nn.Linear))
    heads = [m.weight for m in linears if m.out_features == 1 or isinstance(m, Head)]
    whole = {weight: weight.clone() for weight in heads if weight.ndim == 2 and not hasattr(weight, "device_mesh")}
    for weight in whole:
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / weight.shape[1] ** 0.5)
    try:
        yield
    finally:
        for weight, before in whole.items():
            weight.copy_(before)


def tokens_saved(batch: Batch) -> str:
    """How many tokens the layout computes on a batch, against packed and padded."""
    plan = plan_of(batch)
    padded = len(plan.lengths) * max(plan.lengths)
    return f"{plan.tokens:,} tokens where packed has {sum(plan.lengths):,} and padded {padded:,}"
