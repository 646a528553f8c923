"""Data sets of rows -> data sets of token trees, with a line of counts and a disk cache."""

import functools
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Features, IterableDataset, Value

from rmlab.data import Tokenizer
from rmlab.data.cache import code, digest, quiet, save_atomically, tokenizer_fingerprint
from rmlab.data.columns import read_row
from rmlab.data.config import Options
from rmlab.data.labels import refuse_unstated_code
from rmlab.data.render import refuse_dated_template
from rmlab.data.rows import check_columns, refuse_reserved, to_comparison
from rmlab.data.trees import FEATURES, Trees, refuse_identical, to_tree
from rmlab.files import damage, remove
from rmlab.messages import UserError, say
from rmlab.upstream import fingerprint


def where(name: str, index: int) -> str:
    """How errors name a row: `train row 17 (counting from 0)`."""
    return f"{name} row {index} (counting from 0)"


def check_rows(dataset: Dataset, name: str, options: Options) -> None:
    """Read every row once, without a tokenizer, so that a bad one is named before any model loads."""
    dataset = dataset.with_format(None)
    check_first_rows(dataset, name)
    for index, row in enumerate(dataset):
        refuse_identical(to_comparison(read_row(row), where(name, index)), where(name, index), options)


def check_first_rows(dataset: Dataset, name: str) -> None:
    """UserError for a set that is empty, of columns that are no format, or that says its prompts twice.

    And, over all its rows, for labels in a code that may be read the wrong way round.
    """
    if len(dataset) == 0:
        raise UserError(f"{name}: the dataset is empty")
    first = read_row(dataset[0])
    check_columns(first, name)
    for column in ("label", "votes"):
        if column in first:
            refuse_unstated_code(itertools.chain.from_iterable(listed(row, column) for row in dataset), name)
    rows = [read_row(row) for row in dataset.select(range(min(50, len(dataset))))]
    for row in rows:
        prompt, sides = row.get("prompt"), (row.get("chosen"), row.get("rejected"))
        if not isinstance(prompt, str) or not prompt or not all(str(side).startswith(prompt) for side in sides):
            return
    raise UserError(
        f"{name}: chosen and rejected already start with the prompt, which would be said twice; hide the column with "
        "data.columns.prompt=null (in Python: dataset.remove_columns('prompt'))"
    )


def listed(row: Mapping[str, Any], column: str) -> list[Any]:
    """The labels of a row: one, or several."""
    value = read_row(row).get(column)
    return value if isinstance(value, list) else [value]


def tokenize(
    dataset: Dataset | IterableDataset,
    tokenizer: Tokenizer,
    options: Options,
    name: str = "train",
    cache_dir: Path | None = None,
    num_proc: int | None = None,
) -> Trees:
    """Token trees of a data set in any accepted row format (already tokenised ones are returned as they are).

    With a `cache_dir` the result is kept under a key of content, tokenizer and options, written atomically.
    Prints one line of counts. Raises UserError for bad rows, and when nothing is left.
    """
    if is_tokenized(dataset):
        return dataset
    dataset = dataset.with_format(None)
    refuse_reserved(options.template, "data.chat_template_kwargs")
    refuse_dated_template(tokenizer, {**options.template, "tools": None})
    tree = functools.partial(tree_row, tokenizer=tokenizer, options=options, name=name)
    told: dict[str, Any] = {"with_indices": True, "remove_columns": dataset.column_names, "features": FEATURES}
    if isinstance(dataset, IterableDataset):
        say(f"{name}: streaming; rows are tokenised and filtered as they come, and not compared with other sets")
        return dataset.map(tree, **told).filter(lambda row: not row["dropped"])
    check_first_rows(dataset, name)
    key = digest([code(), fingerprint(dataset), tokenizer_fingerprint(tokenizer), asdict(options)])
    place = None if cache_dir is None else Path(cache_dir) / key
    if place is not None and place.exists():
        wrong = damage(place)
        if wrong is None:
            return report_and_keep(datasets.load_from_disk(str(place)), name)
        say(f"{place} is damaged ({wrong}); it is made anew")
        remove(place)
    trees = dataset.map(tree, num_proc=num_proc, new_fingerprint=key, desc=f"tokenise {name}", **told)
    if place is not None:
        save_atomically(trees, place)
    return report_and_keep(trees, name)


def is_tokenized(dataset: Dataset | IterableDataset) -> bool:
    """Whether the rows are token trees already: they have a column `suffixes`."""
    return "suffixes" in (getattr(dataset, "column_names", None) or [])


def tree_row(row: Mapping[str, Any], index: int, tokenizer: Tokenizer, options: Options, name: str) -> dict[str, Any]:
    """The columns of a row's token tree, for `Dataset.map`."""
    place = where(name, index)
    return to_tree(to_comparison(read_row(row), place), index, place, tokenizer, options).row()


def numbered(trees: Trees) -> Trees:
    """Token trees with their position as `index`, by which duplicates are dropped after gathering."""
    if "index" in (trees.column_names or []):
        return trees
    if isinstance(trees, IterableDataset):
        features = Features({**FEATURES, "index": Value("int64")})
        return trees.map(lambda row, index: {**row, "index": index}, with_indices=True, features=features)
    with quiet():
        return trees.add_column("index", np.arange(len(trees)))


def advice(dropped: Mapping[str, int]) -> str:
    """What to do where every row was dropped."""
    if dropped.get("overlong", 0) >= dropped.get("identical", 0):
        return "raise data.max_length or set data.overlong=truncate"
    return (
        "the better and the worse response are the same tokens: are the columns the right ones, and does the chat "
        "template show what they differ in, such as tool calls?"
    )


def report_and_keep(trees: Dataset, name: str) -> Dataset:
    """Print the line of counts and return the rows that stay."""
    dropped = Counter(reason for reason in trees["dropped"] if reason)
    kept = trees.select([i for i, reason in enumerate(trees["dropped"]) if not reason])
    if len(kept) == 0:
        raise UserError(f"{name}: nothing is left of {len(trees)} rows: {dict(dropped)}; {advice(dropped)}")
    table = kept.with_format("arrow")[:]  # Python lists of all tokens take seconds
    probability, strength = (pc.list_flatten(table[column]).to_numpy() for column in ("probability", "strength"))
    prefix, count = (pc.list_value_length(table[column]).to_numpy() for column in ("prefix", "suffixes"))
    lengths = np.repeat(prefix, count) + pc.list_value_length(pc.list_flatten(table["suffixes"])).to_numpy()
    say(
        f"{name}: {len(kept):,} comparisons of {len(trees):,} rows; {len(lengths):,} responses, "
        f"{len(probability):,} preferences, {(probability == 0.5).sum():,} ties; dropped "
        f"{dropped['overlong']:,} overlong, {sum(trees['identical']):,} identical; truncated "
        f"{sum(kept['truncated']):,}; {lengths.sum():,} tokens, longest {lengths.max():,}"
    )
    negative = (strength < 0).sum()
    if negative:
        say(f"warning: {name}: {negative:,} preferences have a negative strength: their better side is rated lower")
    return kept
