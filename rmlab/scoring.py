"""Rewards: one fp32 number per response. How tokens are laid out for the model is known here and nowhere else."""

import inspect
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput


def pad(sequences: Sequence[Sequence[int]], pad_token_id: int, multiple_of: int | None = None) -> dict[str, Tensor]:
    """Right-padded `input_ids` and `attention_mask`, both (R, L)."""
    length = max(map(len, sequences))
    if multiple_of:
        length = -(-length // multiple_of) * multiple_of
    input_ids = torch.full((len(sequences), length), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = torch.tensor(sequence)
        attention_mask[row, : len(sequence)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def score(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """(R,) fp32 rewards of a padded batch; `model` was prepared by `prepare_for_scoring`."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **no_cache(model)).logits
    return logits.float().squeeze(-1)


def no_cache(model: nn.Module) -> dict[str, bool]:
    """`use_cache=False` for models that keep keys and values: training never reads them back."""
    config = getattr(model, "config", None) or getattr(getattr(model, "module", None), "config", None)
    return {"use_cache": False} if hasattr(config, "use_cache") else {}


def head_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The children that turn hidden states into the reward, by name: all with parameters but the base model."""
    base = model.base_model_prefix
    return {n: m for n, m in model.named_children() if n != base and any(True for _ in m.parameters())}


def prepare_for_scoring(model: Any) -> None:
    """Make a sequence-classification model compute its rewards right, in place; its saved form does not change.

    * The head's weights and arithmetic are fp32, whatever the body's dtype and whatever autocast says: bf16 rewards
      fall on a grid of 2^-7 and coarser, which makes ties out of differences.
    * Decoders are read at the last token by attention mask. Their own `forward` looks for `input_ids != pad_token_id`
      instead, which skips a final EOS when pad == eos.
    """
    if getattr(model, "_rmlab_prepared", False):
        return
    model._rmlab_prepared = True
    for module in head_modules(model).values():
        module.float()
        module.register_forward_pre_hook(enter_fp32, with_kwargs=True)
        module.register_forward_hook(leave_fp32, always_call=True)
    if is_decoder(model):
        model.forward = MethodType(forward_at_last_token, model)


def is_decoder(model: Any) -> bool:
    """Whether the reward is one linear layer, `score`, on one token's hidden state (every causal architecture)."""
    head = getattr(model, "score", None)
    return isinstance(getattr(head, "original_module", head), nn.Linear)  # peft wraps a head that it trains


def forward_at_last_token(
    self: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_key_values: Any = None,  # by name, because peft's prefix tuning looks for it in the signature
    labels: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """`forward` of a decoder with a score head: logits (R, 1) at each row's last token, left or right padded."""
    if past_key_values is not None:
        kwargs["past_key_values"] = past_key_values
    if labels is not None:
        return type(self).forward(
            self, input_ids, attention_mask=attention_mask, position_ids=position_ids, labels=labels, **kwargs
        )
    base = getattr(self, self.base_model_prefix)
    if position_ids is None and attention_mask is not None and input_ids is not None and takes_positions(base):
        position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
    positions = {} if position_ids is None else {"position_ids": position_ids}
    hidden = base(input_ids=input_ids, attention_mask=attention_mask, **positions, **kwargs).last_hidden_state
    if attention_mask is None:
        last = torch.full(hidden.shape[:1], hidden.shape[1] - 1, device=hidden.device)
    else:
        mask = attention_mask[:, -hidden.shape[1] :]  # prefix tuning prepends virtual tokens to the mask alone
        last = mask.shape[1] - 1 - mask.flip(-1).to(torch.int32).argmax(-1)
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    return SequenceClassifierOutput(logits=self.score(hidden[rows, last]))


def takes_positions(base: nn.Module) -> bool:
    return "position_ids" in inspect.signature(base.forward).parameters


_autocasts: list[torch.autocast] = []  # entered by a head's pre-hook, left by its hook


def enter_fp32(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    autocast = torch.autocast(next(module.parameters()).device.type, enabled=False)
    autocast.__enter__()
    _autocasts.append(autocast)
    dtype = next(module.parameters()).dtype  # fp32, unless someone cast the whole model afterwards
    return tuple(cast(a, dtype) for a in args), {k: cast(v, dtype) for k, v in kwargs.items()}


def leave_fp32(module: nn.Module, args: Any, output: Any) -> None:
    _autocasts.pop().__exit__(None, None, None)


def cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
