"""Data sets of rows -> data sets of token trees, with a line of counts and a disk cache."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, Value

from rmlab.data import Comparison, Tokenizer
from rmlab.data.cache import code, digest, kept, once, quiet, tokenizer_fingerprint, uncached
from rmlab.data.columns import BATCH, head, read_row, read_rows, rows_of, where_of
from rmlab.data.config import Options
from rmlab.data.counts import report_and_keep
from rmlab.data.drafts import Numbered, refuse_row, to_trees
from rmlab.data.extra import Numbers, names_of, refuse_other_widths
from rmlab.data.labels import refuse_unstated_code
from rmlab.data.render import refuse_dated_template
from rmlab.data.rows import COLUMNS, check_columns, decisive, to_comparison
from rmlab.data.trees import FEATURES, Trees
from rmlab.data.workers import MANY, map_rows
from rmlab.messages import UserError, first_line, say
from rmlab.upstream import fingerprint


def check_rows(dataset: Dataset, name: str, options: Options) -> None:
    """Read every row once, without a tokenizer, so that a bad one is named before any model loads.

    Of many rows on disk it is remembered that they were good.
    """
    dataset = unformatted(dataset)
    check_first_rows(dataset, name)

    def read() -> Iterator[tuple[Mapping[str, Numbers], str]]:
        for comparison, _, place in comparisons(read_rows(dataset), itertools.count(), name, options):
            refuse_row(comparison, place, options)
            yield comparison.columns, place

    def check() -> None:
        refuse_other_widths(read())

    if dataset.cache_files and len(dataset) > MANY:
        asked = options.identical, options.empty, options.columns, options.complete
        once(digest([code(), fingerprint(dataset), *asked]), check)
    else:
        check()


def check_first_rows(dataset: Dataset | IterableDataset, name: str) -> None:
    """UserError for a set that is empty, of columns that are no format, or that says its prompts twice.

    And for labels in a code that may be read the wrong way round: over all rows, or the first ones of a stream.
    """
    first = next(iter(read_rows(head(dataset), 1)), None)
    if first is None:
        raise UserError(f"{name}: the dataset is empty")
    check_columns(first, name)
    column = decisive(first)
    if column in ("label", "votes"):
        labels = itertools.chain.from_iterable(listed(row, column) for row in read_rows(head(dataset)))
        refuse_unstated_code(labels, name, column)
    rows = list(itertools.islice(read_rows(head(dataset), 50), 50))
    if all(says_twice(to_comparison(row, where_of(name, n))) for n, row in enumerate(rows)):
        raise UserError(
            f"{name}: the responses already start with the prompt, which would be said twice; hide the column with "
            "data.columns.prompt=null (in Python: dataset.remove_columns('prompt'))"
        )


def tell_unread(first: Mapping[str, Any], name: str, options: Options) -> None:
    """A line where no prompt is read and the first row has other texts, one of which may be it."""
    comparison = to_comparison(first, where_of(name, 0))
    read = COLUMNS | {column for column, _ in options.columns}
    unread = sorted(k for k, v in first.items() if k not in read and isinstance(v, str | list) and v)
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
    value = row.get(column)
    return value if isinstance(value, list) else [value]


def tokenize(
    dataset: Dataset | IterableDataset,
    tokenizer: Tokenizer,
    options: Options,
    name: str = "train",
    cache_dir: Path | None = None,
    num_proc: int | None = None,
    subset: str = "",
) -> Trees:
    """Token trees of a data set in any accepted row format (already tokenised ones are returned as they are).

    With a `cache_dir` the result is kept under a key of content, tokenizer and options, written atomically.
    Prints one line of counts. Raises UserError for bad rows, and when nothing is left.

    Args:
        num_proc: processes, on which nothing but the time depends; None: as many as the set is worth.
        subset: of rows that name none.
    """
    if is_tokenized(dataset):
        refuse_other_columns(dataset, name, options)
        return unformatted(dataset)
    dataset = unformatted(dataset)
    refuse_dated_template(tokenizer, {**options.template, "tools": None})
    told: dict[str, Any] = {
        "batched": True, "with_indices": True, "remove_columns": dataset.column_names, "features": FEATURES,
        "fn_kwargs": {"tokenizer": tokenizer, "options": options, "name": name, "subset": subset},
    }  # fmt: skip
    check_first_rows(dataset, name)
    tell_unread(read_row(next(iter(dataset))), name, options)
    if isinstance(dataset, IterableDataset):
        say(f"{name}: streaming; rows are tokenised and filtered as they come, and not compared with other sets")
        return dataset.map(tree_batch, batch_size=1, **told).filter(lambda row: not row["dropped"])
    key = digest([code(), fingerprint(dataset), tokenizer_fingerprint(tokenizer), asdict(options), subset])
    told |= {"batch_size": BATCH, "new_fingerprint": key, "desc": f"tokenise {name}"}
    made = functools.partial(map_rows, dataset, tree_table, num_proc, **told)
    trees = None
    if cache_dir is not None:
        trees = kept(Path(cache_dir) / key, functools.partial(map_into, made), "tokens")
    return report_and_keep(mapped(made, name) if trees is None else trees, name, options)


def map_into(made: Callable[..., Dataset], folder: Path) -> dict[str, Any]:
    """`Dataset.map` into that folder, a file per process. What `datasets` keeps, it trusts whatever became of it."""
    made(cache_file_name=str(folder / "trees.arrow"), load_from_cache_file=False)
    return {}


def mapped(made: Callable[[], Dataset], name: str) -> Dataset:
    """`Dataset.map`, which writes to the disk where the rows lie there. UserError naming the place if it is full."""
    try:
        return made()
    except OSError as error:
        raise UserError(
            f"{name}: its tokens cannot be written to the cache of `datasets` ({first_line(error)}); free some space "
            "or set HF_DATASETS_CACHE to another folder"
        ) from error


def refuse_other_columns(trees: Trees, name: str, options: Options) -> None:
    """UserError for token trees that were made without the columns that the loss reads, or with others."""
    first = next(iter(trees), None) if options.columns else None
    if first is not None and (first.get("read") or []) != names_of(options.columns):
        names = ", ".join(column for column, _ in options.columns)
        raise UserError(f"{name}: the loss reads {names}, which its token trees were made without; tokenise it anew")


def unformatted(dataset: Any) -> Any:
    """Its rows as Python values, whatever `set_format` asked for."""
    given = getattr(dataset, "format", None)
    return dataset if given is not None and given["type"] is None else dataset.with_format(None)


def is_tokenized(dataset: Dataset | IterableDataset) -> bool:
    """Whether the rows are token trees already: they have a column `suffixes`."""
    return "suffixes" in (getattr(dataset, "column_names", None) or [])


def tree_batch(
    rows: Mapping[str, list[Any]], indices: list[int], tokenizer: Tokenizer, options: Options, name: str, subset: str
) -> dict[str, list[Any]]:
    """The columns of the token trees of some rows, for `Dataset.map`."""
    trees = to_trees(comparisons(rows_of(rows), indices, name, options), tokenizer, options)
    columns = {column: [getattr(tree, column) for tree in trees] for column in FEATURES}
    return {**columns, "subset": [tree.subset or subset for tree in trees]}


def tree_table(rows: Mapping[str, list[Any]], indices: list[int], **told: Any) -> pa.Table:
    """The same as a table of Arrow, in which `datasets` writes it down as it is."""
    return pa.Table.from_pydict(tree_batch(rows, indices, **told), schema=FEATURES.arrow_schema)


def comparisons(
    rows: Iterable[Mapping[str, Any]], indices: Iterable[int], name: str, options: Options | None = None
) -> Iterator[Numbered]:
    """(comparison, place in the set, how errors name it) of rows as they were read. UserError for a bad one."""
    for row, index in zip(rows, indices, strict=False):
        place = where_of(name, index)
        yield to_comparison(row, place, options), index, place


def numbered(trees: Trees) -> Trees:
    """Token trees with their position as `index`, by which duplicates are dropped after gathering."""
    if "index" in (trees.column_names or []):
        return trees
    if isinstance(trees, IterableDataset):
        features = Features({**FEATURES, "index": Value("int64")})
        return trees.map(lambda row, index: {**row, "index": index}, with_indices=True, features=features)
    with quiet(), uncached():
        return trees.add_column("index", np.arange(len(trees)))
