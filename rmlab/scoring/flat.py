"""A flat row of tokens through a model: its layers as they are, with our attention, read at one place per response."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rmlab.model.layers import Refused, first_trained_layer, layers_of
from rmlab.scoring.attention import NAME
from rmlab.scoring.batch import Flat
from rmlab.upstream import attention_named, replaced, wrap_forward


def flat_rows(model: PreTrainedModel, tokens: Flat) -> Tensor:
    """(R, d) what the head reads of each response: at `read` of a flat row, or the mean of its tokens.

    With `features` the frozen layers are passed over: (R, d), all that is below the head, or (T, d), what enters the
    first layer that is trained. Raises Refused if a layer did not call our attention: it would see across responses.
    """
    layers = layers_of(model)
    first = 0 if tokens.features is None else first_trained_layer(model)
    if tokens.features is not None and first == len(layers):
        return tokens.features
    plan, read, positions = tokens.plan, tokens.read, tokens.position_ids
    assert plan is not None
    assert read is not None
    assert positions is not None
    means = pools_by_mean(model)
    if "_rmlab_places" not in model.__dict__:
        model.__dict__["_rmlab_places"] = patch_layers(layers)
    plan.calls, plan.only_read = 0, not means
    with attention_named(model.config, NAME), entering(layers, first, tokens.features):
        base = getattr(model, model.base_model_prefix)
        if tokens.input_ids is not None:
            positions = own_positions(base, tokens.input_ids, positions)
        output = base(input_ids=tokens.input_ids, position_ids=positions, plan=plan, **no_cache(model))
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


def pools_by_mean(model: PreTrainedModel) -> bool:
    """Whether the head reads the mean of a response's tokens, as ModernBERT's may, rather than one of them."""
    return getattr(model.config, "classifier_pooling", None) == "mean"


# ---- attention ----


def attention_forward(forward: Any, *args: Any, module: Any, places: "Places", **kwargs: Any) -> Any:
    """The forward of an attention module, which checkpointing may call again when the model's own is long over."""
    if kwargs.get("plan") is None:
        places.read = None
        return forward(*args, **kwargs)
    with attention_named(module.config, NAME):
        return forward(*args, **kwargs)


# ---- the last layer: only the rows that are read ----

# Modules whose output at a token depends on nothing but their input there, by the names that architectures use.
OF_ATTENTION = {"o_proj", "out_proj", "c_proj", "dense", "Wo", "out_lin"}
OF_LAYER = {"mlp", "fc1", "fc2", "ffn", "intermediate", "output"}


class Places:
    """Which tokens the tokenwise modules of the last layer compute; None: all, as outside of flat rows."""

    read: Tensor | None = None


def patch_layers(layers: nn.ModuleList) -> Places:
    """Make attention modules look for a plan, and the tokenwise modules of the last layer compute what is read.

    Of the other tokens they make zeros that nobody reads. Exact, since no other token leaves the model; it saves most
    of a layer. The attention function sets `Places.read`, in which no place is there twice (responses that are equal
    are read at the same one), and counts the modules that are marked here: no other could be told of a plan again.
    """
    places = Places()
    for module in layers.modules():
        name = type(module).__name__.lower()
        if ("attention" in name or "attn" in name) and hasattr(module, "config"):
            module.__dict__["_rmlab_flat"] = True
            wrap_forward(module, functools.partial(attention_forward, module=module, places=places))
    chosen: list[str] = []
    for name, module in layers[-1].named_modules():
        if "_rmlab_flat" in module.__dict__:
            module.__dict__["_rmlab_places"] = places
        inside = any(name.startswith(f"{outer}.") for outer in chosen)
        if name.rsplit(".", 1)[-1] in OF_ATTENTION | OF_LAYER and not inside:
            chosen.append(name)
            wrap_forward(module, functools.partial(only_places, places=places))
    return places


def only_places(forward: Any, *args: Any, places: Places) -> Any:
    """A module's output at `places.read` and zeros at all other tokens; where that is None, its whole output."""
    if places.read is None:
        return forward(*args)
    few = forward(*(x.index_select(-2, places.read) for x in args))  # (1, T, d), in OPT (T, d)
    return few.new_zeros(*args[0].shape[:-1], few.shape[-1]).index_copy(-2, places.read, few)


# ---- frozen lower layers ----


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
