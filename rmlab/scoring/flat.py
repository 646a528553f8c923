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
    use_flat_attention(model)
    plan.calls, plan.only_read = 0, not means
    with entering(layers, first, features):
        base = getattr(model, model.base_model_prefix)
        positions = position_ids + first_position(base)
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


def first_position(base: nn.Module) -> int:
    """RoBERTa and its kin count positions from pad_token_id + 1 on."""
    embeddings = getattr(base, "embeddings", None)
    own = hasattr(embeddings, "create_position_ids_from_input_ids")
    return embeddings.padding_idx + 1 if own else 0  # type: ignore[union-attr]


def pools_by_mean(model: Any) -> bool:
    return getattr(model.config, "classifier_pooling", None) == "mean"


def layers_of(model: Any) -> nn.ModuleList:
    """The transformer layers, first to last. Raises Refused for a model without such a list."""
    base = getattr(model, model.base_model_prefix)
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise Refused("its layers are not one list")


def use_flat_attention(model: Any) -> None:
    """Our attention for the forward that follows, and for what checkpointing computes again in its backward."""
    if "_rmlab_rows" not in model.__dict__:
        model.__dict__["_rmlab_rows"] = prune(layers_of(model)[-1])
    if model.config._attn_implementation != NAME:
        model.__dict__["_rmlab_attention"] = model.config._attn_implementation
        model.config._attn_implementation = NAME


def padded_attention(model: Any) -> None:
    """The model's own attention again, and all rows of the last layer."""
    if model.config._attn_implementation == NAME:
        model.config._attn_implementation = model.__dict__["_rmlab_attention"]
        model.__dict__["_rmlab_rows"].read = None


# ---- the last layer: only the rows that are read ----

# Modules whose output at a token depends on nothing but their input there, by the names that architectures use.
OF_ATTENTION = {"o_proj", "out_proj", "c_proj", "dense", "Wo", "out_lin"}
OF_LAYER = {"mlp", "fc1", "fc2", "ffn", "intermediate", "output"}


class Rows:
    """Which tokens the row-wise modules of the last layer compute; None: all, as outside of flat rows."""

    read: Tensor | None = None


def prune(layer: nn.Module) -> Rows:
    """Make the row-wise modules of the last layer compute the rows that are read, and zeros that nobody reads.

    Exact, since no other row leaves the model; it saves most of a layer. The attention function sets `Rows.read`, in
    which no row is there twice (responses that are equal are read at the same one).
    """
    rows = Rows()
    chosen: list[str] = []
    for name, module in layer.named_modules():
        if "attention" in type(module).__name__.lower():
            module.__dict__["_rmlab_rows"] = rows
        inside = any(name.startswith(f"{outer}.") for outer in chosen)
        if name.rsplit(".", 1)[-1] in OF_ATTENTION | OF_LAYER and not inside:
            chosen.append(name)
            # A partial can be copied with its model, a closure would keep the weights of the original.
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
    return name.removeprefix("decoder.").split(".")[0] in {"norm", "ln_f", "final_layer_norm", "final_norm", "pooler"}


@contextlib.contextmanager
def entering(layers: nn.ModuleList, first: int, features: Tensor | None) -> Iterator[None]:
    """Skip the layers below `first` and give it `features` (T, d) as its input; nothing without features."""
    if features is None:
        yield
        return
    hidden = features[None]
    try:
        for layer in layers[:first]:
            layer.forward = lambda *args, **kwargs: hidden
        yield
    finally:
        for layer in layers[:first]:
            del layer.forward
