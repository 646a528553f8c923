"""What frozen layers compute, computed once and kept on disk: dozens of ablation arms in the time of one.

With the head alone to train that is one vector per response; with the last layers to train, what enters the first of
them, one vector per token. Valid as long as nothing below changes: no dropout there, no parameter that is trained.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from rmlab.data.cache import code
from rmlab.data.prepare import numbered
from rmlab.data.trees import TokenTree
from rmlab.files import remove, scratch_of, stamp, sync
from rmlab.messages import first_line, say
from rmlab.model.dropout import dropouts
from rmlab.model.layers import first_trained_layer, layers_of
from rmlab.scoring.batch import Batch, Flat
from rmlab.scoring.collator import PreferenceCollator
from rmlab.scoring.features import Features, damage_of, forget, load
from rmlab.scoring.flat import flat_rows
from rmlab.scoring.proof import plan_of, prove
from rmlab.upstream import fingerprint, version_of

ROOMS = Path(__file__).parent, Path(__file__).parent.parent / "model", Path(__file__).parent.parent / "data"


class FeatureCache:
    """Data sets with what frozen layers make of them, kept in `folder` as long as one fits `budget_gb`."""

    def __init__(self, folder: str | None, budget_gb: float) -> None:
        self.folder, self.budget_gb = folder, budget_gb
        # By fingerprint and state: hashing the weights of a large model takes a while.
        self.sets: dict[tuple[object, ...], Dataset] = {}

    def add_to(
        self, trees: Dataset, model: PreTrainedModel, collator: PreferenceCollator, accelerator: Accelerator
    ) -> Dataset:
        """Token trees with their vectors, or as they are: where nothing is frozen, or the vectors would not fit.

        The layout of the collator has been proved for the model, or is proved on the first batch of a sharded one.
        """
        if self.folder is None or not self.budget_gb or not applies(model):
            return trees
        changes = sum(version_of(tensor) for _, tensor in frozen_tensors(model))
        state = fingerprint(trees), first_trained_layer(model), changes
        if state not in self.sets:
            self.sets[state] = self._with_vectors(numbered(trees), model, collator, accelerator)
        return self.sets[state]

    def _with_vectors(
        self, trees: Dataset, model: PreTrainedModel, collator: PreferenceCollator, accelerator: Accelerator
    ) -> Dataset:
        size = count_bytes(model, trees, collator)
        if size > self.budget_gb * 1e9:
            say(
                f"frozen layers: what they compute takes {size / 1e9:.2g} GB, more than "
                f"feature_cache_gb={self.budget_gb:g} (run.feature_cache_gb), so it is computed anew every time"
            )
            return trees
        precision = f"{accelerator.device.type} {accelerator.mixed_precision}"
        place = Path(str(self.folder)) / key(model, trees, collator.layout, precision)
        model.to(accelerator.device)
        with accelerator.local_main_process_first():
            wrong = damage_of(place)
            if wrong and place.with_suffix(".json").exists():
                say(f"{place.with_suffix('.bin')} is damaged ({wrong}); it is computed anew")
            if wrong and not compute(model, trees, place, collator, accelerator):
                return trees
        features = load(place, trees)
        wrong = what_is_wrong(features, model, trees, collator, accelerator)
        if wrong is not None:
            say(f"frozen layers: computed anew every time, because {wrong}")
            accelerator.wait_for_everyone()  # all have read what one now removes
            if accelerator.is_local_main_process:
                forget(place)
            return trees
        return trees.with_transform(features.add_to)


def per_token(model: PreTrainedModel) -> bool:
    """Whether some layers are trained, so that the vectors of all tokens are needed."""
    return first_trained_layer(model) < len(layers_of(model))


def frozen_tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that what enters the first trained layer depends on."""
    layers = layers_of(model)
    above = {id(t) for layer in layers[first_trained_layer(model) :] for t in (*layer.parameters(), *layer.buffers())}
    base = getattr(model, model.base_model_prefix)
    for name, tensor in (*base.named_parameters(), *base.named_buffers()):
        if not tensor.requires_grad and id(tensor) not in above:
            yield name, tensor


def key(model: PreTrainedModel, trees: Dataset, layout: str, precision: str) -> str:
    """A hash of everything that the vectors depend on: frozen weights, tokens, layout, precision and code."""
    first = first_trained_layer(model)
    settings = [layout, precision, first, transformers.__version__, code(*ROOMS)]
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
def vectors(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(R, d) or (T, d) what the frozen layers make of a flat batch; `model` is in eval mode."""
    assert isinstance(batch.tokens, Flat)
    if not per_token(model):
        return flat_rows(model, batch.tokens)
    entered: list[Tensor] = []

    def look(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append(args[0] if args else kwargs["hidden_states"])

    hook = layers_of(model)[first_trained_layer(model)].register_forward_pre_hook(look, with_kwargs=True)
    try:
        flat_rows(model, batch.tokens)
    finally:
        hook.remove()
    return entered[0][0]


def applies(model: PreTrainedModel) -> bool:
    """Whether there are frozen layers below everything that is trained, and no dropout."""
    return first_trained_layer(model) > 0 and not any(p > 0 for _, p in dropouts(model))


def what_is_wrong(
    features: Features, model: PreTrainedModel, trees: Dataset, collator: PreferenceCollator, accelerator: Accelerator
) -> str | None:
    """None if rewards from the vectors of a few comparisons are those of their tokens."""
    few = [TokenTree.of(trees[n]) for n in range(min(4, len(trees)))]
    found = torch.cat([features.of(tree.index) for tree in few]).to(accelerator.device)
    autocast = accelerator.autocast if accelerator.mixed_precision != "no" else None
    return prove(model, collator.batch(few).to(accelerator.device), collator.pad_token_id, autocast, found).wrong


def compute(
    model: PreTrainedModel, trees: Dataset, place: Path, collator: PreferenceCollator, accelerator: Accelerator
) -> bool:
    """Compute and write the vectors of a set, and say so. False, with a line, where they cannot be written."""
    started, training = time.time(), model.training
    model.eval()
    try:
        with accelerator.autocast():
            write(place, model, trees, collator, accelerator.device)
    except OSError as error:
        say(f"warning: {place.with_suffix('.bin')} cannot be written ({first_line(error)}); computed anew every time")
        return False
    finally:
        model.train(training)
    what = "tokens" if per_token(model) else "responses"
    say(
        f"frozen layers: computed once for the {what} of {len(trees):,} comparisons, "
        f"{place.with_suffix('.bin').stat().st_size / 1e6:,.0f} MB, "
        f"{time.time() - started:.0f} s; kept in {place.parent}"
    )
    return True


def count_bytes(model: PreTrainedModel, trees: Dataset, collator: PreferenceCollator) -> int:
    """What the vectors of a data set come to, a little less where responses branch late."""
    tokens = per_token(model)
    count = sum(collator.computed([tree]) if tokens else len(tree.suffixes) for tree in map(TokenTree.of, trees))
    width = model.config.get_text_config().hidden_size
    return count * width * next(iter(layers_of(model)[0].parameters())).element_size()


def write(
    place: Path, model: PreTrainedModel, trees: Dataset, collator: PreferenceCollator, device: torch.device
) -> None:
    """Keep the vectors batch by batch; the description is written last, atomically."""
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_of(place)
    try:
        keep(place, scratch, model, trees, collator, device)
    finally:
        remove(scratch)


def keep(
    place: Path,
    scratch: Path,
    model: PreTrainedModel,
    trees: Dataset,
    collator: PreferenceCollator,
    device: torch.device,
) -> None:
    """`write`, through a scratch file."""
    budget = 2048 if device.type == "cpu" else 16384  # caches are small there, and fresh memory is slow
    offsets, shape, dtype = [0], [0, 0], torch.float32
    with scratch.open("wb") as file, tqdm(total=len(trees), desc="frozen layers") as progress:
        for few in batches_of(map(TokenTree.of, trees), budget):
            batch = collator.batch(few)
            part = vectors(model, batch.to(device))
            file.write(part.contiguous().view(torch.uint8).cpu().numpy().tobytes())
            offsets += [offsets[-1] + n for n in accumulate(per_comparison(batch, per_token(model)))]
            shape, dtype = [shape[0] + len(part), part.shape[1]], part.dtype
            progress.update(len(batch))
    about = {
        "shape": shape,
        "dtype": str(dtype).removeprefix("torch."),
        "offsets": offsets,
        "per_token": per_token(model),
        "stamp": stamp(scratch),
    }
    sync(scratch)
    os.replace(scratch, place.with_suffix(".bin"))
    scratch.write_text(json.dumps(about), encoding="utf-8")
    sync(scratch)
    os.replace(scratch, place.with_suffix(".json"))


def per_comparison(batch: Batch, tokens: bool) -> list[int]:
    """How many responses, or tokens of the flat row, each comparison of a batch has."""
    prompts = batch.prompt.tolist()
    if not tokens:
        return [prompts.count(c) for c in range(len(batch))]
    plan = plan_of(batch)
    ends = [0] * len(batch)
    for c, chain in zip(prompts, plan.responses, strict=True):
        ends[c] = max(ends[c], plan.chains[chain].end)
    return [end - start for start, end in pairwise([0, *ends])]


def batches_of(trees: Iterator[TokenTree], budget: int) -> Iterator[Sequence[TokenTree]]:
    """The whole set in order, in batches of at most about `budget` tokens."""
    batch: list[TokenTree] = []
    tokens = 0
    for tree in trees:
        if batch and tokens + tree.tokens > budget:
            yield batch
            batch, tokens = [], 0
        batch.append(tree)
        tokens += tree.tokens
    yield batch
