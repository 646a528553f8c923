"""Where rows come from: a file, a folder or a hub name, with its columns renamed to rmlab's."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab.data import DATASETS, ROW
from rmlab.data.cache import code, digest
from rmlab.data.columns import BATCH, HEAD, head, read_row, read_rows, renamed, renamed_texts, with_nulls
from rmlab.data.json_files import is_json
from rmlab.data.rated import group_rated, is_rated
from rmlab.messages import UserError, check_one_of, did_you_mean, say
from rmlab.upstream import fingerprint

if TYPE_CHECKING:  # imported where rows are read: rmlab's own checks come before
    from datasets import Dataset, IterableDataset

UNCOMPARED = ("error", "drop")
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
    limit: int | None = None,
    hub: Mapping[str, Any] | None = None,
    uncompared: str = "error",
) -> "Dataset | IterableDataset":
    """Rows of a jsonl/json/parquet file (also .gz), a local folder (of such files, or `save_to_disk`), or a hub name.

    Args:
        columns: rmlab's column name -> yours. A dotted name reads a nested value, through lists too; a list of names
            reads several (responses, votes) or joins them (prompt); null hides a column; see named.py for more. A label
            may state its code: `{column: NAME, first: 0, second: 1, tie: 2}`, see `labels.decoded`.
        prompt_separator: cuts chosen and rejected texts after its last occurrence into prompt and response
            ("\\n\\nAssistant:" for hh-rlhf).
        limit: so many rows are enough; of JSON no more are read. As `data.limit`, of this source alone.
        hub: name, split, revision and data_dir where the path is a hub name, so that a config for one reads a local
            copy when nothing but the path is changed.
        uncompared: error | drop: rows of fewer than two `responses`.

    Rows that hold one rated response each (prompt, response, score) are grouped by prompt into K-wise rows.
    Local JSON, and what has its columns renamed, is kept as text, a row in one column `ROW`: Arrow would unify the
    types of all rows and fill in nulls. `split` chooses among the files of a folder as `datasets` would.
    """
    if path is None:
        raise UserError("data.path is not set; give a file, a folder or a hub name: data.path=my.jsonl")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"data.limit is {limit!r}; it must be a whole number of at least 1, or null for all rows")
    check_one_of("uncompared", uncompared, UNCOMPARED)
    columns = dict(columns or {})
    files = local_files(path, split)
    if files and all(is_json(f) for f in files):
        refuse_hub_options(path, name, revision)
        dataset = load_json(path, files, columns, prompt_separator, streaming, limit)
    else:
        if files is None:
            dataset = load_hub(path, part_of_hub(hub, name, split, revision), streaming)
        else:
            refuse_hub_options(path, name, revision)
            dataset = load_local(path, files, split, streaming)
        dataset = under_our_names(dataset, path, columns, prompt_separator, streaming, limit)
    dataset = checked(dataset, path, prompt_separator)
    dataset = without_uncompared(dataset, path) if uncompared == "drop" else dataset
    return dataset if limit is None else dataset.take(limit)


def refuse_hub_options(path: str, name: str | None, revision: str | None) -> None:
    """UserError for what only a data set on the hub has."""
    if name is not None or revision is not None:
        raise UserError(f"data.name and data.revision are of data sets on the hub; {path} is local, leave them out")


def load_json(
    path: str,
    files: list[Path],
    columns: Mapping[str, Any],
    separator: str | None,
    streaming: bool,
    limit: int | None,
) -> "Dataset | IterableDataset":
    """Rows of JSON files as text. UserError for a bad one, and if there are none."""
    from datasets import IterableDataset

    from rmlab.data import texts

    if streaming:
        told = {"files": files, "columns": columns, "separator": separator}
        return IterableDataset.from_generator(texts_of_json, texts.FEATURES, gen_kwargs=told)
    wanted = None if limit is None else max(limit, HEAD)  # enough to tell whether the separator is right
    rows = texts.JsonRows(files, columns, separator, wanted)
    begun = iter(rows)
    first = list(itertools.islice(begun, 1))
    begun = itertools.chain(first, begun)
    if first and is_rated(first[0][0]):
        return group_rated((row for row, _ in begun), path)
    dataset = texts.texts_of(rows, begun)
    if not len(dataset):
        raise UserError(f"data.path: {path} holds no comparison")
    return dataset


def texts_of_json(**options: Any) -> Iterator[dict[str, str]]:
    """Rows of JSON files as text in the column `ROW`, for streams."""
    from rmlab.data.texts import JsonRows

    for _, text in JsonRows(**options):
        yield {ROW: text}


def under_our_names(
    dataset: "Dataset | IterableDataset",
    path: str,
    columns: Mapping[str, Any],
    separator: str | None,
    streaming: bool,
    limit: int | None,
) -> "Dataset | IterableDataset":
    """Rows of Arrow under rmlab's names, as text if they had others; rated ones grouped."""
    if not streaming and limit is not None and len(dataset):
        first = renamed(with_nulls(dataset[0]), 0, columns, separator, path)
        dataset = dataset if is_rated(first) else dataset.take(max(limit, HEAD))
    if columns or separator:
        from rmlab.data.texts import FEATURES

        told: dict[str, Any] = {"columns": columns, "separator": separator}
        # A fingerprint of our own: that of `datasets` does not change with the code of `rename`.
        new: dict[str, Any] = {} if streaming else {"new_fingerprint": digest([code(), fingerprint(dataset), told])}
        new |= {"remove_columns": dataset.column_names, "features": FEATURES, "batched": True, "batch_size": BATCH}
        dataset = dataset.map(renamed_texts, with_indices=True, fn_kwargs={"path": path, **told}, **new)
    if not streaming and len(dataset) and is_rated(read_row(dataset[0])):
        return group_rated(read_rows(dataset), path)
    return dataset


def checked(dataset: "Dataset | IterableDataset", path: str, separator: str | None) -> "Dataset | IterableDataset":
    """The rows; UserError for a separator that stands in none of them, or of the first of a stream."""
    if separator and not any("prompt" in row for row in read_rows(head(dataset))):
        raise UserError(
            f"data.prompt_separator: no row of {path} has {separator!r} in both chosen and rejected; correct it, or "
            "leave it out"
        )
    return dataset


def without_uncompared(dataset: "Dataset | IterableDataset", path: str) -> "Dataset | IterableDataset":
    """Without rows of fewer than two responses, with a line of how many; of a stream as they come."""
    if not hasattr(dataset, "__len__"):
        return dataset.filter(compares)
    kept = [n for n, row in enumerate(read_rows(dataset)) if has_two_responses(row)]
    if len(kept) == len(dataset):
        return dataset
    say(f"{path}: left out {len(dataset) - len(kept):,} of {len(dataset):,} rows that have fewer than two responses")
    return dataset.select(kept)


def compares(row: Mapping[str, Any]) -> bool:
    """`has_two_responses` of a row as `datasets` has it."""
    return has_two_responses(read_row(row))


def has_two_responses(row: Mapping[str, Any]) -> bool:
    """Whether it has at least as many; so has what is no list of them, and is checked later."""
    responses = row.get("responses")
    return not isinstance(responses, list) or len(responses) > 1


def local_files(path: str, split: str) -> list[Path] | None:
    """The data files at a local path, [] for a `save_to_disk` folder, None for what must be a hub name.

    Of a folder those of the split, if their names or folders tell splits apart (train.jsonl and test.jsonl).
    """
    place = Path(path).expanduser()
    if place.is_file():
        if not place.name.removesuffix(".gz").endswith(SUFFIXES):
            raise UserError(f"data.path: {path} is none of {', '.join(SUFFIXES)} (or .gz of one)")
        if split != "train":
            raise UserError(f"data.split is {split!r}, but {path} is one file, which has no splits; leave it out")
        return [place]
    if place.is_dir():
        if (place / "dataset_info.json").exists() or (place / "dataset_dict.json").exists():
            return []
        files = sorted(f for f in place.rglob("*") if f.name.removesuffix(".gz").endswith(SUFFIXES))
        if not files:
            raise UserError(f"data.path: no {', '.join(SUFFIXES)} file (or .gz of one) in {place}")
        return files_of_split(place, files, split)
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1 or path.endswith((*SUFFIXES, ".gz"))
    if looks_local:
        nearby = [f.name for f in place.parent.iterdir()] if place.parent.is_dir() else []
        raise UserError(f"data.path: no file or folder {path!r}{did_you_mean(place.name, nearby) if nearby else ''}")
    return None


def files_of_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    """Those of the files that belong to the split, by the conventions of `datasets`; all, where names tell none."""
    from datasets.data_files import get_data_patterns, resolve_pattern

    splits: dict[str, set[Path]] = {}
    for name, patterns in get_data_patterns(str(folder)).items():
        for pattern in patterns:
            with contextlib.suppress(FileNotFoundError):  # one of several patterns of the same split
                splits.setdefault(str(name), set()).update(
                    Path(f).resolve() for f in resolve_pattern(pattern, str(folder))
                )
    chosen = [f for f in files if f.resolve() in splits.get(split, ())]
    if not chosen:
        raise UserError(f"data.split: no split {split!r} in {folder}{did_you_mean(split, splits)}")
    if len(chosen) < len(files):
        say(f"{folder}: split {split}, {len(chosen)} of {len(files)} files")
    return chosen


def part_of_hub(hub: Mapping[str, Any] | None, name: str | None, split: str, revision: str | None) -> dict[str, Any]:
    """What `load_dataset` is told of a data set on the hub. UserError for a part of `hub` that is stated beside it."""
    stated = {k: v for k, v in (("name", name), ("split", split), ("revision", revision)) if v not in (None, "train")}
    twice = sorted(set(stated) & set(hub or {}))
    unknown = sorted(set(hub or {}) - {"name", "split", "revision", "data_dir"})
    if twice or unknown:
        wrong = f"states {twice[0]} beside {twice[0]}" if twice else f"has no {unknown[0]}"
        raise UserError(f"data: hub {wrong}; it takes name, split, revision and data_dir, each in one place")
    return {"split": "train", **stated, **(hub or {})}


def load_hub(path: str, part: Mapping[str, Any], streaming: bool) -> "Dataset | IterableDataset":
    """A part of a data set on the hub: split, name (its configuration), ... UserError for whatever prevents it."""
    import datasets

    options = {k: v for k, v in part.items() if k != "name"}
    try:
        return datasets.load_dataset(path, part.get("name"), streaming=streaming, **options)
    except Exception as error:  # the hub, the network, the builder and the split all fail with types of their own
        raise UserError(f"data.path: {path!r} is no local file, and loading it from the hub failed: {error}") from error


def load_local(path: str, files: list[Path], split: str, streaming: bool) -> "Dataset | IterableDataset":
    """Rows of parquet files, or of a `save_to_disk` folder if there are no files.

    split: only such a folder has several. UserError for a split that is not there and files that cannot be read.
    """
    import datasets

    if not files:
        saved = datasets.load_from_disk(path)
        if isinstance(saved, datasets.DatasetDict):
            if split not in saved:
                raise UserError(f"data.split: no split {split!r} in {path}{did_you_mean(split, saved)}")
            saved = saved[split]
        elif split not in ("train", str(saved.split)):
            raise UserError(f"data.split is {split!r}, but {path} holds no splits; leave it out")
        return saved.to_iterable_dataset() if streaming else saved
    if any(is_json(f) for f in files):
        raise UserError(f"data.path: {path} holds JSON and parquet files; keep one kind")
    data_files = [str(f) for f in files]
    try:
        return datasets.load_dataset("parquet", data_files=data_files, split="train", streaming=streaming)
    except Exception as error:  # builders fail with types of their own
        raise UserError(f"data.path: cannot read {path} as parquet: {error.__cause__ or error}") from error
