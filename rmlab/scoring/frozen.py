"""What frozen layers compute, computed once and kept on disk: dozens of ablation arms in the time of one.

With the head alone to train that is one vector per response; with the last layers to train, what enters the first of
them, one vector per token. Valid as long as nothing below changes: no dropout there, no parameter that is trained.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.utils import send_to_device
from torch import Tensor, nn
from tqdm.auto import tqdm

from rmlab.data.prepare import code, numbered
from rmlab.messages import UserError, say
from rmlab.scoring.flat import after_layers, first_trained_layer, flat_rows, layers_of
from rmlab.scoring.layout import dropouts, prove


@dataclass(frozen=True)
class Features:
    """Vectors of a data set on disk: those of its n-th comparison are [offsets[n], offsets[n + 1])."""

    vectors: Tensor  # (N, d), a memory map
    offsets: list[int]
    per_token: bool
    places: dict[int, int]  # n by `index`: sets may come in another order than they are numbered in

    def add_to(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """A transform for datasets: token trees with their vectors as `hidden` (per token) or `rows`."""
        if "index" in rows and "suffixes" in rows:
            places = [self.places[index] for index in rows["index"]]
            slices = [self.vectors[self.offsets[n] : self.offsets[n + 1]] for n in places]
            rows["hidden" if self.per_token else "rows"] = slices
        return rows


class Cache:
    """Data sets with what frozen layers make of them, kept in `folder` as long as one fits `budget_gb`."""

    def __init__(self, folder: str | None, budget_gb: float) -> None:
        self.folder, self.budget_gb = folder, budget_gb
        self.sets: dict[Any, Any] = {}  # by fingerprint and state: hashing the weights of a large model takes a while

    def add_to(self, trees: Any, model: Any, collator: Any, accelerator: Any) -> Any:
        """Token trees with their vectors, or as they are: where nothing is frozen, or the vectors would not fit."""
        if self.folder is None or not self.budget_gb or not applies(model):
            return trees
        changes = sum(tensor._version for _, tensor in frozen_tensors(model))
        state = trees._fingerprint, first_trained_layer(model), changes
        if state not in self.sets:
            self.sets[state] = self._with_vectors(numbered(trees), model, collator, accelerator)
        return self.sets[state]

    def _with_vectors(self, trees: Any, model: Any, collator: Any, accelerator: Any) -> Any:
        size = count_bytes(model, trees, collator)
        if size > self.budget_gb * 1e9:
            say(
                f"frozen layers: what they compute takes {size / 1e9:.2g} GB, more than "
                f"feature_cache_gb={self.budget_gb:g} (run.feature_cache_gb), so it is computed anew every time"
            )
            return trees
        precision = f"{accelerator.device.type} {accelerator.mixed_precision}"
        place = Path(str(self.folder)) / key(model, trees, collator.layout, precision)
        with accelerator.local_main_process_first():
            if not place.with_suffix(".json").exists():
                model.to(accelerator.device)
                if not compute(model, trees, place, collator, accelerator.autocast):
                    return trees
        return trees.with_transform(load(place, trees).add_to)


def freeze(model: Any, last_layers: int) -> None:
    """Leave nothing to train but the head, the last layers (and norms after them), and what the checkpoint lacked."""
    base, layers = getattr(model, model.base_model_prefix), layers_of(model)
    if last_layers > len(layers):
        raise UserError(
            f"train_layers={last_layers} is more than the model's {len(layers)} layers (model.train_layers)"
        )
    trained = {id(p) for layer in layers[len(layers) - last_layers :] for p in layer.parameters()}
    new = getattr(model, "rmlab_new_modules", [])
    for name, parameter in base.named_parameters():
        late = last_layers > 0 and after_layers(name)
        parameter.requires_grad_(id(parameter) in trained or late or name.split(".")[0] in new)


def per_token(model: Any) -> bool:
    """Whether some layers are trained, so that the vectors of all tokens are needed."""
    return first_trained_layer(model) < len(layers_of(model))


def frozen_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that what enters the first trained layer depends on."""
    layers = layers_of(model)
    above = {id(t) for layer in layers[first_trained_layer(model) :] for t in (*layer.parameters(), *layer.buffers())}
    base = getattr(model, model.base_model_prefix)
    for name, tensor in (*base.named_parameters(), *base.named_buffers()):
        if not tensor.requires_grad and id(tensor) not in above:
            yield name, tensor


def key(model: Any, trees: Any, layout: str, precision: str) -> str:
    """A hash of everything that the vectors depend on: frozen weights, tokens, layout, precision and code."""
    first = first_trained_layer(model)
    settings = [layout, precision, first, transformers.__version__, code(Path(__file__).parent)]
    modules = [module for layer in layers_of(model)[:first] for module in layer.modules()]
    if any(hasattr(module, "active_adapters") for module in modules):  # a frozen adapter: its scale is no weight
        adapters = {name: config.to_dict() for name, config in getattr(model, "peft_config", {}).items()}
        active = [module.active_adapters for module in modules if hasattr(module, "active_adapters")]
        settings.append(f"{sorted(adapters.items())} {active}")
    digest = hashlib.sha256(f"{settings} {model.config.to_json_string()}".encode())
    for name, tensor in frozen_tensors(model):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes())
    for prefix, suffixes in zip(trees["prefix"], trees["suffixes"], strict=True):
        for ids in (prefix, *suffixes):
            digest.update(np.asarray([len(ids), *ids], dtype=np.int64).tobytes())
    return f"features-{digest.hexdigest()[:16]}"


@torch.no_grad()
def vectors(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """(R, d) or (T, d) what the frozen layers make of a flat batch; `model` is in eval mode."""
    given = [batch[k] for k in ("input_ids", "position_ids", "plan", "read")]
    if not per_token(model):
        return flat_rows(model, *given)
    entered: list[Tensor] = []

    def look(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append(args[0] if args else kwargs["hidden_states"])

    hook = layers_of(model)[first_trained_layer(model)].register_forward_pre_hook(look, with_kwargs=True)
    try:
        flat_rows(model, *given)
    finally:
        hook.remove()
    return entered[0][0]


def applies(model: Any) -> bool:
    """Whether there are frozen layers below everything that is trained, and no dropout."""
    return first_trained_layer(model) > 0 and not any(p > 0 for _, p in dropouts(model))


def compute(model: Any, trees: Any, place: Path, collator: Any, autocast: Any) -> bool:
    """Compute and write the vectors of a set. False, with a line that says why, if they would be wrong."""
    started, training, device = time.time(), model.training, next(model.parameters()).device
    model.eval()
    try:
        few = send_to_device(collator.batch([trees[n] for n in range(min(4, len(trees)))]), device)
        with torch.autocast(device.type, enabled=False):
            _, wrong = prove(model, few, collator.pad_token_id)
            if wrong is None:
                _, wrong = prove(model, {**few, "features": vectors(model, few)}, collator.pad_token_id)
        if wrong is not None:
            say(f"frozen layers: computed anew every time, because {wrong}")
            return False
        with autocast():
            budget = 2048 if device.type == "cpu" else 16384  # caches are small there, and fresh memory is slow
            write(place, model, batches_of(trees, collator.batch, budget), device, len(trees))
    finally:
        model.train(training)
    what = "tokens" if per_token(model) else "responses"
    say(
        f"frozen layers: computed once for the {what} of {len(trees):,} comparisons, "
        f"{place.with_suffix('.bin').stat().st_size / 1e6:,.0f} MB, "
        f"{time.time() - started:.0f} s; kept in {place.parent}"
    )
    return True


def count_bytes(model: Any, trees: Any, collator: Any) -> int:
    """What the vectors of a data set come to, a little less where responses branch late."""
    tokens = per_token(model)
    count = sum(collator.computed([tree]) if tokens else len(tree["suffixes"]) for tree in trees)
    width = model.config.get_text_config().hidden_size
    return count * width * next(iter(layers_of(model)[0].parameters())).element_size()


def write(place: Path, model: Any, batches: Iterator[dict[str, Any]], device: torch.device, total: int) -> None:
    """Keep the vectors batch by batch; the description is written last, atomically."""
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.with_suffix(f".{os.getpid()}")
    offsets, shape, dtype = [0], [0, 0], torch.float32
    with scratch.open("wb") as file, tqdm(total=total, desc="frozen layers") as progress:
        for batch in batches:
            part = vectors(model, send_to_device(batch, device))
            file.write(part.contiguous().view(torch.uint8).cpu().numpy().tobytes())
            offsets += [offsets[-1] + n for n in accumulate(per_comparison(batch, per_token(model)))]
            shape, dtype = [shape[0] + len(part), part.shape[1]], part.dtype
            progress.update(len(batch["items"]))
    about = {
        "shape": shape,
        "dtype": str(dtype).removeprefix("torch."),
        "offsets": offsets,
        "per_token": per_token(model),
    }
    os.replace(scratch, place.with_suffix(".bin"))
    scratch.write_text(json.dumps(about), encoding="utf-8")
    os.replace(scratch, place.with_suffix(".json"))


def per_comparison(batch: Mapping[str, Any], tokens: bool) -> list[int]:
    """How many responses, or tokens of the flat row, each comparison of a batch has."""
    prompts = batch["prompt"].tolist()
    if not tokens:
        return [prompts.count(c) for c in range(len(batch["items"]))]
    plan = batch["plan"]
    ends = [0] * len(batch["items"])
    for c, chain in zip(prompts, plan.responses, strict=True):
        ends[c] = max(ends[c], plan.chains[chain].end)
    return [end - start for start, end in pairwise([0, *ends])]


def load(place: Path, trees: Any) -> Features:
    """The vectors of a numbered data set as a memory map."""
    about = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    rows, width = about["shape"]
    flat = torch.from_file(str(place.with_suffix(".bin")), False, rows * width, dtype=getattr(torch, about["dtype"]))
    places = {index: n for n, index in enumerate(trees["index"])}
    return Features(flat.view(rows, width), about["offsets"], about["per_token"], places)


def batches_of(trees: Any, collate: Callable[[list[Any]], dict[str, Any]], budget: int) -> Iterator[dict[str, Any]]:
    """The whole set in order, in batches of at most about `budget` tokens."""
    batch: list[Any] = []
    tokens = 0
    for tree in trees:
        more = len(tree["prefix"]) + sum(map(len, tree["suffixes"]))
        if batch and tokens + more > budget:
            yield collate(batch)
            batch, tokens = [], 0
        batch.append(tree)
        tokens += more
    yield collate(batch)
