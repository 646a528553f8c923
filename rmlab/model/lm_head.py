"""The LM head of a causal model, which a reward model has no use for unless its loss reads log-probabilities."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from rmlab.messages import UserError
from rmlab.model.head import base_of, is_decoder

SCALED = ("logit_scale", "logits_scaling", "lm_head_multiplier")  # what some architectures multiply their logits by


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


def lm_head(base: PreTrainedModel) -> Tensor:
    """(V, d) that of the checkpoint whose weights the model began with. UserError where it holds none, or a bias."""
    origin = vars(base).get("rmlab_origin")
    path, revision = (origin.path, origin.revision) if origin else (base.config.name_or_path, None)
    if not path:
        raise UserError(
            "the loss reads logps, but the model's random weights have no LM head; set "
            "model.config.tie_word_embeddings=true"
        )
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path, revision=revision, dtype=base.dtype, output_loading_info=True
    )
    whole, report = loaded
    head = whole.get_output_embeddings()
    if any(whole.get_submodule(name.rpartition(".")[0]) is head for name in report["missing_keys"]):
        raise UserError(
            f"the loss reads logps, but {path} holds no LM head, as reward models do not; begin with the language model"
        )
    if getattr(head, "bias", None) is not None:
        raise UserError(f"the loss reads logps, but the LM head of {path} has a bias, which rmlab does not add")
    return head.weight.detach()
