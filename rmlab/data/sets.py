"""The sets of a run: mixtures of sources with weights, evaluation sets by name, splits by prompt."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset

from rmlab.data import DATASETS, Tokenizer
from rmlab.data.augment import of_added_rows, refuse_augmentation, rrm
from rmlab.data.cache import digest
from rmlab.data.config import Columns, DataConfig, Options, SourceConfig
from rmlab.data.counts import repeats, tables, values
from rmlab.data.excerpts import with_texts
from rmlab.data.prepare import check_rows, tokenize
from rmlab.data.trees import Trees
from rmlab.messages import UserError, say
from rmlab.upstream import fingerprint


@dataclass(frozen=True)
class Source:
    """The rows of one entry of `data.train` or `data.eval`."""

    name: str
    rows: Dataset | IterableDataset
    weight: float = 1.0
    augment: str | None = None  # what adds rows, see augment.py


@dataclass(frozen=True)
class Rows:
    """All rows of a run, read but not tokenised."""

    train: list[Source]
    eval: list[Source]
    columns: Columns = ()  # what the loss reads of them

    def fingerprints(self) -> dict[str, str | None]:
        """A hash of the rows of each source, by `train/NAME` or `eval/NAME`."""
        parts = {"train": self.train, "eval": self.eval}
        return {f"{part}/{s.name}": fingerprint(s.rows) for part, sources in parts.items() for s in sources}


@dataclass(frozen=True)
class Sets:
    """Token trees to train on, and evaluation sets by name."""

    train: Trees | None
    eval: dict[str, Trees]


def load_rows(config: DataConfig, columns: Columns = ()) -> Rows:
    """The rows of `data.train` and `data.eval`, every one read once: bad ones are a UserError before a model loads.

    columns: what the loss reads. A training row that lacks one is bad; in an evaluation set it is unknown.
    """
    if not config.train:
        raise UserError("data.train names no source; give at least one, as conf/data/files.yaml does")
    train = load_part(config, config.train, "train", reading(config, columns, "train"))
    return Rows(train, load_part(config, config.eval, "eval", reading(config, columns, "eval")), columns)


def reading(config: DataConfig, columns: Columns, part: str) -> Options:
    """How rows of data.train or data.eval (`part`) become tokens, for a loss that reads these columns."""
    return replace(config.options, columns=columns, complete=part == "train")


def load_part(config: DataConfig, specs: Mapping[str, Any], part: str, how: Options | None = None) -> list[Source]:
    """A `Source` per entry of data.train or data.eval (`part`), in their order, each of at most data.limit rows.

    UserError for a bad entry, and for a bad row unless it is of a stream, which is not read here.
    """
    sources = []
    for name, spec in specs.items():
        source = SourceConfig.of(spec, f"data.{part}.{name}", DATASETS.names())
        options = source.options
        if config.limit is not None and "limit" in DATASETS.options(source.source):  # then no more need be read
            options = {"limit": config.limit, **options}
        dataset = DATASETS.build(source.source, options, source.where)()
        if config.limit is not None:
            dataset = dataset.take(config.limit)
        if isinstance(dataset, Dataset):
            check_rows(dataset, name, how or config.options)
        if source.augment:
            if part != "train":
                raise UserError(f"{source.where}.augment: only training rows are augmented; leave it out")
            refuse_augmentation(dataset, source.where)
        sources.append(Source(name, dataset, source.weight, source.augment))
    return sources


def build_sets(
    rows: Rows, config: DataConfig, tokenizer: Tokenizer, cache: Path | None = None, num_proc: int | None = None
) -> Sets:
    """Token trees of all sources, mixed and split.

    Training sources are mixed by weight. Without `data.eval`, `eval_fraction` of the prompts is held out of each
    source before weighting, as the one set `eval`.
    """
    train, held_out = [], []
    how, how_eval = (reading(config, rows.columns, part) for part in ("train", "eval"))
    for source in rows.train:
        subset = source.name if len(rows.train) > 1 else ""
        trees = tokenize(source.rows, tokenizer, how, source.name, cache, num_proc, subset)
        if isinstance(trees, IterableDataset):
            train.append((trees, source.weight))
            continue
        if not rows.eval and config.eval_fraction:
            trees, test = split_by_prompt(trees, config.eval_fraction, config.split_seed)
            held_out.append(with_texts(test, source.rows, source.name))
        if source.augment and isinstance(source.rows, Dataset):
            added = rrm(source.rows.select(list(values(trees, "place"))), source.name, config.split_seed)
            told = of_added_rows(how), f"{source.name} rrm", cache, num_proc, subset
            trees = datasets.concatenate_datasets([trees, tokenize(added, tokenizer, *told)])
        copies = weighted(trees, source.weight, config.split_seed)
        if not len(copies):
            raise UserError(f"data.train.{source.name}.weight={source.weight} leaves none of {len(trees)} comparisons")
        train.append((copies, source.weight))
    mixed = mix(train, config.split_seed)
    if config.max_rows is not None:
        mixed = at_most(mixed, config.max_rows, config.split_seed)
    if held_out:
        sets = {"eval": datasets.concatenate_datasets(held_out)}
    else:
        sets = {
            s.name: with_texts(tokenize(s.rows, tokenizer, how_eval, s.name, cache, num_proc), s.rows, s.name)
            for s in rows.eval
        }
    for name, trees in sets.items():
        tell_duplicates(trees, name)
    return Sets(mixed, sets)


def tell_duplicates(trees: Trees, name: str) -> None:
    """A line where rows of an evaluation set say the same: each of them counts."""
    if isinstance(trees, IterableDataset) or "content" not in trees.column_names:
        return
    again = repeats(np.fromiter(values(trees, "content"), np.int64))[0]
    if len(again):
        say(
            f"note: {name}: {len(again):,} of {len(trees):,} comparisons are duplicates of an earlier one, and count "
            "again in its metrics; data.duplicates=drop leaves them out"
        )


def mix(parts: list[tuple[Trees, float]], seed: int) -> Trees:
    """One training set: concatenated, or for streams interleaved with probabilities proportional to the weights."""
    if len(parts) == 1:
        return parts[0][0]
    if all(isinstance(part, Dataset) for part, _ in parts):
        return datasets.concatenate_datasets([part for part, _ in parts])
    if any(isinstance(part, Dataset) for part, _ in parts):
        raise UserError("data.train mixes streaming and non-streaming sources; set streaming for all or for none")
    total = sum(weight for _, weight in parts)
    shares = [weight / total for _, weight in parts]
    return datasets.interleave_datasets(
        [p for p, _ in parts], probabilities=shares, seed=seed, stopping_strategy="all_exhausted"
    )


def at_most(trees: Trees, rows: int, seed: int) -> Trees:
    """The first `rows` of a random order that does not depend on `rows`: smaller sets are parts of larger ones."""
    if isinstance(trees, IterableDataset):
        return trees.take(rows)
    return trees.shuffle(seed=seed, keep_in_memory=True).select(range(min(rows, len(trees))))


def split_by_prompt(trees: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """(train, eval): a prompt falls wholly on one side, decided by a hash of its text and the seed alone.

    Whatever its system prompt: the same question to two assistants is one.
    """
    if all(values(trees, "implicit")):
        say(
            "warning: no row has a prompt of its own, so each counts as another prompt, and rows of one prompt may "
            "fall on both sides of the split; give a prompt column, messages or data.prompt_separator"
        )
    bound = int(fraction * 2**64)
    held_out = np.fromiter((int(digest([seed, prompt]), 16) < bound for prompt in values(trees, "split_id")), bool)
    train, test = (trees.select(np.flatnonzero(side)) for side in (~held_out, held_out))
    if not len(train) or not len(test):
        raise UserError(
            f"data.eval_fraction={fraction} leaves {len(train)} comparisons to train and {len(test)} to "
            "evaluate on; choose another fraction"
        )
    return train, test


def without_overlap(train: Trees | None, test: Trees, name: str, overlap: str) -> Trees:
    """The evaluation set without training prompts (`drop`), or a UserError if it has any (`error`).

    Streams are not compared: their prompts are not known.
    """
    if overlap == "allow" or not isinstance(train, Dataset) or not isinstance(test, Dataset):
        return test
    seen = pc.unique(pa.concat_arrays([pc.unique(ids) for ids in prompts(train)]))
    found = np.concatenate(
        [np.empty(0, bool), *(pc.is_in(ids, seen).to_numpy(zero_copy_only=False) for ids in prompts(test))]
    )
    shared = np.flatnonzero(found)
    if not len(shared):
        return test
    if overlap == "error":
        raise UserError(
            f"{name}: {len(shared)} of {len(test)} comparisons are on prompts of the training set, the first is row "
            f"{test[int(shared[0])]['id']}; set prompt_overlap=drop to leave them out (allow to keep them)"
        )
    say(f"{name}: left out {len(shared):,} comparisons on training prompts")
    if len(shared) == len(test):
        raise UserError(f"{name}: every prompt is also in the training set; nothing is left to evaluate on")
    return test.select(np.flatnonzero(~found))


def prompts(trees: Dataset) -> Iterator[pa.Array]:
    """Their prompts' ids, in parts."""
    return (table["prompt_id"].combine_chunks() for table in tables(trees.select_columns(["prompt_id"])))


def weighted(trees: Dataset, weight: float, seed: int) -> Dataset:
    """`weight` times the rows: whole copies, then a random part of one."""
    copies, part = divmod(round(weight * len(trees)), len(trees))
    rest = trees.shuffle(seed=seed, keep_in_memory=True).select(range(part))
    return datasets.concatenate_datasets([trees] * copies + [rest])
