"""Where rows come from: a file, a folder or a hub name, with its columns renamed to rmlab's."""

import collections
import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rmlab.data import DATASETS
from rmlab.data.cache import code, digest
from rmlab.messages import UserError, did_you_mean, say
from rmlab.upstream import fingerprint

if TYPE_CHECKING:  # imported where rows are read: rmlab's own checks come before
    from datasets import Dataset, IterableDataset

SUFFIXES = (".jsonl", ".json", ".parquet")


@DATASETS.register
def load(
    *,
    path: str | None,
    name: str | None = None,
    split: str = "train",
    revision: str | None = None,
    columns: Mapping[str, Any] | None = None,
    prompt_separator: str | None = None,
    streaming: bool = False,
) -> "Dataset | IterableDataset":
    """Rows of a jsonl/json/parquet file (also .gz), a local folder (of such files, or `save_to_disk`), or a hub name.

    Args:
        columns: rmlab's column name -> yours. A dotted name reads a nested value, a list of names reads several
            (responses, votes) or joins them with a blank line (prompt), null hides a column.
        prompt_separator: cuts chosen and rejected texts after its last occurrence into prompt and response
            ("\\n\\nAssistant:" for hh-rlhf).

    Rows that hold one rated response each (prompt, response, score) are grouped by prompt into K-wise rows.
    Local JSON is kept as text, one row a line: Arrow would unify the types of all rows and fill in nulls.
    """
    if path is None:
        raise UserError("data.path is not set; give a file, a folder or a hub name: data.path=my.jsonl")
    columns = dict(columns or {})
    files = local_files(path)
    if files is None:
        dataset = load_hub(path, name, split, revision, streaming)
    elif files and not streaming and all(is_json(f) for f in files):
        rows = (row for file in files for row in read_json(file))
        return group_rated([rename(row, columns, prompt_separator) for row in rows], path)
    else:
        dataset = load_local(path, files, split, streaming)
    if columns or prompt_separator:
        options = {"columns": columns, "separator": prompt_separator}
        # A fingerprint of our own: that of `datasets` does not change with the code of `rename`.
        new = {} if streaming else {"new_fingerprint": digest([code(), fingerprint(dataset), options])}
        dataset = dataset.map(rename, fn_kwargs=options, remove_columns=dataset.column_names, **new)
    if not streaming and {"prompt", "response", "score"} <= set(dataset.column_names):
        return group_rated(dataset, path)
    return dataset


def local_files(path: str) -> list[Path] | None:
    """The data files at a local path, [] for a `save_to_disk` folder, None for what must be a hub name."""
    place = Path(path).expanduser()
    if place.is_file():
        if not place.name.removesuffix(".gz").endswith(SUFFIXES):
            raise UserError(f"data.path: {path} is none of {', '.join(SUFFIXES)} (or .gz of one)")
        return [place]
    if place.is_dir():
        if (place / "dataset_info.json").exists() or (place / "dataset_dict.json").exists():
            return []
        files = sorted(f for f in place.rglob("*") if f.name.removesuffix(".gz").endswith(SUFFIXES))
        if not files:
            raise UserError(f"data.path: no {', '.join(SUFFIXES)} file (or .gz of one) in {place}")
        return files
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1 or path.endswith((*SUFFIXES, ".gz"))
    if looks_local:
        nearby = [f.name for f in place.parent.iterdir()] if place.parent.is_dir() else []
        raise UserError(f"data.path: no file or folder {path!r}{did_you_mean(place.name, nearby) if nearby else ''}")
    return None


def is_json(file: Path) -> bool:
    """By its name, .gz apart; a data file that is not JSON is parquet."""
    return file.name.removesuffix(".gz").endswith((".jsonl", ".json"))


def read_json(file: Path) -> Iterable[dict[str, Any]]:
    """Rows of a JSON lines file, or of one JSON array. A line that is no object is a UserError naming it."""
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        yield from parse_json(file, opener)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"data.path: cannot read {file}: {error}") from error


def parse_json(file: Path, opener: Callable[..., IO[str]]) -> Iterable[dict[str, Any]]:
    """Rows of a file that `opener` opens: of one array, where a .json file begins with [, else an object per line.

    Empty lines are passed over. UserError naming the line or row that is no JSON object.
    """
    with opener(file, "rt", encoding="utf-8") as stream:
        if not file.name.removesuffix(".gz").endswith(".jsonl"):
            content = stream.read()
            if content.lstrip().startswith("["):
                try:
                    rows = json.loads(content)
                except json.JSONDecodeError as error:
                    raise UserError(f"{file} is not JSON ({error})") from error
                for index, row in enumerate(rows):
                    if not isinstance(row, dict):
                        raise UserError(f"{file} row {index} (counting from 0) is not a JSON object with named columns")
                    yield row
                return
            lines: Iterable[str] = content.splitlines()
        else:
            lines = stream
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(f"{file} line {number} is not JSON ({error})") from error
                if not isinstance(row, dict):
                    raise UserError(f"{file} line {number} is not a JSON object with named columns")
                yield row


def load_hub(
    path: str, name: str | None, split: str, revision: str | None, streaming: bool
) -> "Dataset | IterableDataset":
    """One split of a data set on the hub, name being its configuration. UserError for whatever prevents it."""
    import datasets

    try:
        return datasets.load_dataset(path, name, split=split, revision=revision, streaming=streaming)
    except Exception as error:  # the hub, the network, the builder and the split all fail with types of their own
        raise UserError(f"data.path: {path!r} is no local file, and loading it from the hub failed: {error}") from error


def load_local(path: str, files: list[Path], split: str, streaming: bool) -> "Dataset | IterableDataset":
    """Rows of JSON or parquet files, all of the kind of the first, or of a `save_to_disk` folder if there are no files.

    split: only such a folder has several. UserError for a split that is not there and files that cannot be read.
    """
    import datasets

    if not files:
        saved = datasets.load_from_disk(path)
        if isinstance(saved, datasets.DatasetDict):
            if split not in saved:
                raise UserError(f"data.split: no split {split!r} in {path}{did_you_mean(split, saved)}")
            saved = saved[split]
        return saved.to_iterable_dataset() if streaming else saved
    kind = "json" if is_json(files[0]) else "parquet"
    try:
        return datasets.load_dataset(kind, data_files=[str(f) for f in files], split="train", streaming=streaming)
    except Exception as error:  # builders fail with types of their own
        raise UserError(f"data.path: cannot read {path} as {kind}: {error.__cause__ or error}") from error


def rename(row: Mapping[str, Any], columns: Mapping[str, Any], separator: str | None) -> dict[str, Any]:
    """The row under rmlab's names; with a separator, chosen and rejected texts cut into prompt and responses."""
    hidden = {name for name, source in columns.items() if source is None}
    out = {k: v for k, v in row.items() if k not in hidden}
    for name, source in columns.items():
        if isinstance(source, str):
            out[name] = column(row, source, name)
        elif source is not None:
            values = [column(row, s, name) for s in source]
            out[name] = "\n\n".join(flat(values)) if name == "prompt" else values
    if separator and isinstance(out.get("chosen"), str) and isinstance(out.get("rejected"), str):
        parts = [out[side].rpartition(separator) for side in ("chosen", "rejected")]
        if parts[0][:2] == parts[1][:2]:
            out["prompt"] = parts[0][0] + parts[0][1]
            out["chosen"], out["rejected"] = parts[0][2], parts[1][2]
    return out


def column(row: Mapping[str, Any], source: str, name: str) -> Any:
    """`row[source]`, or the nested value of a dotted `source`."""
    if source in row:
        return row[source]
    value: Any = row
    for part in source.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise UserError(f"data.columns.{name}: no column {source!r} in the data{did_you_mean(source, row)}")
        value = value[part]
    return value


def flat(values: Any) -> list[str]:
    """Non-empty texts of a nested list, in order."""
    if isinstance(values, list):
        return [text for value in values for text in flat(value)]
    return [str(values)] if values not in (None, "") else []


def group_rated(rows: Iterable[Mapping[str, Any]], path: str) -> "Dataset":
    """A dataset of JSON rows; rows of one rated response each become one K-wise row per prompt."""
    from datasets import Dataset

    rows = list(rows)
    if rows and {"prompt", "response", "score"} <= set(rows[0]):
        groups: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
        for index, row in enumerate(rows):
            if not {"prompt", "response", "score"} <= set(row):
                raise UserError(f"{path} row {index} (counting from 0): one of prompt, response, score is missing")
            groups[json.dumps(row["prompt"])].append(row)
        rows = [
            {
                **{k: group[0][k] for k in ("prompt", "subset") if k in group[0]},
                "responses": [r["response"] for r in group],
                "scores": [r["score"] for r in group],
            }
            for group in groups.values()
            if len(group) > 1
        ]
        if len(rows) < len(groups):
            say(f"{path}: left out {len(groups) - len(rows):,} of {len(groups):,} prompts that have a single response")
    if not rows:
        raise UserError(f"data.path: {path} holds no comparison")
    for name in ("margin", "score_chosen", "score_rejected", "probability"):
        if any(name in row for row in rows):  # a row without it states nothing, as in a table: not a silent 1.0
            rows = [{name: None, **row} for row in rows]
    return Dataset.from_dict({"json": [json.dumps(row) for row in rows]})
