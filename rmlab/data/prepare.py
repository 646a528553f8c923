"""Data sets of rows -> data sets of token trees, with a line of counts and a disk cache."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Features, IterableDataset, Value

from rmlab.data import Comparison, Tokenizer
from rmlab.data.cache import code, digest, quiet, save_atomically, tokenizer_fingerprint
from rmlab.data.columns import head, read_row
from rmlab.data.config import Options
from rmlab.data.labels import refuse_unstated_code
from rmlab.data.render import refuse_dated_template
from rmlab.data.rows import COLUMNS, check_columns, decisive, to_comparison
from rmlab.data.trees import FEATURES, Trees, refuse_identical, to_tree
from rmlab.files import damage, remove
from rmlab.messages import UserError, first_line, say
from rmlab.upstream import fingerprint


def where(name: str, index: int) -> str:
    """How errors name a row: `train row 17 (counting from 0)`."""
    return f"{name} row {index} (counting from 0)"


def check_rows(dataset: Dataset, name: str, options: Options) -> None:
    """Read every row once, without a tokenizer, so that a bad one is named before any model loads."""
    dataset = unformatted(dataset)
    check_first_rows(dataset, name)
    for index, row in enumerate(dataset):
        refuse_identical(to_comparison(read_row(row), where(name, index)), where(name, index), options)


def check_first_rows(dataset: Dataset | IterableDataset, name: str) -> None:
    """UserError for a set that is empty, of columns that are no format, or that says its prompts twice.

    And for labels in a code that may be read the wrong way round: over all rows, or the first ones of a stream.
    """
    first = next((read_row(row) for row in head(dataset)), None)
    if first is None:
        raise UserError(f"{name}: the dataset is empty")
    check_columns(first, name)
    column = decisive(first)
    if column in ("label", "votes"):
        refuse_unstated_code(itertools.chain.from_iterable(listed(row, column) for row in head(dataset)), name, column)
    rows = [read_row(row) for row in itertools.islice(head(dataset), 50)]
    if all(says_twice(to_comparison(row, where(name, n))) for n, row in enumerate(rows)):
        raise UserError(
            f"{name}: the responses already start with the prompt, which would be said twice; hide the column with "
            "data.columns.prompt=null (in Python: dataset.remove_columns('prompt'))"
        )


def tell_unread(first: Mapping[str, Any], name: str) -> None:
    """A line where no prompt is read and the first row has other texts, one of which may be it."""
    comparison = to_comparison(first, where(name, 0))
    unread = sorted(k for k, v in first.items() if k not in COLUMNS and isinstance(v, str | list) and v)
    if unread and not comparison.prompt and not comparison.tokenised:
        say(
            f"warning: {name}: no prompt is read, nor what is in {', '.join(unread)}; if the prompt is there, say so: "
            "data.columns.prompt=NAME"
        )


def says_twice(comparison: Comparison) -> bool:
    """Whether all responses, as text, begin with the prompt; white space around is nothing."""
    prompt = comparison.prompt
    if not isinstance(prompt, str) or not prompt.strip():
        return False
    return all(response.lstrip().startswith(prompt.strip()) for response in comparison.responses)


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
        return unformatted(dataset)
    dataset = unformatted(dataset)
    refuse_dated_template(tokenizer, {**options.template, "tools": None})
    tree = functools.partial(tree_row, tokenizer=tokenizer, options=options, name=name)
    told: dict[str, Any] = {"with_indices": True, "remove_columns": dataset.column_names, "features": FEATURES}
    check_first_rows(dataset, name)
    tell_unread(read_row(next(iter(dataset))), name)
    if isinstance(dataset, IterableDataset):
        say(f"{name}: streaming; rows are tokenised and filtered as they come, and not compared with other sets")
        return dataset.map(tree, **told).filter(lambda row: not row["dropped"])
    key = digest([code(), fingerprint(dataset), tokenizer_fingerprint(tokenizer), asdict(options)])
    told |= {"num_proc": num_proc, "new_fingerprint": key, "desc": f"tokenise {name}"}
    if cache_dir is None:
        return report_and_keep(mapped(dataset, tree, name, **told), name)
    place = Path(cache_dir) / key
    trees = whole_entry(place)
    if trees is None:
        # What `datasets` keeps, it trusts whatever has become of it.
        trees = mapped(dataset, tree, name, load_from_cache_file=False, **told)
        save_atomically(trees, place)
    return report_and_keep(trees, name)


def whole_entry(place: Path) -> Dataset | None:
    """The token trees that are kept there; None if there are none. A damaged entry is removed, with a line."""
    if not place.exists():
        return None
    wrong = damage(place)
    if wrong is None:
        return cast(Dataset, datasets.load_from_disk(str(place)))
    say(f"{place} is damaged ({wrong}); it is made anew")
    remove(place)
    return None


def mapped(dataset: Dataset, tree: Callable[..., dict[str, Any]], name: str, **told: Any) -> Dataset:
    """`Dataset.map`, which writes to the disk where the rows lie there. UserError naming the place if it is full."""
    try:
        return dataset.map(tree, **told)
    except OSError as error:
        raise UserError(
            f"{name}: its tokens cannot be written to the cache of `datasets` ({first_line(error)}); free some space "
            "or set HF_DATASETS_CACHE to another folder"
        ) from error


def unformatted(dataset: Any) -> Any:
    """Its rows as Python values, whatever `set_format` asked for."""
    given = getattr(dataset, "format", None)
    return dataset if given is not None and given["type"] is None else dataset.with_format(None)


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


def advice(dropped: Mapping[str, int], cut: int) -> str:
    """What to do where every row was dropped; cut: how many of those that are identical were truncated."""
    overlong, identical = dropped.get("overlong", 0), dropped.get("identical", 0)
    if cut and cut >= identical / 2:
        return "what the responses differ in was cut off; raise data.max_length"
    if overlong >= identical:
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
        todo = advice(dropped, sum(trees["truncated"]))
        raise UserError(f"{name}: nothing is left of {len(trees)} rows: {dict(dropped)}; {todo}")
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
