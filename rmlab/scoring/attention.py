"""Attention over a flat row of responses: the function that transformers calls in every layer, for each device.

It is registered under the name "rmlab" and reads the batch's Plan, which reaches it as a keyword argument through
the model. Tokens of one response see each other as if it lay alone, so nothing but the layout changes.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from rmlab.model.layers import Refused
from rmlab.scoring.plan import Plan

NAME = "rmlab"  # not "flash...": transformers would look for a kernel of that name

# What models pass on that does not change attention without a cache. Anything else that is set is refused: attention
# sinks, position biases and the like would be dropped without a word.
HARMLESS = {
    "position_ids", "position_embeddings", "use_cache", "past_key_values", "cache_position", "layer_past",
    "output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "num_items_in_batch",
}  # fmt: skip


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    plan: Plan | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """(1, T, heads, d) attention of one layer; query (1, heads, T, d), key and value with as many heads or fewer.

    `sliding_window` w: a token sees those less than w positions away (transformers' rule for every model).
    Raises Refused for anything that would change the result and is not computed here.
    """
    if plan is None:
        raise Refused("the model is set up for rmlab's flat layouts and was called without a plan")
    if "sliding_window" not in others:
        refuse_window_in_mask(module)
    window = others.pop("sliding_window", None)
    unknown = sorted(k for k, v in others.items() if v is not None and v is not False and k not in HARMLESS)
    if unknown or attention_mask is not None:
        raise Refused(f"its attention takes {', '.join(unknown) or 'a mask of its own'}")
    causal = getattr(module, "is_causal", plan.causal) if is_causal is None else is_causal
    if causal != plan.causal:
        raise Refused("its layers do not agree on what is causal")
    if dropout and plan.shares:
        raise Refused("its attention has dropout, which shared tokens would share")
    plan.calls += "_rmlab_flat" in module.__dict__
    if "_rmlab_places" in module.__dict__:  # here and not before the forward: checkpointing computes layers again
        module.__dict__["_rmlab_places"].read = plan.places if plan.only_read else None
    if torch.is_autocast_enabled(query.device.type):  # rotary embeddings leave queries and keys in fp32
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if softcap is not None or dropout:
        return by_group(query, key, value, plan, scaling, window, softcap, dropout), None
    if query.device.type == "cpu":
        masks = plan.masks(window)
        return Blocked.apply(query[0], key[0], value[0], plan.groups, masks, plan.causal, scaling)[None], None
    fits = query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] == value.shape[-1] <= 256
    if query.device.type == "cuda" and fits and has_ragged_kernel(query.device):
        return ragged(query, key, value, plan, scaling, window), None
    return by_group(query, key, value, plan, scaling, window, None, 0.0), None


def refuse_window_in_mask(module: nn.Module) -> None:
    """Raises Refused for a module with a window that it does not pass on: its model has it in its mask alone."""
    config = getattr(module, "config", None)
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise Refused("its sliding window is in its mask alone")


AttentionInterface.register(NAME, attend)  # with no mask function of that name, transformers makes no mask


def by_group(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: Plan,
    scaling: float,
    window: int | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    """The reference, exact on every device: one masked attention per group of tokens that see each other."""
    # Repeated here, not by enable_gqa: with it and a mask, CUDA has no kernel that keeps the scores out of memory.
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    parts = []
    for (start, end), hidden in zip(plan.groups, plan.masks(window), strict=True):
        q, k, v = query[:, :, start:end], key[:, :, start:end], value[:, :, start:end]
        if softcap is None:
            part = scaled_dot_product_attention(q, k, v, None if hidden is None else ~hidden, dropout, scale=scaling)
        else:  # Gemma 2: softcap * tanh(scores / softcap)
            scores = torch.tanh(q @ k.transpose(2, 3) * scaling / softcap) * softcap
            if hidden is not None:
                scores = scores.masked_fill(hidden, float("-inf"))
            weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
            part = nn.functional.dropout(weights, dropout) @ v
        parts.append(part)
    return torch.cat(parts, dim=2).transpose(1, 2)


# ---- CUDA ----

varlen_attn: Any = None
with contextlib.suppress(ImportError):  # in older versions of torch
    from torch.nn.attention.varlen import varlen_attn


@functools.cache
def kernel_takes(option: str) -> bool:
    """Whether this torch's variable-length kernel has that option: windows since 2.11, enable_gqa since 2.12."""
    return varlen_attn is not None and option in inspect.signature(varlen_attn).parameters


@functools.cache
def has_ragged_kernel(device: torch.device) -> bool:
    """Whether torch's variable-length kernel takes windows, and this GPU (Ampere or later)."""
    return kernel_takes("window_size") and torch.cuda.get_device_capability(device) >= (8, 0)


def ragged(query: Tensor, key: Tensor, value: Tensor, plan: Plan, scaling: float, window: int | None) -> Tensor:
    """One variable-length kernel for all chains: each chain's queries against its ancestors' and its own keys.

    Causal masks of unequal lengths are aligned at the end (FlashAttention >= 2.1), which is where the own keys are.
    """
    index, cu_q, cu_k, max_q, max_k = plan.ragged
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if plan.shares:
        k, v = k.index_select(0, index), v.index_select(0, index)
    width = -1 if window is None else window - 1
    sides = (width, 0) if plan.causal else (width, width)
    repeats = query.shape[1] // key.shape[1]  # query heads that share a key head
    gqa = {"enable_gqa": True} if repeats > 1 and kernel_takes("enable_gqa") else {}
    if repeats > 1 and not gqa:
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    return varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, scale=scaling, window_size=sides, **gqa)[None]


# ---- CPU ----


class Blocked(torch.autograd.Function):
    """by_group for CPUs, twice as fast and more, forward and backward (16 pairs, T of 4,800, 8 heads of 64).

    Blocks of queries against all keys up to theirs, so half of a causal square is never computed; query heads that
    share a key head are one matrix, so keys are not repeated. The probabilities P are kept for backward:
    dV = P^T dO, dS = P * (dO V^T - rowsum(dO * O)), dQ = dS K, dK = dS^T Q (FlashAttention, Dao et al. 2022, B.2).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        groups: Sequence[tuple[int, int]],
        masks: Sequence[Tensor | None],
        causal: bool,
        scaling: float,
    ) -> Tensor:
        """query (heads, T, d), key and value (key heads, T, d) -> (T, heads, d)."""
        heads, tokens, _ = query.shape
        few, repeats = key.shape[0], heads // key.shape[0]
        out = query.new_empty(tokens, heads, value.shape[-1])
        kept = []
        for q0, q1, k0, k1, hidden in blocks(groups, masks, causal, query.dtype):
            q = (query[:, q0:q1] * scaling).reshape(few, repeats * (q1 - q0), -1)
            scores = torch.bmm(q, key[:, k0:k1].transpose(1, 2)).view(heads, q1 - q0, k1 - k0)
            if hidden is not None:
                scores.masked_fill_(hidden, float("-inf"))
            p = torch.softmax(scores, dim=-1)
            kept.append(p)
            o = torch.bmm(p.view(few, -1, k1 - k0), value[:, k0:k1])
            out[q0:q1] = o.view(heads, q1 - q0, -1).transpose(0, 1)
        ctx.save_for_backward(query, key, value, out, *kept)
        ctx.settings = groups, masks, causal, scaling
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value, in their shapes; grad (T, heads, d). None for what is no tensor."""
        query, key, value, out, *kept = ctx.saved_tensors
        groups, masks, causal, scaling = ctx.settings
        few, repeats = key.shape[0], query.shape[0] // key.shape[0]
        dq = torch.empty_like(query)
        # A key's gradient is a sum over blocks, so it is summed in fp32 at least.
        dk, dv = (torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in (key, value))
        with torch.autocast("cpu", enabled=False):
            delta = (grad * out).sum(-1).transpose(0, 1)[..., None]
            for (q0, q1, k0, k1, _), p in zip(blocks(groups, masks, causal, query.dtype), kept, strict=True):
                rows, keys = q1 - q0, slice(k0, k1)
                g = grad[q0:q1].transpose(0, 1).reshape(few, repeats * rows, -1)
                dv[:, keys] += torch.bmm(p.view(few, -1, k1 - k0).transpose(1, 2), g)
                ds = torch.bmm(g, value[:, keys].transpose(1, 2)).view_as(p)
                ds = ds.sub_(delta[:, q0:q1]).mul_(p).view(few, -1, k1 - k0)
                dq[:, q0:q1] = torch.bmm(ds, key[:, keys]).mul_(scaling).view(-1, rows, query.shape[-1])
                q = (query[:, q0:q1] * scaling).reshape(few, repeats * rows, -1)
                dk[:, keys] += torch.bmm(ds.transpose(1, 2), q)
        return dq, dk.to(key.dtype), dv.to(value.dtype), None, None, None, None


def blocks(
    groups: Sequence[tuple[int, int]], masks: Sequence[Tensor | None], causal: bool, dtype: torch.dtype
) -> Iterator[tuple[int, int, int, int, Tensor | None]]:
    """(first query, end, first key, end, what is hidden) of each block; no block spans two groups."""
    size = 128 if dtype == torch.float32 else 256  # measured: flat around these
    for (start, end), hidden in zip(groups, masks, strict=True):
        for q0 in range(start, end, size):
            q1 = min(q0 + size, end)
            k1 = q1 if causal else end
            yield q0, q1, start, k1, None if hidden is None else hidden[q0 - start : q1 - start, : k1 - start]
