"""The two ways into a model: padded rows, as everyone has them, and flat rows (flat.py)."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from rmlab.messages import UserError
from rmlab.model.head import is_decoder, keep_in_fp32
from rmlab.scoring.batch import Flat, Padded
from rmlab.scoring.flat import flat_rows, no_cache
from rmlab.scoring.logps import response_logps
from rmlab.scoring.plan import Plan
from rmlab.upstream import replace_forward, replaced


def score(model: nn.Module, tokens: Padded | Flat) -> Tensor:
    """(R, D) fp32 outputs of the head for the tokens of a batch; `model` was prepared by `prepare_for_scoring`.

    Raises Refused where the model's attention does not fit a flat row.
    """
    given = {name: value for name, value in vars(tokens).items() if value is not None}
    if isinstance(tokens, Padded):
        given.update(no_cache(model))
    return model(**given).logits.float()


def prepare_for_scoring(model: PreTrainedModel) -> None:
    """Make a sequence-classification model compute its rewards right, in place; its saved form does not change.

    * The head's weights and arithmetic are fp32, see model/head.py.
    * Decoders are read at the last token by attention mask. Their own `forward` looks for `input_ids != pad_token_id`
      instead, which skips a final EOS when pad == eos.
    * `forward` also takes flat rows: `plan` and what goes with it, see plan.py.
    """
    if is_ready(model):
        return
    vars(model)["_rmlab_prepared"] = True
    keep_in_fp32(model)
    replace_forward(model, forward_decoder if is_decoder(model) else forward_encoder)


def is_ready(model: nn.Module) -> bool:
    """Whether `prepare_for_scoring` has been here."""
    return getattr(model, "_rmlab_prepared", False)


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
    response: Tensor | None = None,
    **kwargs: Any,
) -> SequenceClassifierOutput:
    """`forward` of a decoder with a score head: logits (R, D) at each response's last token.

    With `response` (R, L), which tokens are the response's, their summed log-probability is one more column.

    Of rows padded left or right, of a flat row (`plan`, `read`), or of what frozen layers made of one (`features`).
    """
    if plan is not None or features is not None:
        vectors = flat_rows(self, Flat(input_ids, position_ids, plan, read, features))
        return SequenceClassifierOutput(logits=self.score(vectors))
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
    outputs = self.score(hidden[rows, last])
    if response is not None:
        if input_ids is None:  # without its column, the last output would be taken for it
            raise UserError("the loss reads logps, which prompt tuning hides the tokens of; use another peft method")
        outputs = torch.cat([outputs, response_logps(self, hidden, input_ids, response)[:, None]], -1)
    return SequenceClassifierOutput(logits=outputs)


def forward_encoder(
    self: Any,
    *args: Any,
    plan: Plan | None = None,
    read: Tensor | None = None,
    features: Tensor | None = None,
    **kwargs: Any,
) -> SequenceClassifierOutput:
    """`forward` of an encoder: its own; for a flat row its own head on each response's first token (or mean)."""
    if plan is None and features is None:
        return type(self).forward(self, *args, **kwargs)
    tokens = Flat(kwargs.get("input_ids"), kwargs.get("position_ids"), plan, read, features)
    return head_of_encoder(self, flat_rows(self, tokens))


def head_of_encoder(self: Any, vectors: Tensor) -> SequenceClassifierOutput:
    """The model's own head on vectors (R, d): its base is made to return each as the hidden state of one token."""
    base, hidden = getattr(self, self.base_model_prefix), vectors[:, None]
    pooler = getattr(base, "pooler", None)
    pooled = None if pooler is None else pooler(hidden)
    output = BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooled)
    with replaced(base, "forward", lambda *args, **kwargs: output):
        return type(self).forward(self, inputs_embeds=hidden)


def takes_positions(base: nn.Module) -> bool:
    """Whether a base model can be told positions: not every architecture has them."""
    return "position_ids" in inspect.signature(base.forward).parameters
