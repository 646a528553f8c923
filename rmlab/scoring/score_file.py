"""A file of rewards that is made in parts: killed, it goes on where it was, and ends with the same bytes. No torch."""

import contextlib
import gzip
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from rmlab.files import read, replacing, stamp, write_json
from rmlab.messages import UserError, say
from rmlab.metrics.scored import ScoredComparison

PART = 2048  # rows: a whole number of the windows in which rewards are computed, for batches are made in those
OUTPUT = "output_"  # before the name of each output of a head, as in the scores files of runs
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


@dataclass(frozen=True)
class ScoreFile:
    """`path`, its parts in `path`.parts/ until it is finished, and what it was made of in `path`.json.

    inputs: model, data and options, whatever decides its content.
    """

    path: Path
    inputs: Mapping[str, Any]

    def __post_init__(self) -> None:
        """UserError for a name that says no format."""
        if not self.path.name.endswith(SUFFIXES):
            raise UserError(f"{self.path}: rewards are written as one of {', '.join(SUFFIXES)}; call it so")
        if not self.path.absolute().parent.is_dir():
            raise UserError(f"{self.path}: there is no folder {self.path.parent}; make it")

    @property
    def parts(self) -> Path:
        """The folder of what is ready of a file that is not."""
        return self.path.with_name(f"{self.path.name}.parts")

    @property
    def about(self) -> Path:
        """What a finished file was made of."""
        return self.path.with_name(f"{self.path.name}.json")

    def part(self, number: int) -> Path:
        """The file of some PART rows."""
        return self.parts / f"{number:08}.jsonl"

    # ---- before ----

    def is_finished(self, redo: bool) -> bool:
        """Whether it is there, of these inputs. UserError for one that is of others, unless it may be made again."""
        if redo or not self.path.exists():
            return False
        known = read(self.about)
        if known.get("stamp") != stamp(self.path):
            raise UserError(f"{self.path} is there and not what rmlab-score has written; --redo writes over it")
        if other := differences(known.get("inputs", {}), self.inputs):
            raise UserError(f"{self.path} is of {other}; --redo writes over it, -o another name keeps it")
        shutil.rmtree(self.parts, ignore_errors=True)  # of a kill at the very end
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process writes it; where that comes to its end, the parts are gone. UserError for the second."""
        self.parts.mkdir(exist_ok=True)
        lock = FileLock(self.parts / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"{self.path} is being written by another process; wait for it, or stop it") from None
        whole = False
        try:
            yield
            whole = True
        finally:
            lock.release()
            if whole or not any(self.parts.glob("*.jsonl")):  # stopped before its first part it leaves nothing
                shutil.rmtree(self.parts, ignore_errors=True)

    def begun(self) -> int:
        """How many rows are ready, of these inputs; parts of others are removed, with a line."""
        header = self.parts / "header.json"
        try:
            known = read(header)
        except UserError:
            known = {}
        if known and (other := differences(known, self.inputs)):
            say(f"what is in {self.parts} is of {other}; it starts afresh")
        if known != json.loads(json.dumps(dict(self.inputs))):
            for left in (*self.parts.glob("*.jsonl"), *self.parts.glob("*.tmp")):
                left.unlink()
            write_json(header, dict(self.inputs))
        ready = itertools.takewhile(lambda n: is_whole(self.part(n)), itertools.count())
        return PART * sum(1 for _ in ready)

    # ---- writing ----

    def write_part(self, start: int, lines: Sequence[str]) -> None:
        """The rows from `start` on, whole or not at all."""
        with replacing(self.part(start // PART)) as scratch:
            scratch.write_text("".join(lines), encoding="utf-8")

    def finish(self, rows: int) -> None:
        """The file of all parts, which is there when what it was made of stands beside it."""
        files = [self.part(number) for number in range(-(-rows // PART))]
        with replacing(self.path) as scratch:
            if self.path.suffix == ".parquet":
                write_parquet(files, scratch)
            else:
                write_lines(files, scratch, self.path.suffix == ".gz")
            write_json(self.about, {"inputs": dict(self.inputs), "rows": rows, "stamp": stamp(scratch)})


def is_whole(part: Path) -> bool:
    """Whether it is there and holds PART rows; the last one of a file is made again."""
    if not part.exists():
        return False
    with part.open("rb") as stream:
        return sum(1 for _ in stream) == PART


def differences(known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """`another model and other options`; empty where both are the same."""
    now = json.loads(json.dumps(dict(now)))
    words = {"models": "another model", "data": "other data"}
    found = [words.get(key, f"another {key}") for key in now if known.get(key) != now[key]]
    return " and ".join(found)


def line_of(each: Sequence[ScoredComparison], reduced: ScoredComparison, names: Sequence[str] = ()) -> str:
    """A row of the file: id, rewards, of an ensemble what every member says, of a head of several outputs each of them.

    names (D,): of the outputs, output_NAME in the file.
    """
    row: dict[str, Any] = {"id": reduced.id, "rewards": short(reduced.rewards)}
    if len(each) > 1:
        row["members"] = [short(one.rewards) for one in each]
    elif reduced.outputs:
        columns = zip(names, zip(*reduced.outputs, strict=True), strict=True)
        row |= {f"{OUTPUT}{name}": short(values) for name, values in columns}
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def short(rewards: Sequence[float]) -> list[float]:
    """fp32 numbers in no more digits than they have."""
    return [float(str(np.float32(reward))) for reward in rewards]


def write_lines(files: Sequence[Path], place: Path, packed: bool) -> None:
    """One after the other; packed without a time, which would be other bytes each time."""
    with place.open("wb") as plain, contextlib.ExitStack() as stack:
        sink: Any = stack.enter_context(gzip.GzipFile("", "wb", fileobj=plain, mtime=0)) if packed else plain
        for file in files:
            with file.open("rb") as source:
                shutil.copyfileobj(source, sink)


def write_parquet(files: Sequence[Path], place: Path) -> None:
    """Columns id, rewards and, of an ensemble, members, or what else a head returns; a row group per part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files[0].open(encoding="utf-8") as stream:
        names = [*json.loads(stream.readline())]
    rewards = pa.list_(pa.float32())
    types = {"id": pa.string(), "members": pa.list_(rewards)}
    fields = [(name, types.get(name, rewards)) for name in names]
    with pq.ParquetWriter(place, pa.schema(fields)) as writer:
        for file in files:
            with file.open(encoding="utf-8") as lines:  # an id may hold what `splitlines` also ends a line at
                rows = [json.loads(line) for line in lines]
            writer.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)))
