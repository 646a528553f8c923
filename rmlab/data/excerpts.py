"""What is known of the texts of an evaluation set once they are tokens: style, and excerpts for readers.

Not of training rows, which are read as tokens alone.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, List, Value
from datasets.table import InMemoryTable

from rmlab.data import Comparison, Text
from rmlab.data.cache import code, digest, quiet, uncached
from rmlab.data.columns import BATCH, read_rows
from rmlab.data.counts import values
from rmlab.data.prepare import is_tokenized, unformatted
from rmlab.data.rows import to_comparison
from rmlab.data.style import counts
from rmlab.data.trees import Trees, common_prefix
from rmlab.upstream import fingerprint

EXCERPT = 400  # characters
CUT = "\u2026"
FEATURES = Features({"style": List(List(Value("int32"))), "excerpts": List(Value("string"))})


def texts_of(comparison: Comparison) -> tuple[list[list[int]], list[str]]:
    """((K, S) counts of each response in the order of STYLE, (1 + K) excerpts); both empty for rows of token ids.

    The excerpts are the end of the prompt and the beginning of each response. Of rows without a prompt, that is what
    their responses begin with alike, as far as whole words go.
    """
    if comparison.tokenised:
        return [], []
    prompt, responses = said(comparison.prompt), [said(response) for response in comparison.responses]
    if not prompt:
        prompt = shared_prompt(responses)
        responses = [response[len(prompt) :] for response in responses]
    return [counts(response) for response in responses], [ending(prompt), *map(beginning, responses)]


def said(text: Text) -> str:
    """What a reader sees of a text, or of chat messages: their contents and calls of tools; who, if several speak."""
    if isinstance(text, str):
        return text
    several = len(text) > 1
    return "\n\n".join(f"{m['role']}: {message(m)}" if several else message(m) for m in text)


def message(said: Mapping[str, Any]) -> str:
    """The content of a chat message, and the tools that it calls as JSON."""
    parts = [str(said.get("content") or ""), json.dumps(said["tool_calls"]) if said.get("tool_calls") else ""]
    return "\n".join(filter(None, parts))


def shared_prompt(responses: Sequence[str]) -> str:
    """What all of several responses begin with, up to its last white space; empty for one alone."""
    shared = common_prefix(responses) if len(responses) > 1 else ""
    return shared[: max((space.end() for space in re.finditer(r"\s", shared)), default=0)]


def beginning(text: str) -> str:
    """The first EXCERPT characters, without white space around; what is no Unicode is replaced."""
    text = text.strip()
    return encodable(text if len(text) <= EXCERPT else text[:EXCERPT].rstrip() + CUT)


def ending(text: str) -> str:
    """The last of them."""
    text = text.strip()
    return encodable(text if len(text) <= EXCERPT else CUT + text[-EXCERPT:].lstrip())


def encodable(text: str) -> str:
    """The text with a question mark for half of a surrogate pair, which no file takes."""
    return text.encode("utf-8", "replace").decode()


def with_texts(trees: Trees, rows: Dataset | IterableDataset, name: str) -> Trees:
    """The token trees of an evaluation set with FEATURES of the `rows` that they were made of.

    A stream, and rows that are token trees already, stay as they are.
    """
    if not isinstance(trees, Dataset) or not isinstance(rows, Dataset) or is_tokenized(rows):
        return trees
    read = read_rows(unformatted(rows).select(list(values(trees, "place"))))
    table = pa.Table.from_batches(batches(read, name), schema=FEATURES.arrow_schema)
    done = digest(["texts", code(), fingerprint(trees), fingerprint(rows)])
    with quiet(), uncached():
        both = datasets.concatenate_datasets([trees, Dataset(InMemoryTable(table), fingerprint=done)], axis=1)
    return Dataset(both.data, info=both.info, fingerprint=done)


def batches(rows: Iterator[dict[str, Any]], name: str) -> Iterator[pa.RecordBatch]:
    """FEATURES of rows, some at once."""
    while some := list(itertools.islice(rows, BATCH)):
        style, excerpts = zip(*(texts_of(to_comparison(row, name)) for row in some), strict=True)
        yield pa.RecordBatch.from_pydict({"style": style, "excerpts": excerpts}, schema=FEATURES.arrow_schema)
