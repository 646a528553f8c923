"""The LM head of a causal model, which a reward model has no use for unless its loss reads log-probabilities."""

from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from rmlab.messages import UserError
from rmlab.model.head import base_of, is_decoder

SCALED = ("logit_scale", "logits_scaling")  # what some architectures multiply their logits by


def keep_lm_head(model: nn.Module) -> None:
    """Give the model its LM head: tied to its embeddings, or the checkpoint's own, frozen and not saved.

    UserError for a model that has none.
    """
    base = base_of(model)
    kind, config = base.config.model_type, base.config.get_text_config()
    if not is_decoder(base):
        raise UserError(f"the loss reads logps, which {kind} has none of: it is no causal model")
    scaled = [name for name in SCALED if getattr(config, name, 1.0) not in (1.0, None)]
    if scaled:
        raise UserError(f"the loss reads logps, but {kind} scales its logits ({scaled[0]}), which rmlab does not do")
    if not config.tie_word_embeddings and not hasattr(base, "rmlab_lm_head"):
        base.register_buffer("rmlab_lm_head", lm_head(base).to(base.device), persistent=False)


def lm_head(base: PreTrainedModel) -> nn.Parameter:
    """(V, d) the checkpoint's own."""
    if not base.config.name_or_path:
        raise UserError(
            "the loss reads logps, but the model's random weights have no LM head; set "
            "model.config.tie_word_embeddings=true"
        )
    whole = AutoModelForCausalLM.from_pretrained(base.config.name_or_path, dtype=base.dtype)
    return whole.get_output_embeddings().weight.detach()
