"""Rows of a file, a folder or the hub one after the other, as they are: none grouped, none left out, none kept."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab.data.cache import digest
from rmlab.data.candidates import to_candidates
from rmlab.data.columns import read_rows, where_of
from rmlab.data.sources import load, local_files
from rmlab.files import file_hash
from rmlab.messages import UserError

if TYPE_CHECKING:
    from datasets import IterableDataset


@dataclass(frozen=True)
class RowStream:
    """Rows, as often as they are asked for.

    identity: a hash of their files and of how they are read; of a data set on the hub of its name. local: not there.
    """

    dataset: "IterableDataset"
    identity: str
    local: bool

    def rows(self, start: int = 0) -> Iterator[Mapping[str, Any]]:
        """From the row at `start` on."""
        return read_rows(self.dataset.skip(start) if start else self.dataset)

    def checked(self, name: str) -> int | None:
        """How many rows there are, all of which can be scored; None on the hub, of which only the first is read.

        UserError for no rows, and for one that cannot be scored.
        """
        count = 0
        for count, row in enumerate(self.rows(), start=1):
            to_candidates(row, where_of(name, count - 1))
            if not self.local:
                return None
        if not count:
            raise UserError(f"{name} holds no row")
        return count


def row_stream(path: str, split: str, columns: Mapping[str, Any]) -> RowStream:
    """The rows of a jsonl, json or parquet file (also .gz), a folder or a hub name. UserError as `sources.load`."""
    dataset: Any = load(path=path, split=split, columns=columns, streaming=True)
    files = local_files(path, split)
    if files == []:  # of `save_to_disk`
        files = sorted(f for f in Path(path).expanduser().rglob("*") if f.is_file())
    content = path if files is None else [file_hash(file) for file in files]
    return RowStream(dataset, digest([content, split, columns]), files is not None)
