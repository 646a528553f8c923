"""A trained model as its changes and a pointer to its base: what many arms on one base need not all hold."""

import copy
import json
from collections.abc import Container
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
import xxhash
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rmlab.messages import UserError
from rmlab.model.config import BASE, Base, ModelConfig

CHANGES = "changes.safetensors"  # no name that plain transformers would load, and fill up with random weights


@dataclass(frozen=True)
class Origin:
    """Where the weights of a model came from when it was loaded, as it remembers in `rmlab_origin`."""

    path: str  # a folder, absolute, or a hub name
    revision: str | None  # as it was given
    own: frozenset[str]  # tensors that are not the base's
    embeddings: int  # rows

    @classmethod
    def of(cls, config: ModelConfig, model: PreTrainedModel, own: list[str]) -> "Origin":
        """From what was loaded by this config; own: see there."""
        folder = Path(str(config.path)).expanduser()
        path = str(folder.resolve()) if folder.is_dir() else str(config.path)
        return cls(path, config.revision, frozenset(own), rows_of(model))


def rows_of(model: PreTrainedModel) -> int:
    """How many tokens it has embeddings of."""
    return cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]


# ---- writing ----


def save_changes(model: PreTrainedModel, place: Path) -> str | None:
    """Write the changes, config.json and base.json to a folder; or nothing, and return in words why that cannot be."""
    origin: Origin | None = vars(model).get("rmlab_origin")
    if origin is None:
        return "its weights are not those of a base model that could be named"
    changed = changes_of(model, origin)
    whole, part = bytes_of(model.state_dict()), bytes_of(changed)
    if part > whole / 2:
        return f"{part / whole:.0%} of it was trained"
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(str(place))
    save_file({name: tensor.detach().cpu().clone() for name, tensor in changed.items()}, place / CHANGES)
    dtype = str(model.dtype).removeprefix("torch.")
    base = Base(origin.path, origin.revision, dtype, hash_of_others(model, changed))
    (place / BASE).write_text(json.dumps(asdict(base), indent=2) + "\n", encoding="utf-8")
    return None


def changes_of(model: PreTrainedModel, origin: Origin) -> dict[str, Tensor]:
    """What was trained, what the base lacks, buffers; the embeddings where tokens were added to them."""
    own = origin.own | trained_weights(model).keys()
    if rows_of(model) != origin.embeddings:
        embeddings = cast(nn.Embedding, model.get_input_embeddings()).weight
        own |= {name for name, p in model.named_parameters(remove_duplicate=False) if p is embeddings}
    return {name: tensor for name, tensor in model.state_dict().items() if name in own}


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of its state but for frozen parameters."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def bytes_of(tensors: dict[str, Tensor]) -> int:
    """All of them together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def hash_of_others(model: nn.Module, changed: Container[str]) -> str:
    """Of the tensors whose names are not among the changed: names, types, shapes and bytes."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        if name not in changed:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


# ---- reading ----


def put_changes(model: PreTrainedModel, file: Path, base: Base) -> list[str]:
    """Lay the changes over a base that was loaded for them; returns their names.

    Each in its own type: a head of fp32 stays that on a body of 16 bits. UserError where the base is another than then.
    """
    changed = load_file(file)
    if not changed.keys() <= model.state_dict().keys() or hash_of_others(model, changed) != base.weights:
        raise UserError(
            f"model.path: {file.parent} holds what was trained on the base model {base.path}, whose weights are other "
            "ones now; bring back those, or the rewards mean nothing"
        )
    model.load_state_dict(changed, strict=False, assign=True)
    return sorted(changed)
