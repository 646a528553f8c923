"""Datasets of rows -> datasets of token trees, with a line of counts and a disk cache."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset, Features, IterableDataset, List, Value

from rmlab.data import Comparison
from rmlab.data.render import encode, refuse_dated_template, special_tokens
from rmlab.data.rows import check_columns, identical, to_comparison
from rmlab.messages import UserError, say

# A token tree: the ids that all K responses share, then one suffix each. `dropped` says why a row is left out.
TREE = Features(
    {
        "prefix": List(Value("int32")),
        "suffixes": List(List(Value("int32"))),
        "better": List(Value("int32")),
        "worse": List(Value("int32")),
        "strength": List(Value("float32")),
        "probability": List(Value("float32")),
        "gold": List(Value("float64")),
        "id": Value("string"),
        "prompt_id": Value("string"),
        "subset": Value("string"),
        "lengths": List(Value("int32")),  # tokens of each response without its prompt
        "length": Value("int32"),  # tokens of the longest response with its prompt, for grouping by length
        "implicit": Value("bool"),  # the prompt is only known as what the responses share
        "identical": Value("int32"),  # preferences left out because their two responses are the same tokens
        "dropped": Value("string"),
        "truncated": Value("bool"),
    }
)


@dataclass(frozen=True)
class Options:
    """How rows become tokens. Everything here is part of the cache key."""

    max_length: int | None = 1024  # tokens per response, prompt included
    overlong: str = "drop"  # drop | truncate | error
    identical: str = "drop"  # drop | error: rows whose better and worse response are the same
    template: dict[str, Any] = field(default_factory=dict)  # chat template variables for every row


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as Python values; sources keep JSON rows as one text column, see `sources.load`."""
    return json.loads(row["json"]) if "json" in row else dict(row)


def check_rows(dataset: Dataset, name: str, options: Options) -> None:
    """Read every row once, without a tokenizer, so that a bad one is named before any model loads."""
    if len(dataset) == 0:
        raise UserError(f"{name}: the dataset is empty")
    check_columns(read_row(dataset[0]), name)
    refuse_repeated_prompts(dataset, name)
    for index, row in enumerate(dataset):
        comparison = to_comparison(read_row(row), where(name, index))
        refuse_identical(comparison, index, name, options)


def refuse_repeated_prompts(dataset: Dataset, name: str) -> None:
    """UserError when text answers start with their own prompt throughout: it would be said twice."""
    rows = [read_row(row) for row in dataset.select(range(min(50, len(dataset))))]
    for row in rows:
        prompt, sides = row.get("prompt"), (row.get("chosen"), row.get("rejected"))
        if not isinstance(prompt, str) or not prompt or not all(str(side).startswith(prompt) for side in sides):
            return
    raise UserError(
        f"{name}: chosen and rejected already start with the prompt, which would be said twice; hide the column with "
        "data.columns.prompt=null (in Python: dataset.remove_columns('prompt'))"
    )


def where(name: str, index: int) -> str:
    return f"{name} row {index} (counting from 0)"


def refuse_identical(comparison: Comparison, index: int, name: str, options: Options) -> None:
    if options.identical == "error" and identical(comparison):
        raise UserError(
            f"{where(name, index)}: the better and the worse response are identical; remove the row or set "
            "data.identical=drop"
        )


def tokenize(
    dataset: Dataset | IterableDataset,
    tokenizer: Any,
    options: Options,
    name: str = "train",
    cache_dir: Path | None = None,
    num_proc: int | None = None,
) -> Any:
    """Token trees of a dataset in any accepted row format (already tokenised ones are returned as they are).

    With a `cache_dir` the result is kept under a key of content, tokenizer and options, written atomically.
    Prints one line of counts. Raises UserError for bad rows, and when nothing is left.
    """
    if is_tokenized(dataset):
        return dataset
    refuse_dated_template(tokenizer, {**options.template, "tools": None})
    tree = functools.partial(to_tree, tokenizer=tokenizer, options=options, name=name)
    if isinstance(dataset, IterableDataset):
        say(f"{name}: streaming; rows are tokenised and filtered as they come, and not compared with other sets")
        trees = dataset.map(tree, with_indices=True, remove_columns=dataset.column_names, features=TREE)
        return trees.filter(lambda row: not row["dropped"])
    if len(dataset) == 0:
        raise UserError(f"{name}: the dataset is empty")
    check_columns(read_row(dataset[0]), name)
    refuse_repeated_prompts(dataset, name)
    key = digest([code(), dataset._fingerprint, tokenizer_fingerprint(tokenizer), asdict(options)])
    place = None if cache_dir is None else Path(cache_dir) / key
    if place is not None and place.exists():
        trees = datasets.load_from_disk(str(place))
    else:
        trees = dataset.map(
            tree,
            with_indices=True,
            remove_columns=dataset.column_names,
            features=TREE,
            num_proc=num_proc,
            new_fingerprint=key,
            desc=f"tokenise {name}",
        )
        if place is not None:
            save_atomically(trees, place)
    return report_and_keep(trees, name)


def is_tokenized(dataset: Any) -> bool:
    return "suffixes" in (getattr(dataset, "column_names", None) or [])


def to_tree(row: Mapping[str, Any], index: int, tokenizer: Any, options: Options, name: str) -> dict[str, Any]:
    """One row's token tree. Chosen and rejected are encoded whole; the prefix is their longest common one."""
    comparison = to_comparison(read_row(row), where(name, index))
    refuse_identical(comparison, index, name, options)
    template = {**options.template, **comparison.template}
    if comparison.tokenised:
        tokens: list[list[int]] = list(comparison.responses)
    else:
        tokens = [encode(tokenizer, comparison.prompt, r, template) for r in comparison.responses]
    dropped, truncated, limit = "", False, options.max_length
    lengths = response_lengths(comparison, tokens, tokenizer, template)
    if limit is not None and max(map(len, tokens)) > limit:
        if options.overlong == "error":
            raise UserError(
                f"{where(name, index)}: {max(map(len, tokens))} tokens, data.max_length is {limit}; raise it or set "
                "data.overlong=drop or truncate"
            )
        if options.overlong == "truncate":
            tokens, truncated = truncate(tokens, limit, len(special_tokens(tokenizer)[0])), True
        else:
            dropped = "overlong"
    same = [p for p in comparison.preferences if p.probability != 0.5 and tokens[p.better] == tokens[p.worse]]
    preferences = [p for p in comparison.preferences if p not in same]
    if not dropped and not preferences:
        dropped = "identical"
    shared = len(common_prefix(tokens))
    return {
        "prefix": tokens[0][:shared],
        "suffixes": [t[shared:] for t in tokens],
        "better": [p.better for p in preferences],
        "worse": [p.worse for p in preferences],
        "strength": [p.strength for p in preferences],
        "probability": [p.probability for p in preferences],
        "gold": comparison.gold or [],
        "id": comparison.id if comparison.id is not None else str(index),
        "prompt_id": prompt_id(comparison),
        "subset": comparison.subset or "",
        "lengths": lengths,
        "length": max(map(len, tokens)),
        "implicit": not comparison.prompt,
        "identical": len(same),
        "dropped": dropped,
        "truncated": truncated,
    }


def response_lengths(
    comparison: Comparison, tokens: list[list[int]], tokenizer: Any, template: dict[str, Any]
) -> list[int]:
    """Tokens of each response: all of them less those of the prompt, or of the shared prefix where it is implicit."""
    if isinstance(comparison.prompt, str) and comparison.prompt:
        prompt = len(tokenizer(comparison.prompt, add_special_tokens=False, verbose=False)["input_ids"])
        prompt += len(special_tokens(tokenizer)[0])
    elif comparison.prompt:
        text = tokenizer.apply_chat_template(comparison.prompt, tokenize=False, **template)
        prompt = len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    else:
        prompt = len(common_prefix(tokens))
    return [max(len(t) - prompt, 0) for t in tokens]


def truncate(tokens: list[list[int]], limit: int, before: int) -> list[list[int]]:
    """Cut the oldest shared prompt tokens (after `before` special ones), the same for all responses of a row.

    Where the prompt is not enough, the longest responses lose their end, but never their last token (EOS): it is
    where the score is read.
    """
    before = min(before, limit - 1)
    room = max(0, len(common_prefix(tokens)) - before)
    cut = min(room, max(map(len, tokens)) - limit)
    tokens = [t[:before] + t[before + cut :] for t in tokens]
    return [t if len(t) <= limit else [*t[: limit - 1], t[-1]] for t in tokens]


def common_prefix(sequences: Sequence[Any]) -> Any:
    return os.path.commonprefix(list(sequences))  # noqa: RUF071  (of any sequences: texts, token ids, messages)


def prompt_id(comparison: Comparison) -> str:
    """A hash of the prompt; for implicit prompts, of the longest text (or ids) that the responses share."""
    prompt: Any = comparison.prompt or common_prefix(comparison.responses) or list(comparison.responses)
    return digest(prompt)


@functools.cache
def code(package: Path = Path(__file__).parent) -> str:
    """A hash of the source of a package, this one: what is cached is never that of other code."""
    files = sorted(package.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A hash of what the tokenizer does to text, whatever it was last called with (padding, truncation)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state: Any = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), str(tokenizer.init_kwargs)]
    if backend is not None:
        state = {k: v for k, v in json.loads(backend.to_str()).items() if k not in ("padding", "truncation")}
    return digest([state, str(tokenizer.chat_template), str(tokenizer.special_tokens_map)])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of `datasets` for what takes no time."""
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def numbered(trees: Any) -> Any:
    """Token trees with their position as `index`, by which duplicates are dropped after gathering."""
    if "index" in (trees.column_names or []):
        return trees
    if isinstance(trees, IterableDataset):
        features = Features({**TREE, "index": Value("int64")})
        return trees.map(lambda row, index: {**row, "index": index}, with_indices=True, features=features)
    with quiet():
        return trees.add_column("index", np.arange(len(trees)))


def save_atomically(trees: Dataset, place: Path) -> None:
    """Two runs of a sweep may build the same cache at once: each writes its own copy, the first rename wins."""
    scratch = place.with_name(f"{place.name}.{os.getpid()}")
    with quiet():
        trees.save_to_disk(str(scratch))
    try:
        os.rename(scratch, place)
    except OSError:
        shutil.rmtree(scratch)


def report_and_keep(trees: Dataset, name: str) -> Dataset:
    """Print the line of counts and return the rows that stay."""
    dropped = Counter(reason for reason in trees["dropped"] if reason)
    kept = trees.select([i for i, reason in enumerate(trees["dropped"]) if not reason])
    if len(kept) == 0:
        raise UserError(
            f"{name}: nothing is left of {len(trees)} rows: {dict(dropped)}; raise data.max_length or set "
            "data.overlong=truncate"
        )
    probabilities = [p for row in kept["probability"] for p in row]
    lengths = [len(p) + len(s) for p, ss in zip(kept["prefix"], kept["suffixes"], strict=True) for s in ss]
    say(
        f"{name}: {len(kept):,} comparisons of {len(trees):,} rows; {len(lengths):,} responses, "
        f"{len(probabilities):,} preferences, {sum(p == 0.5 for p in probabilities):,} ties; dropped "
        f"{dropped['overlong']:,} overlong, {sum(trees['identical']):,} identical; truncated "
        f"{sum(kept['truncated']):,}; {sum(lengths):,} tokens, longest {max(lengths):,}"
    )
    negative = sum(s < 0 for row in kept["strength"] for s in row)
    if negative:
        say(f"warning: {name}: {negative:,} preferences have a negative strength: their better side is rated lower")
    return kept
