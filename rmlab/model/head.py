"""The head: what turns a hidden state into the reward, and its first weights."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rmlab.heads import Head, build_head, draw
from rmlab.messages import UserError


def base_of(model: nn.Module) -> PreTrainedModel:
    """The transformers model, without the adapter around it."""
    inner = getattr(model, "get_base_model", None)
    return cast(PreTrainedModel, inner() if inner else model)


def is_decoder(model: PreTrainedModel) -> bool:
    """Whether the reward is one linear layer, `score`, on one token's hidden state (every causal architecture)."""
    head = getattr(model, "score", None)
    return isinstance(getattr(head, "original_module", head), nn.Linear)  # peft wraps a head that it trains


def head_of(model: nn.Module) -> Head | None:
    """The model's head, where it is one of rmlab's; None for an architecture's own, whose one output is the reward."""
    parts = (part for child in head_modules(base_of(model)).values() for part in child.modules())
    return next((part for part in parts if isinstance(part, Head)), None)


def names_of(head: Head | None) -> Sequence[str]:
    """(D,) of the numbers that it returns per response."""
    return Head.names if head is None else head.names


def rewards_of(head: Head | None, outputs: Tensor, prompt: Tensor) -> Tensor:
    """(R,) rewards of outputs (R, D). prompt (R,): which comparison each response belongs to."""
    return outputs[:, 0] if head is None else head.rewards(outputs, prompt)


def head_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The children that turn hidden states into the reward, by name: all with parameters but the base model."""
    base = model.base_model_prefix
    return {n: m for n, m in model.named_children() if n != base and any(True for _ in m.parameters())}


def last_linear(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """(name, layer) that the head ends in: one of rmlab's, else the last linear layer of the architecture's own."""
    linears = [
        (f"{name}.{part}" if part else name, module)
        for name, head in head_modules(model).items()
        for part, module in head.named_modules()
        if isinstance(module, nn.Linear)
    ]
    return ([(name, module) for name, module in linears if isinstance(module, Head)] or linears)[-1]


def name_the_output(model: PreTrainedModel) -> None:
    """Mark the single output as a reward for whatever reads the saved config."""
    model.config.problem_type = "regression"
    model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}  # for vLLM's /score
    model.config.id2label, model.config.label2id = {0: "reward"}, {"reward": 0}


def deviation(how: str | float, d: int) -> float | None:
    """Of the normal first weights of a head on d hidden units, see `init_head`; None for the architecture's own.

    UserError for what is neither a number nor one of the names.
    """
    named = {"1/sqrt(d+1)": (d + 1) ** -0.5, "1/(d+1)": 1 / (d + 1), "zero": 0.0, "default": None}
    if how in named:
        return named[str(how)]
    try:
        number = float(how)  # from a command line it is text
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise UserError(f"model.head_init is {how!r}; use a number or one of {[*named]}")
    return number


def init_head(model: PreTrainedModel, new: list[str], how: str | float) -> None:
    """Initialise the last linear layer of a head that the checkpoint did not have; a trained head is left alone.

    `how`: "1/sqrt(d+1)" (Stiennon et al. 2020), "1/(d+1)" (OpenRLHF), "zero", "default" (the architecture's own) or
    a number, the standard deviation of a normal distribution. Biases become 0.
    """
    name, last = last_linear(model)
    std = deviation(how, last.in_features)
    if f"{name}.weight" not in new or std is None:
        return
    with torch.no_grad():
        last.weight.normal_(0.0, std) if std else last.weight.zero_()
        if last.bias is not None:
            last.bias.zero_()


def install(model: PreTrainedModel, config: Mapping[str, Any], how: str | float) -> list[str]:
    """Put a new head of `{kind: options}` where the last linear layer is; names of its weights. UserError: see there.

    A new one of kind `linear` is the architecture's own again. Call it before `prepare_for_scoring`.
    """
    name, before = last_linear(model)
    biased = before.had_bias if isinstance(before, Head) else before.bias is not None
    head = build_head(config, before.in_features)
    new: nn.Linear = head
    if head.kind == "linear":
        new = nn.Linear(before.in_features, 1, bias=biased)
        draw(new, partial(deviation, how))
    else:
        head.had_bias = biased
        head.draw(partial(deviation, how))
    model.set_submodule(name, new.to(before.weight.device))
    return [f"{name}.{part}" for part in new.state_dict()]


# ---- fp32, whatever the body's dtype and whatever autocast says ----


def keep_in_fp32(model: PreTrainedModel) -> None:
    """Weights and arithmetic of the head in fp32: bf16 rewards fall on a grid of 2^-7 and coarser, which makes ties."""
    for module in head_modules(model).values():
        module.float()
        module.register_forward_pre_hook(enter_fp32, with_kwargs=True)
        module.register_forward_hook(leave_fp32, always_call=True)


_autocasts: list[torch.autocast] = []  # entered by a head's pre-hook, left by its hook


def enter_fp32(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Pre-hook of a head: switch autocast off and return its (args, kwargs), cast to the dtype of its weights."""
    autocast = torch.autocast(next(module.parameters()).device.type, enabled=False)
    autocast.__enter__()
    _autocasts.append(autocast)
    dtype = next(module.parameters()).dtype  # fp32, unless someone cast the whole model afterwards
    return tuple(as_dtype(a, dtype) for a in args), {k: as_dtype(v, dtype) for k, v in kwargs.items()}


def leave_fp32(module: nn.Module, args: Any, output: Any) -> None:
    """Hook of a head, called after an error too: restore the autocast that `enter_fp32` found."""
    _autocasts.pop().__exit__(None, None, None)


def as_dtype(value: Any, dtype: torch.dtype) -> Any:
    """A tensor of floats in that dtype; anything else as it is."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
