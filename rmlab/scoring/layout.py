"""Which layout is exact for a model, as far as that can be seen without running it; proof.py runs it.

padded        every response a row, as long as the longest: what every model takes, the reference and the fallback
packed        responses one after the other in one flat row, no padding: encoders, models with dropout
shared_prefix the same, and what the responses of a comparison share is there once: causal models
"""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from rmlab.messages import UserError
from rmlab.model.dropout import dropouts
from rmlab.model.head import base_of, is_decoder
from rmlab.model.layers import Refused, layers_of

KNOWN_LAYERS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class Choice:
    """A layout, and why it is this one."""

    layout: str
    why: str


def choose(model: nn.Module, wanted: str, trains: bool = True) -> Choice:
    """The layout of a model as it will be trained. Raises UserError if `wanted` cannot be exact for it.

    trains: False where it only scores, in eval mode, and no dropout acts.
    """
    base = base_of(model)
    kind = base.config.model_type
    if wanted == "padded":
        return Choice("padded", "as configured")
    obstacle = why_padded(model, base, trains)
    if obstacle is not None:
        if wanted != "auto":
            raise UserError(f"scoring.layout={wanted} is not possible: {obstacle}; use auto or padded")
        return Choice("padded", obstacle)
    obstacle = why_packed(model, base, trains)
    if wanted == "shared_prefix" and obstacle is not None:
        raise UserError(f"scoring.layout=shared_prefix is not exact: {obstacle}; use auto or packed")
    if wanted == "packed" or obstacle is not None:
        return Choice("packed", obstacle or "as configured")
    return Choice("shared_prefix", f"{kind} is causal and has no dropout")


def why_padded(model: nn.Module, base: PreTrainedModel, trains: bool) -> str | None:
    """What stands against any flat row, as far as it can be seen without running the model."""
    kind = base.config.model_type
    text = base.config.get_text_config()
    types = set(getattr(text, "layer_types", None) or KNOWN_LAYERS)
    peft = getattr(model, "peft_config", {}).values()
    if not base.is_backend_compatible():
        return f"{kind} has an attention of its own"
    if types - KNOWN_LAYERS:
        return f"{kind} has layers of type {', '.join(sorted(types - KNOWN_LAYERS))}"
    if any(config.is_prompt_learning for config in peft):
        return "prompt tuning puts virtual tokens before every row"
    if not getattr(text, "is_causal", True) or getattr(text, "use_bidirectional_attention", False):
        return f"this {kind} is a decoder that looks both ways"
    if trains and any(p > 0 for name, p in dropouts(model) if "layerdrop" in name):
        return "LayerDrop leaves layers out at random"
    try:
        layers_of(base)
    except Refused as refused:
        return f"{kind}: {refused}"
    return None


def why_packed(model: nn.Module, base: PreTrainedModel, trains: bool) -> str | None:
    """What stands against sharing prefixes."""
    if not is_decoder(base):
        return f"{base.config.model_type} is an encoder: a prompt sees its response"
    names = sorted({name.rsplit(".", 1)[-1] for name, p in dropouts(model) if p > 0 and trains})
    return f"dropout is on ({', '.join(names[:3])}), and shared tokens would share it" if names else None
