"""A head of rmlab on the disk, beside the weights of its model: what it is, and all that it holds.

In `model/` of a run stands what plain transformers computes: the one linear layer that gives the same rewards, where
the head folds into one. Where it does not, the weights are those of the head, whose size plain transformers refuses.
Checkpoints hold the head as it is trained. The files here are what rmlab restores it from in either case.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rmlab import heads
from rmlab.messages import UserError, first_line, say
from rmlab.model.config import ModelConfig
from rmlab.model.head import base_of, head_of, install, last_linear

ABOUT = "rmlab_head.json"
WEIGHTS = "rmlab_head.weights"  # safetensors, but not by that name: servers load every file that is called so
LINEAR: Mapping[str, Any] = {"linear": {}}


@dataclass(frozen=True)
class SavedHead:
    """What rmlab_head.json holds."""

    kind: str
    options: dict[str, Any]
    names: list[str]  # (D,) of its outputs

    @property
    def config(self) -> dict[str, Any]:
        """As `model.head` has it."""
        return {self.kind: self.options}


def saved_head(config: ModelConfig) -> SavedHead | None:
    """Of a local folder or hub name; None where the head is the architecture's own. UserError for a damaged file."""
    try:
        about = config.checkpoint_file(ABOUT) if config.path is not None else {}
    except UserError:  # as for adapters: loading the model will say what is wrong
        about = {}
    if not about:
        return None
    try:
        saved = SavedHead(**about)
    except TypeError as error:
        raise UserError(f"model.path: {config.path}/{ABOUT} is not what was written: {first_line(error)}") from error
    if saved.kind not in heads.HEADS.names():
        raise UserError(
            f"model.path: {config.path} has the head `{saved.kind}`, which nothing registers here; install the package "
            "that does, or import its module first"
        )
    return saved


def outputs_of(config: ModelConfig) -> Sequence[str]:
    """(D,) names of the outputs of the head that a model of this config has.

    UserError for an unknown head, and for options that it lacks.
    """
    if config.head is not None:
        return heads.outputs_of(config.head or LINEAR)
    saved = saved_head(config)
    return heads.Head.names if saved is None else saved.names


def config_of(model: nn.Module) -> dict[str, Any]:
    """The head of a model as `model.head` has it."""
    head = head_of(model)
    return dict(LINEAR) if head is None else {head.kind: dict(head.options)}


# ---- writing ----


def write_about(place: Path, model: nn.Module) -> None:
    """rmlab_head.json, where the head is one of rmlab's."""
    head = head_of(model)
    if head is not None:
        about = SavedHead(head.kind, dict(head.options), list(head.names))
        (place / ABOUT).write_text(json.dumps(asdict(about), indent=2) + "\n", encoding="utf-8")


def write_head(place: Path, model: PreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """The same, and the head's own weights. state: of the whole model."""
    if head_of(model) is not None:
        write_about(place, model)
        whole = {
            name: tensor.detach().cpu().clone().contiguous() for name, tensor in state_of_head(model, state).items()
        }
        save_file(whole, place / WEIGHTS)


def state_of_head(model: PreTrainedModel, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a state that is the head's, by names inside it."""
    prefix = f"{last_linear(model)[0]}."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def save_with_head(
    model: PreTrainedModel, place: str | Path, state_dict: dict[str, Tensor] | None = None, **options: Any
) -> None:
    """`save_pretrained` of a model with a head of rmlab: as it is trained, with the head's files."""
    state = dict(model.state_dict() if state_dict is None else state_dict)
    type(model).save_pretrained(model, place, state_dict={**state}, **options)  # which empties it
    write_head(Path(place), model, state)


def save_folded(model: PreTrainedModel, place: Path, state_dict: dict[str, Tensor] | None = None) -> bool:
    """The same for plain transformers: its head the one linear layer with the same rewards.

    False where there is none, and a line says so; the weights are then as they are trained.
    """
    state = dict(model.state_dict() if state_dict is None else state_dict)
    layer = folded_layer(model, state)
    if layer is None:
        kind = next(iter(config_of(model)))
        say(f"{place}: its head `{kind}` is no linear layer; plain transformers refuses it, rmlab.RewardModel loads it")
        save_with_head(model, place, state)
        return False
    prefix = f"{last_linear(model)[0]}."
    plain = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    plain |= {f"{prefix}{name}": tensor for name, tensor in layer.items()}
    type(model).save_pretrained(model, place, state_dict=plain)
    write_head(place, model, state)
    return True


@torch.no_grad()
def folded_layer(model: PreTrainedModel, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Weights of the architecture's own layer with the rewards of the head; None where there are none.

    From the state, for the weights of a sharded model are not all here.
    """
    own = state_of_head(model, state)
    copy = heads.build_head(config_of(model), own["weight"].shape[1])
    copy.load_state_dict(own)
    weight = copy.folded()
    if weight is None:
        return None
    had_bias = last_linear(model)[1].had_bias
    return {"weight": weight.clone(), **({"bias": weight.new_zeros(1)} if had_bias else {})}


# ---- reading ----


def restore(model: PreTrainedModel, config: ModelConfig, saved: SavedHead) -> None:
    """Put the head of a saved model on it. UserError where its weights are not there, or do not fit."""
    take(model, saved.config, "default")
    file = config.place_of(WEIGHTS)
    if file is None:
        raise UserError(f"model.path: {config.path} holds no {WEIGHTS}, which are those of its head; copy them there")
    try:
        head_of(model).load_state_dict(load_file(file))  # type: ignore[union-attr]
    except (RuntimeError, OSError) as error:
        raise UserError(f"model.path: {file} is not of this model's head: {first_line(error)}") from error


def take(model: PreTrainedModel, config: Mapping[str, Any], how: str | float) -> list[str]:
    """`install`, and saving that writes the head's files; for `linear` no more."""
    new = install(model, config, how)
    vars(model).pop("save_pretrained", None)
    if head_of(model) is not None:
        vars(model)["save_pretrained"] = partial(save_with_head, model)
    return new


def settle(model: PreTrainedModel, wanted: Mapping[str, Any], how: str | float, trained: bool) -> list[str]:
    """Make the head of a loaded model the wanted one; names of weights that are new. `trained`: it has been.

    What folds into one layer goes on as `linear`; any other head begins anew. A line tells either.
    """
    now = config_of(model)
    if now == wanted:
        return []
    (kind,), (wanted_kind,) = now, wanted
    layer = folded_layer(model, model.state_dict()) if wanted_kind == "linear" else None
    new = take(model, wanted, how)
    if layer is not None:
        last_linear(model)[1].load_state_dict(layer)
        say(f"model.head: the head `{kind}` goes on as one linear layer with the same rewards")
        return []
    if trained:
        say(f"model.head: the trained head `{kind}` does not fit `{wanted_kind}`, which begins anew")
    return new


def same_head(model: nn.Module, wanted: Mapping[str, Any] | None) -> bool:
    """Whether the head of a model is the wanted one, or None is wanted."""
    return wanted is None or config_of(base_of(model)) == dict(wanted or LINEAR)
