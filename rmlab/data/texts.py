"""Rows of JSON files as a data set of text: read once, and kept on disk where they are many."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import xxhash
from datasets import Dataset, Features, Value
from datasets.table import InMemoryTable

from rmlab.data import ROW
from rmlab.data.cache import code, digest, kept, shared
from rmlab.data.columns import BATCH, as_text, renamed, where_of
from rmlab.data.json_files import read_json
from rmlab.files import file_hash
from rmlab.messages import UserError, first_line

FEATURES = Features({ROW: Value("string")})
SMALL = 2**24  # bytes of text; reading less again takes no time, and it stays in memory
# Where some rows state it and others do not, these state nothing, as in a table: not a silent 1.0.
STATED = ("margin", "score_chosen", "score_rejected", "probability")


Read: TypeAlias = tuple[dict[str, Any], str]  # a row, and the same as JSON


@dataclass(frozen=True)
class JsonRows:
    """Rows of JSON files under rmlab's names, as often as they are asked for."""

    files: list[Path]
    columns: Mapping[str, Any] = field(default_factory=dict)
    separator: str | None = None
    limit: int | None = None  # so many are enough

    def __iter__(self) -> Iterator[Read]:
        """All of them; what needs no renaming keeps the text of its line. UserError for a bad row."""
        read = ((file, n, row, line) for file in self.files for n, (row, line) in enumerate(read_json(file)))
        for file, index, row, line in read:
            if self.columns or self.separator:
                row, line = renamed(row, index, self.columns, self.separator, str(file)), None
            yield row, line or as_text(row, where_of(str(file), index))

    def key(self) -> str:
        """By content: of the files, wherever they lie, and of all that is done to their rows."""
        try:
            content = [[file.suffixes, file_hash(file)] for file in self.files]
        except OSError as error:
            raise UserError(f"data.path: cannot read {first_line(error)}") from error
        return digest([code(), content, self.columns, self.separator, self.limit])


def texts_of(rows: JsonRows, begun: Iterable[Read]) -> Dataset:
    """The rows as text; if they are many, read from disk as they are needed. Empty if there are none.

    Many are kept in the cache of `datasets`, so that another run need not read all of the files again. begun: `rows`,
    of which one or another may have been looked at. The fingerprint is of the texts alone, whatever code made them.
    """
    stated: Counter[str] = Counter()
    batches = batched(itertools.islice(begun, rows.limit), stated)
    first = list(until_large(batches))
    if sum(batch.nbytes for batch in first) > SMALL:
        found = kept(
            shared() / rows.key(), lambda folder: write(itertools.chain(first, batches), stated, folder), "rows"
        )
        if found is not None:
            return found
        stated.clear()  # the disk is full
        first = list(batched(itertools.islice(rows, rows.limit), stated))
    table = pa.Table.from_batches(completed(first, stated), schema=FEATURES.arrow_schema)
    content = xxhash.xxh3_128()
    for text in table[ROW]:
        content.update(text.as_buffer())
        content.update(b"\n")
    return Dataset(InMemoryTable(table), fingerprint=digest(content.hexdigest()))


def batched(rows: Iterable[Read], stated: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The texts of rows for Arrow; in `stated` is counted how many rows there are ("") and state each of STATED."""
    rows = iter(rows)
    while some := list(itertools.islice(rows, BATCH)):
        stated.update(name for row, _ in some for name in ("", *STATED) if not name or name in row)
        yield record(text for _, text in some)


def record(texts: Iterable[str]) -> pa.RecordBatch:
    """Some rows of the data set."""
    return pa.record_batch([pa.array(list(texts), pa.string())], schema=FEATURES.arrow_schema)


def until_large(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The first of them, until they are more than SMALL; all if they are not."""
    size = 0
    for batch in batches:
        yield batch
        size += batch.nbytes
        if size > SMALL:
            return


def write(batches: Iterable[pa.RecordBatch], stated: Counter[str], folder: Path) -> None:
    """The rows in a file of Arrow in the folder. OSError on a full disk."""
    file = folder / "rows.arrow"
    write_arrow(batches, file)
    if partly(stated):
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            write_arrow(completed(stream, stated), folder / "completed.arrow")
        file.unlink()


def write_arrow(batches: Iterable[pa.RecordBatch], file: Path) -> None:
    """A file as `Dataset.from_file` reads it, one batch in memory at a time."""
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, FEATURES.arrow_schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def partly(stated: Counter[str]) -> list[str]:
    """What some rows state and others do not."""
    return [name for name in STATED if 0 < stated[name] < stated[""]]


def completed(batches: Iterable[pa.RecordBatch], stated: Counter[str]) -> Iterable[pa.RecordBatch]:
    """The same rows, with null for what a row does not state and others do."""
    missing = dict.fromkeys(partly(stated))
    if not missing:
        return batches
    return (record(json.dumps({**missing, **json.loads(text)}) for text in batch[ROW].to_pylist()) for batch in batches)
