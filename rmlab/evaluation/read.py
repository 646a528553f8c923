"""Rows of a benchmark: of local files or folders as its authors give them away, or of data sets on the hub."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmlab.data.columns import read_rows, where_of
from rmlab.data.sources import load as load_rows
from rmlab.data.sources import local_files
from rmlab.messages import UserError, did_you_mean

SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\..+")  # how files of a split are named on the hub


@dataclass(frozen=True)
class Part:
    """What a suite reads of a data set on the hub."""

    split: str
    config: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows of one file, or of one part on the hub. label: the path below the folder, or config and split."""

    name: str
    label: str
    rows: list[dict[str, Any]]

    def where(self, index: int) -> str:
        """How errors name the row at `index`."""
        return where_of(self.name, index)

    def need(self, *columns: str) -> None:
        """UserError naming the table and the nearest column, unless every row has all of the columns."""
        for index, row in enumerate(self.rows):
            for column in columns:
                if row.get(column) is None:
                    raise UserError(f"{self.where(index)}: no column {column!r}{did_you_mean(column, map(str, row))}")


def read(path: str | None, *parts: Part) -> list[Table]:
    """A table for each file of a local path, or for each part of a hub data set (or of a `save_to_disk` folder).

    Of a folder of files that are named as on the hub, SPLIT-00000-of-00001.parquet, only the splits of the parts.
    UserError, of data.path, for what is not there, cannot be read or holds no row.
    """
    if path is None:
        raise UserError("data.path is not set; give the files that conf/eval names: data.path=FOLDER")
    files = of_splits(files_of(path), {part.split for part in parts})
    if files:
        root = Path(path).expanduser()
        labels = {file: file.name if file == root else file.relative_to(root).as_posix() for file in files}
        return [table(str(file), label, {"path": str(file)}) for file, label in labels.items()]
    return [part_of(path, part) for part in parts]


def part_of(path: str, part: Part) -> Table:
    """A part of a data set on the hub, or of a saved folder, which has no configs."""
    source: dict[str, Any] = {"path": path, "split": part.split}
    if part.config is not None and not Path(path).expanduser().is_dir():
        source["name"] = part.config
    label = "/".join(filter(None, (part.config, part.split)))
    return table(f"{path} {label}", label, source)


def table(name: str, label: str, source: Mapping[str, Any]) -> Table:
    """The rows that `sources.load` reads."""
    rows = list(read_rows(load_rows(**source)))
    if not rows:
        raise UserError(f"{name} holds no row")
    return Table(name, label, rows)


def files_of(path: str) -> list[Path]:
    """The data files of a local path, however they are split; none for a `save_to_disk` folder or a hub name."""
    place = Path(path).expanduser()
    if not place.is_dir():
        return local_files(path, "train") or []
    if (place / "dataset_info.json").exists() or (place / "dataset_dict.json").exists():
        return []
    names = (".jsonl", ".json", ".parquet")
    files = sorted(f for f in place.rglob("*") if f.name.removesuffix(".gz").endswith(names))
    if not files:
        raise UserError(f"data.path: no {', '.join(names)} file (or .gz of one) in {place}")
    return files


def of_splits(files: list[Path], splits: set[str]) -> list[Path]:
    """Without files of other splits, where files are named as on the hub and some are of these."""
    split_of = {file: shard[1] for file in files if (shard := SHARD.fullmatch(file.name))}
    return [file for file in files if split_of.get(file) in {None, *splits}] if splits & {*split_of.values()} else files


def named(label: str, known: Mapping[str, str], where: str) -> str:
    """The subset of a table: what `known` gives for the word that its label holds, whatever the case of letters.

    UserError naming the table if there is none.
    """
    found = {subset for word, subset in known.items() if word.lower() in label.lower()}
    if len(found) != 1:
        raise UserError(f"{where}: its name tells no subset; name it by one of {', '.join(known)}")
    return found.pop()
