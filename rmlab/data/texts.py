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
from rmlab.files import file_hash, read_seal
from rmlab.messages import UserError, first_line

FEATURES = Features({ROW: Value("string")})
SMALL = 2**24  # bytes of text; reading less again takes no time, and it stays in memory
# Where some rows state it and others do not, these state nothing, as in a table: not a silent 1.0.
STATED = ("margin", "score_chosen", "score_rejected", "probability", "weight")


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


@dataclass
class Seen:
    """What there was to see in rows that were read."""

    rows: int = 0
    stated: Counter[str] = field(default_factory=Counter)  # how many state each of STATED
    content: Any = field(default_factory=xxhash.xxh3_128)  # a hash of their texts

    def add(self, rows: list[Read]) -> None:
        """See some more."""
        self.rows += len(rows)
        self.stated.update(name for row, _ in rows for name in STATED if name in row)
        for _, text in rows:
            self.content.update(text.encode() + b"\n")

    @property
    def partly(self) -> list[str]:
        """What some rows state and others do not."""
        return [name for name in STATED if 0 < self.stated[name] < self.rows]


def texts_of(rows: JsonRows, begun: Iterable[Read]) -> Dataset:
    """The rows as text; if they are many, read from disk as they are needed. Empty if there are none.

    Many are kept in the cache of `datasets`, so that another run need not read all of the files again. begun: `rows`,
    of which one or another may have been looked at. The fingerprint is of the texts alone, whatever code made them.
    """
    seen = Seen()
    batches = batched(itertools.islice(begun, rows.limit), seen)
    first = list(until_large(batches))
    if sum(batch.nbytes for batch in first) > SMALL:
        whole, place = itertools.chain(first, batches), shared() / rows.key()
        found = kept(place, lambda folder: write(whole, seen, folder), "rows")
        if found is not None:
            return Dataset(found.data, info=found.info, fingerprint=digest(read_seal(place)["content"]))
        seen = Seen()  # the disk is full
        first = list(batched(itertools.islice(rows, rows.limit), seen))
    table = pa.Table.from_batches(completed(first, seen.partly), schema=FEATURES.arrow_schema)
    return Dataset(InMemoryTable(table), fingerprint=digest(seen.content.hexdigest()))


def batched(rows: Iterable[Read], seen: Seen) -> Iterator[pa.RecordBatch]:
    """The texts of rows for Arrow; what there is to see in them is in `seen` afterwards."""
    rows = iter(rows)
    while some := list(itertools.islice(rows, BATCH)):
        seen.add(some)
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


def write(batches: Iterable[pa.RecordBatch], seen: Seen, folder: Path) -> dict[str, Any]:
    """The rows in a file of Arrow in the folder; returns what is to be known of it. OSError on a full disk."""
    file = folder / "rows.arrow"
    write_arrow(batches, file)
    if seen.partly:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            write_arrow(completed(stream, seen.partly), folder / "completed.arrow")
        file.unlink()
    return {"content": seen.content.hexdigest()}


def write_arrow(batches: Iterable[pa.RecordBatch], file: Path) -> None:
    """A file as `Dataset.from_file` reads it, one batch in memory at a time."""
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, FEATURES.arrow_schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def completed(batches: Iterable[pa.RecordBatch], names: list[str]) -> Iterable[pa.RecordBatch]:
    """The same rows, with null for those of the names that a row does not state."""
    missing = dict.fromkeys(names)
    if not missing:
        return batches
    return (record(json.dumps({**missing, **json.loads(text)}) for text in batch[ROW].to_pylist()) for batch in batches)
