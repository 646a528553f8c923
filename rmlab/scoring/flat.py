"""A flat row of tokens through a model: its layers as they are, with our attention, read at one place per response."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rmlab.scoring.attention import NAME, Refused
from rmlab.scoring.plan import Plan


def flat_rows(
    model: Any,
    input_ids: Tensor | None,
    position_ids: Tensor | None,
    plan: Plan | None,
    read: Tensor | None,
    features: Tensor | None = None,
) -> Tensor:
    """(R, d) what the head reads of each response: at `read` (R,) of a row of T tokens, (1, T), or their means.

    `features` is what frozen layers made of the row: (R, d), all that is below the head, or (T, d), what enters the
    first layer that is trained. Raises Refused if a layer did not call our attention: it would see across responses.
    """
    layers = layers_of(model)
    first = 0 if features is None else first_trained_layer(model)
    if features is not None and first == len(layers):
        return features
    assert plan is not None
    assert read is not None
    assert position_ids is not None
    means = pools_by_mean(model)
    if "_rmlab_rows" not in model.__dict__:
        model.__dict__["_rmlab_rows"] = patch_layers(layers)
    plan.calls, plan.only_read = 0, not means
    with flat_attention(model.config), entering(layers, first, features):
        base = getattr(model, model.base_model_prefix)
        positions = position_ids if input_ids is None else own_positions(base, input_ids, position_ids)
        output = base(input_ids=input_ids, position_ids=positions, plan=plan, **no_cache(model))
    if plan.calls != len(layers) - first:
        raise Refused(f"{plan.calls} of its {len(layers) - first} layers call the attention function")
    hidden = output.last_hidden_state[0]
    if not means:
        return hidden.index_select(0, read)
    lengths = plan.put(torch.tensor(plan.lengths))
    return torch.segment_reduce(hidden, "mean", lengths=lengths, axis=0, unsafe=True)  # the check would read them back


def no_cache(model: nn.Module) -> dict[str, bool]:
    """`use_cache=False` for models that keep keys and values: training never reads them back."""
    config = getattr(model, "config", None) or getattr(getattr(model, "module", None), "config", None)
    return {"use_cache": False} if hasattr(config, "use_cache") else {}


def own_positions(base: nn.Module, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    """RoBERTa and its kin count positions from pad_token_id + 1 on, and not where a text itself holds that token."""
    embeddings = getattr(base, "embeddings", None)
    if not hasattr(embeddings, "create_position_ids_from_input_ids"):
        return position_ids
    pad_token_id: int = embeddings.padding_idx  # type: ignore[union-attr]
    real = (input_ids != pad_token_id).long()
    count = real.cumsum(1)
    before = torch.where(position_ids == 0, count - real, 0).cummax(1).values  # those of earlier responses
    return (count - before) * real + pad_token_id


def pools_by_mean(model: Any) -> bool:
    return getattr(model.config, "classifier_pooling", None) == "mean"


def layers_of(model: Any) -> nn.ModuleList:
    """The transformer layers, first to last. Raises Refused for a model without such a list."""
    base = getattr(model, model.base_model_prefix)
    base = getattr(base, "language_model", base)  # and not the layers of a vision tower
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise Refused("its layers are not one list")


# ---- attention ----


@contextlib.contextmanager
def flat_attention(config: Any) -> Iterator[None]:
    """Our attention for what is called inside; the model's own again afterwards."""
    parts = {key: getattr(config, key, None) for key in config.sub_configs}
    before = {key: part._attn_implementation for key, part in parts.items() if part is not None}
    before[""] = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def attention_forward(module: Any, forward: Any, rows: "Rows", *args: Any, **kwargs: Any) -> Any:
    """The forward of an attention module, which checkpointing may call again when the model's own is long over."""
    if kwargs.get("plan") is None:
        rows.read = None
        return forward(*args, **kwargs)
    with flat_attention(module.config):
        return forward(*args, **kwargs)


# ---- the last layer: only the rows that are read ----

# Modules whose output at a token depends on nothing but their input there, by the names that architectures use.
OF_ATTENTION = {"o_proj", "out_proj", "c_proj", "dense", "Wo", "out_lin"}
OF_LAYER = {"mlp", "fc1", "fc2", "ffn", "intermediate", "output"}


class Rows:
    """Which tokens the row-wise modules of the last layer compute; None: all, as outside of flat rows."""

    read: Tensor | None = None


def patch_layers(layers: nn.ModuleList) -> Rows:
    """Make attention modules look for a plan, and the row-wise modules of the last layer compute what is read.

    Of the other rows they make zeros that nobody reads. Exact, since no other row leaves the model; it saves most of a
    layer. The attention function sets `Rows.read`, in which no row is there twice (responses that are equal are read at
    the same one), and counts the modules that are marked here: no other could be told of a plan again.
    """
    rows = Rows()
    for module in layers.modules():
        name = type(module).__name__.lower()
        if ("attention" in name or "attn" in name) and hasattr(module, "config"):
            module.__dict__["_rmlab_flat"] = True
            # A partial can be copied with its model, a closure would keep the weights of the original.
            module.forward = functools.partial(attention_forward, module, module.forward, rows)
    chosen: list[str] = []
    for name, module in layers[-1].named_modules():
        if "_rmlab_flat" in module.__dict__:
            module.__dict__["_rmlab_rows"] = rows
        inside = any(name.startswith(f"{outer}.") for outer in chosen)
        if name.rsplit(".", 1)[-1] in OF_ATTENTION | OF_LAYER and not inside:
            chosen.append(name)
            module.forward = functools.partial(only_rows, module.forward, rows)
    return rows


def only_rows(forward: Any, rows: Rows, *args: Any) -> Any:
    if rows.read is None:
        return forward(*args)
    few = forward(*(x.index_select(-2, rows.read) for x in args))  # (1, T, d), in OPT (T, d)
    return few.new_zeros(*args[0].shape[:-1], few.shape[-1]).index_copy(-2, rows.read, few)


# ---- frozen lower layers ----


def first_trained_layer(model: Any) -> int:
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


@contextlib.contextmanager
def entering(layers: nn.ModuleList, first: int, features: Tensor | None) -> Iterator[None]:
    """Skip the layers below `first` and give it `features` (T, d) as its input; nothing without features."""
    if features is None:
        yield
        return
    hidden = features[None]
    if torch.is_grad_enabled():  # reentrant checkpointing computes gradients only where an input has one
        hidden = hidden.detach().requires_grad_()
    with contextlib.ExitStack() as stack:
        for layer in layers[:first]:
            stack.enter_context(replaced(layer, "forward", lambda *args, **kwargs: hidden))
            stack.enter_context(replaced(layer, "gradient_checkpointing", False))
        yield


@contextlib.contextmanager
def replaced(module: nn.Module, name: str, value: Any) -> Iterator[None]:
    """An attribute of this one module, inside."""
    before = {name: vars(module)[name]} if name in vars(module) else {}
    vars(module)[name] = value
    try:
        yield
    finally:
        del vars(module)[name]
        vars(module).update(before)
