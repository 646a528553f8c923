"""One model whose weights are the mean of several models' (WARM, Rame et al. 2401.12187).

It costs as much as one model, and follows its members' mean reward where their weights are near each other: where they
have grown from the same first weights, the head's included. That is measured, not believed: matrices of models that
grew apart are at right angles.
"""

import argparse
import contextlib
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rmlab.files import file_hash, read, scratch_of
from rmlab.messages import UserError, say
from rmlab.model.identity import model_folder, template_of_run
from rmlab.model.reference import REFERENCE

if TYPE_CHECKING:
    from torch import Tensor

ALIKE = 0.5  # cosine: of matrices that grew from the same it is above 0.9, of those that were drawn apart it is 0
HEAD, HEAD_ABOUT = "rmlab_head.weights", "rmlab_head.json"  # see model/head_files.py, which imports torch
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
TOKENIZER = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
# Keys of config.json that change nothing of what is computed.
NOTES = {"_name_or_path", "transformers_version", "torch_dtype", "dtype"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `rmlab-lab average`."""
    parser.add_argument("model", nargs="+", help="run directories, saved models, adapters or hub names: two at least")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder to be made")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the code that the models bring")


def run(options: argparse.Namespace) -> None:
    """Write the mean."""
    average_weights(options.model, options.out, options.trust_remote_code)


def average_weights(models: Sequence[str | Path], place: str | Path, trust_remote_code: bool = False) -> None:
    """Write a folder for plain transformers with the mean of all weights; adapters are merged first.

    In the memory of one model. UserError for fewer than two models, for other architectures, tokenizers or chat
    templates than the first one's, and for weights that did not grow from the same first ones; a warning where only
    the head's did not.
    """
    place, names = Path(place), [str(model) for model in models]
    if len(names) < 2:
        raise UserError("give two models at least, whose weights are to be averaged")
    if place.exists():
        raise UserError(f"{place} is there already; give the name of a folder to be made")
    place.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.absolute().parent, prefix=".rmlab-") as scratch:
        folders = [whole(name, Path(scratch) / str(number), trust_remote_code) for number, name in enumerate(names)]
        refuse_unlike(names, folders)
        out = scratch_of(place)
        try:
            shutil.copytree(folders[0], out, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", REFERENCE))
            tell_apart(names, write_means(names, folders, out))
            finished = folded(out, Path(scratch) / "folded", trust_remote_code)
            write_origin(finished, names)
            finished.rename(place)
        finally:
            shutil.rmtree(out, ignore_errors=True)
    say(f"{place}: the mean of {len(names)} models")


def whole(name: str, scratch: Path, trust_remote_code: bool) -> Path:
    """Where the weights of a model lie, all of them; changes and adapters are laid over their base in `scratch`."""
    from rmlab.model.export import whole_model

    folder = Path(model_folder(name)).expanduser()
    if (folder / INDEX).exists() or (folder / WHOLE).exists():
        return folder
    whole_model(str(folder) if folder.is_dir() else name, scratch, trust_remote_code)
    return scratch


def folded(folder: Path, scratch: Path, trust_remote_code: bool) -> Path:
    """The model with what plain transformers reads of its head made anew from the head: means do not fold, heads do."""
    from rmlab.model.export import whole_model

    if not (folder / HEAD_ABOUT).exists():
        return folder
    whole_model(str(folder), scratch, trust_remote_code)
    return scratch


# ---- what may be averaged ----


def refuse_unlike(names: Sequence[str], folders: Sequence[Path]) -> None:
    """UserError for a model that differs from the first in its architecture, its tokenizer or its chat template."""
    wanted = [described(name, folder) for name, folder in zip(names, folders, strict=True)]
    for name, found in zip(names[1:], wanted[1:], strict=True):
        for what, value in found.items():
            if value != wanted[0][what]:
                raise UserError(f"{name} has another {what} than {names[0]}; only models that share it can be averaged")
    if variables := template_of_run(names[0]):
        say(f"the runs' chat template has variables, which the mean must be given: {variables}")


def described(name: str, folder: Path) -> dict[str, object]:
    """What models must have in common, by the name that a sentence has for it."""
    config = {key: value for key, value in read(folder / "config.json").items() if key not in NOTES}
    files = {file: file_hash(folder / file) for file in TOKENIZER if (folder / file).exists()}
    return {
        "architecture": [config, {tensor: place.shape for tensor, place in tensors_of(folder).items()}],
        "head": read(folder / HEAD_ABOUT),
        "tokenizer": files,
        "chat template": read(folder / "tokenizer_config.json").get("chat_template"),  # where older models keep it
        "set of variables of the chat template": template_of_run(name),
    }


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: in which file of the folder, under which name."""

    file: str
    name: str
    shape: tuple[int, ...]


def tensors_of(folder: Path) -> dict[str, Place]:
    """Tensor -> where it is; those of a head's own file under names of their own."""
    from safetensors import safe_open

    found = {}
    for file in [*sorted(folder.glob("*.safetensors")), *folder.glob(HEAD)]:
        before = f"{HEAD}." if file.name == HEAD else ""
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                found[before + name] = Place(file.name, name, tuple(weights.get_slice(name).get_shape()))
    return found


# ---- the mean ----


@dataclass
class Nearness:
    """How near a model's matrices are to the first model's: of its body, and of its head."""

    products: dict[str, "Tensor"] = field(default_factory=dict)  # part -> (3,) <a, b>, <a, a>, <b, b>
    same_body: bool = True  # bit for bit

    def add(self, part: str, first: "Tensor", other: "Tensor") -> None:
        """Of a tensor of that part, body or head, in float64."""
        import torch

        self.same_body &= part == "head" or torch.equal(first, other)
        if first.ndim > 1:
            a, b = first.flatten(), other.flatten()
            self.products[part] = self.products.get(part, torch.zeros(3)) + torch.stack([a @ b, a @ a, b @ b])

    def cosine(self, part: str) -> float:
        """1 for the same direction, and where there is nothing to compare."""
        both, one, other = self.products.get(part, [1.0, 1.0, 1.0])
        return float(both / (one * other) ** 0.5) if one * other > 0 else 1.0


def write_means(names: Sequence[str], folders: Sequence[Path], out: Path) -> list[Nearness]:
    """Files of weights as the first model has them, a file in memory at a time; how near the others are to it."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    found = [tensors_of(folder) for folder in folders]
    body, nearness = body_of(found[0]), [Nearness() for _ in names]
    with contextlib.ExitStack() as stack:
        opened = {
            (folder, file): stack.enter_context(safe_open(folder / file, "pt"))
            for folder, each in zip(folders, found, strict=True)
            for file in sorted({place.file for place in each.values()})
        }
        for file in sorted({place.file for place in found[0].values()}):
            means = {}
            for tensor, place in found[0].items():
                if place.file == file:
                    each = [(folder, all_of[tensor]) for folder, all_of in zip(folders, found, strict=True)]
                    values = [opened[folder, one.file].get_tensor(one.name) for folder, one in each]
                    part = "body" if tensor.startswith(body) else "head"
                    means[place.name] = mean_of(tensor, names, values, part, nearness)
            save_file(means, out / file, metadata={"format": "pt"})
    return nearness


def mean_of(
    tensor: str, names: Sequence[str], values: Sequence["Tensor"], part: str, nearness: Sequence[Nearness]
) -> "Tensor":
    """In the type of the first, summed in float64, where the mean of equal numbers is that number."""
    first = values[0]
    if not first.is_floating_point():
        for name, value in zip(names, values, strict=True):
            if not value.equal(first):
                raise UserError(f"{name} has another {tensor} than {names[0]}, which holds no numbers to average")
        return first
    one = first.double()
    total = one.clone()
    for value, near in zip(values[1:], nearness[1:], strict=True):
        other = value.double()
        near.add(part, one, other)
        total += other
    return (total / len(values)).to(first.dtype)


def body_of(tensors: dict[str, Place]) -> str:
    """The beginning of the names of the body's tensors: of most numbers; the head's are elsewhere."""
    sizes = Counter[str]()
    for name, place in tensors.items():
        sizes[name.partition(".")[0]] += math.prod(place.shape)
    return f"{sizes.most_common(1)[0][0]}."


def tell_apart(names: Sequence[str], nearness: Sequence[Nearness]) -> None:
    """UserError for a body that grew from other first weights, a warning for such a head on a body that was trained."""
    for name, near in zip(names[1:], nearness[1:], strict=True):
        if near.cosine("body") < ALIKE:
            raise UserError(
                f"{name} did not grow from the same first weights as {names[0]} (the cosine of their matrices is "
                f"{near.cosine('body'):.2f}), so that their mean is no model; average runs on one pretrained model"
            )
        if near.cosine("head") < ALIKE and not near.same_body:
            say(
                f"warning: the heads of {names[0]} and {name} point apart (cosine {near.cosine('head'):.2f}), which "
                "makes the mean worse than its members; begin all runs with the same head: model.init_from=RUN of one "
                "that trained the head alone, as WARM does, or model.head_init=zero"
            )


def write_origin(out: Path, names: Sequence[str]) -> None:
    """What the model card says of it."""
    card = out / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else "# A reward model\n"
    members = "\n".join(f"* {Path(name).name}" for name in names)
    card.write_text(
        f"{text}\nIts weights are the mean of those of {len(names)} models:\n\n{members}\n", encoding="utf-8"
    )
