"""The head and the two ways into a model: padded rows, as everyone has them, and flat rows (flat.py)."""

import inspect
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from rmlab.scoring.flat import flat_rows, no_cache, replaced
from rmlab.scoring.plan import Plan


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


def score(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """(R,) fp32 rewards of a batch in any layout; `model` was prepared by `prepare_for_scoring`.

    A batch with a `plan` is a flat row of tokens, one with `features` starts from what frozen layers made of it, any
    other is padded. Raises Refused where the model's attention does not fit a flat row.
    """
    if "plan" in batch or "features" in batch:
        given = {k: batch[k] for k in ("input_ids", "position_ids", "plan", "read", "features") if k in batch}
    else:
        given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], **no_cache(model)}
    return model(**given).logits.float().squeeze(-1)


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
    * `forward` also takes flat rows: `plan` and what goes with it, see plan.py.
    """
    if getattr(model, "_rmlab_prepared", False):
        return
    model._rmlab_prepared = True
    for module in head_modules(model).values():
        module.float()
        module.register_forward_pre_hook(enter_fp32, with_kwargs=True)
        module.register_forward_hook(leave_fp32, always_call=True)
    model.forward = MethodType(forward_decoder if is_decoder(model) else forward_encoder, model)


def base_of(model: Any) -> Any:
    """The transformers model, without the adapter around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_decoder(model: Any) -> bool:
    """Whether the reward is one linear layer, `score`, on one token's hidden state (every causal architecture)."""
    head = getattr(model, "score", None)
    return isinstance(getattr(head, "original_module", head), nn.Linear)  # peft wraps a head that it trains


def forward_decoder(
    self: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_key_values: Any = None,  # by name, because peft's prefix tuning looks for it in the signature
    labels: Tensor | None = None,
    plan: Plan | None = None,
    read: Tensor | None = None,
    features: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """`forward` of a decoder with a score head: logits (R, 1) at each response's last token.

    Of rows padded left or right, of a flat row (`plan`, `read`), or of what frozen layers made of one (`features`).
    """
    if plan is not None or features is not None:
        rows = flat_rows(self, input_ids, position_ids, plan, read, features)
        return SequenceClassifierOutput(logits=self.score(rows))
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


def forward_encoder(
    self: Any,
    *args: Any,
    plan: Plan | None = None,
    read: Tensor | None = None,
    features: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """`forward` of an encoder: its own; for a flat row its own head on each response's first token (or mean)."""
    if plan is None and features is None:
        return type(self).forward(self, *args, **kwargs)
    rows = flat_rows(self, kwargs.get("input_ids"), kwargs.get("position_ids"), plan, read, features)
    return head_of_encoder(self, rows)


def head_of_encoder(self: Any, rows: Tensor) -> Any:
    """The model's own head on rows (R, d): its base is made to return them as the hidden states of one token each."""
    base, hidden = getattr(self, self.base_model_prefix), rows[:, None]
    pooler = getattr(base, "pooler", None)
    pooled = None if pooler is None else pooler(hidden)
    output = BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooled)
    with replaced(base, "forward", lambda *args, **kwargs: output):
        return type(self).forward(self, inputs_embeds=hidden)


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
