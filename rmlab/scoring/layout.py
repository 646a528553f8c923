"""Which layout is exact for a model, and the proof of it: padded rewards, computed once, of the first batch.

padded        every response a row, as long as the longest: what every model takes, the reference and the fallback
packed        responses one after the other in one flat row, no padding: encoders, models with dropout
shared_prefix the same, and what the responses of a comparison share is there once: causal models
"""

import contextlib
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from rmlab.messages import UserError
from rmlab.scoring.attention import Refused
from rmlab.scoring.flat import layers_of
from rmlab.scoring.heads import base_of, is_decoder, score
from rmlab.scoring.plan import Plan

KNOWN_LAYERS = {"full_attention", "sliding_attention"}


def choose(model: Any, wanted: str) -> tuple[str, str]:
    """(layout, why) for a model as it will be trained. Raises UserError if `wanted` cannot be exact for it."""
    base = base_of(model)
    kind = base.config.model_type
    if wanted == "padded":
        return "padded", "as configured"
    obstacle = why_padded(model, base)
    if obstacle is not None:
        if wanted != "auto":
            raise UserError(f"scoring.layout={wanted} is not possible: {obstacle}; use auto or padded")
        return "padded", obstacle
    obstacle = why_packed(model, base)
    if wanted == "shared_prefix" and obstacle is not None:
        raise UserError(f"scoring.layout=shared_prefix is not exact: {obstacle}; use auto or packed")
    if wanted == "packed" or obstacle is not None:
        return "packed", obstacle or "as configured"
    return "shared_prefix", f"{kind} is causal and has no dropout"


def why_padded(model: Any, base: Any) -> str | None:
    """What stands against any flat row, as far as it can be seen without running the model."""
    kind = base.config.model_type
    text = base.config.get_text_config()
    types = set(getattr(text, "layer_types", None) or KNOWN_LAYERS)
    peft = getattr(model, "peft_config", {}).values()
    if not getattr(base, "_supports_attention_backend", False):
        return f"{kind} has an attention of its own"
    if types - KNOWN_LAYERS:
        return f"{kind} has layers of type {', '.join(sorted(types - KNOWN_LAYERS))}"
    if any(config.is_prompt_learning for config in peft):
        return "prompt tuning puts virtual tokens before every row"
    if not getattr(text, "is_causal", True) or getattr(text, "use_bidirectional_attention", False):
        return f"this {kind} is a decoder that looks both ways"
    if any(p > 0 for name, p in dropouts(model) if "layerdrop" in name):
        return "LayerDrop leaves layers out at random"
    try:
        layers_of(base)
    except Refused as refused:
        return f"{kind}: {refused}"
    return None


def why_packed(model: Any, base: Any) -> str | None:
    """What stands against sharing prefixes."""
    if not is_decoder(base):
        return f"{base.config.model_type} is an encoder: a prompt sees its response"
    names = sorted({name.rsplit(".", 1)[-1] for name, p in dropouts(model) if p > 0})
    return f"dropout is on ({', '.join(names[:3])}), and shared tokens would share it" if names else None


def dropouts(model: nn.Module) -> list[tuple[str, float]]:
    """Every dropout probability of a model: modules, and numbers in modules for functional dropout and router noise."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            found.append((name, float(module.p)))
        for key, value in vars(module).items():
            if ("drop" in key or "jitter" in key) and isinstance(value, float) and not isinstance(value, bool):
                found.append((f"{name}.{key}", value))
    return found


def padded_batch(batch: Mapping[str, Any], pad_token_id: int, responses: list[int] | None = None) -> dict[str, Any]:
    """The same batch padded, each response's tokens gathered from the flat row; only these `responses` if given."""
    index = batch["plan"].index(responses).to(batch["input_ids"].device)
    here = index >= 0
    input_ids = torch.where(here, batch["input_ids"][0][index.clamp(min=0)], pad_token_id)
    rest = {k: v for k, v in batch.items() if k not in ("plan", "read", "position_ids", "features")}
    return {**rest, "input_ids": input_ids, "attention_mask": here.long()}


@torch.no_grad()
def prove(model: nn.Module, batch: Mapping[str, Any], pad_token_id: int) -> tuple[float, str | None]:
    """(largest difference, None or what is wrong) of the first rewards of a flat batch from those of padded rows.

    They are compared in full precision (1e-4 of the largest reward; 5% for weights of 16 bits), and where training
    runs under autocast, in that as well (5%): it may take another kernel.
    """
    low = bool({p.dtype for p in model.parameters()} & {torch.float16, torch.bfloat16})
    autocast = "_original_forward" in vars(model)  # accelerate has wrapped forward
    training = model.training
    model.eval()
    try:
        with informative_head(model), full_precision(model, batch["read"].device.type):
            difference = largest_difference(model, batch, pad_token_id)
        with informative_head(model):
            rounded = largest_difference(model, batch, pad_token_id) if autocast else 0.0
    except Refused as refused:
        return float("nan"), str(refused)
    finally:
        model.train(training)
    if not (difference <= (5e-2 if low else 1e-4) and rounded <= 5e-2):  # also when it is not a number
        return difference, f"rewards differ from padded ones by {max(difference, rounded):.1g}"
    return difference, None


def largest_difference(model: nn.Module, batch: Mapping[str, Any], pad_token_id: int) -> float:
    """Of flat rewards from padded ones, as a share of the largest reward (or of 1). Raises Refused."""
    chosen = to_compare(batch)
    padded = score(model, padded_batch(batch, pad_token_id, chosen))
    try:
        flat = score(model, batch)[chosen]
    except Refused:
        raise
    except Exception as error:  # whatever it is, the padded layout has just worked
        raise Refused(f"{error}".splitlines()[0] if str(error) else type(error).__name__) from error
    return (flat - padded).abs().max().item() / max(1.0, padded.abs().max().item())


def to_compare(batch: Mapping[str, Any]) -> list[int]:
    """As many responses as fit padded into the memory of the flat row, but two in any case.

    The comparison with the longest response comes first, and in it the response that most others lie before: that is
    where a window, a position or a branch would show.
    """
    lengths, prompts = batch["plan"].lengths, batch["prompt"].tolist()
    longest: dict[int, int] = {}
    for prompt, length in zip(prompts, lengths, strict=True):
        longest[prompt] = max(longest.get(prompt, 0), length)
    order = sorted(range(len(lengths)), key=lambda r: (-longest[prompts[r]], prompts[r], -r))
    sizes = [n * width for n, width in enumerate(accumulate((lengths[r] for r in order), max), start=1)]
    return order[: max(2, sum(size <= batch["plan"].tokens for size in sizes))]


@contextlib.contextmanager
def full_precision(model: nn.Module, device: str) -> Iterator[None]:
    """Without autocast, also not the one that accelerate wraps around `forward`."""
    wrapped: Any = model.forward
    with torch.autocast(device, enabled=False):
        if "_original_forward" in vars(model):
            model.forward = vars(model)["_original_forward"]
        try:
            yield
        finally:
            if "_original_forward" in vars(model):
                model.forward = wrapped


@contextlib.contextmanager
def informative_head(model: nn.Module) -> Iterator[None]:
    """Random weights for the head, that make rewards of about 1: under small ones any two rewards are nearly equal."""
    heads = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    whole = {weight: weight.clone() for weight in heads if weight.ndim == 2 and not hasattr(weight, "device_mesh")}
    for weight in whole:
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / weight.shape[1] ** 0.5)
    try:
        yield
    finally:
        for weight, before in whole.items():
            weight.copy_(before)


def tokens_saved(batch: Mapping[str, Any]) -> str:
    """How many tokens the layout computes on a batch, against packed and padded."""
    lengths: list[int] = batch["plan"].lengths
    plan: Plan = batch["plan"]
    padded = len(lengths) * max(lengths)
    return f"{plan.tokens:,} tokens where packed has {sum(lengths):,} and padded {padded:,}"
