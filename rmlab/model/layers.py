"""The transformer layers of a model: where they are, which of them are trained, and how to freeze the others."""

from torch import nn
from transformers import PreTrainedModel

from rmlab.messages import UserError


class Refused(Exception):  # noqa: N818  (as UserError, it is read by people)
    """The model wants something that flat layouts do not have; the message says what."""


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The transformer layers, first to last. Raises Refused for a model without such a list."""
    base = getattr(model, model.base_model_prefix)
    base = getattr(base, "language_model", base)  # and not the layers of a vision tower
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise Refused("its layers are not one list")


def freeze(model: PreTrainedModel, last_layers: int) -> None:
    """Leave nothing to train but the head, the last layers (and norms after them), and what the checkpoint lacked."""
    base, layers = getattr(model, model.base_model_prefix), layers_of(model)
    if last_layers > len(layers):
        raise UserError(
            f"train_last_layers={last_layers} is more than the model's {len(layers)} layers (model.train_last_layers)"
        )
    trained = {id(p) for layer in layers[len(layers) - last_layers :] for p in layer.parameters()}
    new = getattr(model, "rmlab_new_modules", [])
    for name, parameter in base.named_parameters():
        late = last_layers > 0 and after_layers(name)
        parameter.requires_grad_(id(parameter) in trained or late or name.split(".")[0] in new)


def first_trained_layer(model: PreTrainedModel) -> int:
    """How many layers, from the embeddings on, have nothing to train; the number of all of them for a linear probe."""
    base, layers = getattr(model, model.base_model_prefix), layers_of(model)
    trained = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    inside = {id(p) for layer in layers for p in layer.parameters()}
    outside = [n for n, p in base.named_parameters() if p.requires_grad and id(p) not in inside]
    if any(not after_layers(name) for name in outside):
        return 0
    if True in trained:
        return trained.index(True)
    return len(layers) - any("pooler" not in name for name in outside)  # a final norm is run with the last layer


def after_layers(name: str) -> bool:
    """Whether a parameter of the base model, outside its layers, comes after them."""
    parts = [part for part in name.split(".") if part not in ("model", "decoder", "language_model")]
    return parts[0] in {"norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "pooler"}
