"""Keys of what is kept on disk, and how it gets there: by content, atomically."""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

from rmlab.data import Tokenizer
from rmlab.files import damage, read_seal, remove, scratch_of, seal, sync
from rmlab.messages import first_line, say


@functools.cache
def code(*packages: Path) -> str:
    """A hash of the source of packages, by default of this one: what is cached is never that of other code."""
    files = [file for package in packages or (Path(__file__).parent,) for file in sorted(package.glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def digest(value: Any) -> str:
    """A hash (16 hex digits) of a value as JSON, the same for any order of keys; what is not JSON enters as `str`."""
    return hashlib.sha256(as_json(value).encode()).hexdigest()[:16]


as_json = json.JSONEncoder(sort_keys=True, default=str).encode  # made once: `json.dumps` makes one for every call


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
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


def shared() -> Path:
    """The folder of what is made of rows alone, in the cache of `datasets`: of a user, whatever they run where."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "rmlab"


def once(key: str, check: Callable[[], None]) -> None:
    """A check that takes a while, unless it has passed before; what it raises is raised, and not remembered."""
    place = shared() / "checked" / key
    if place.exists():
        return
    check()
    with contextlib.suppress(OSError):  # a full disk: it is made again next time
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """What `datasets` maps inside goes to a temporary folder: what it finds beside the rows, it trusts unread."""
    before = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        yield
    finally:
        if before:
            datasets.enable_caching()


def kept(place: Path, write: Callable[[Path], dict[str, Any]], what: str) -> Dataset | None:
    """The data set that is kept in the folder `place`, after `write(folder)` if it is not there yet, or no more whole.

    None, with a line, if it cannot be written, as on a full disk. `write` makes Arrow files, whose rows follow each
    other in the order of their names, and returns what is to stand in the seal; what else it raises is raised. `what`
    is not kept then, for the line.
    """
    found = whole_entry(place)
    if found is None and save_atomically(place, write, what):
        found = whole_entry(place)
    return found


def whole_entry(place: Path) -> Dataset | None:
    """The data set that is kept there, read as it is needed; None if there is none.

    A damaged one is removed, with a line.
    """
    if not place.exists():
        return None
    wrong = damage(place)
    if wrong is None:
        files = sorted(name for name in read_seal(place)["files"] if name.endswith(".arrow"))
        rows = datasets.concatenate_datasets([Dataset.from_file(str(place / name)) for name in files])
        return Dataset(rows.data, info=rows.info, fingerprint=place.name)
    say(f"{place} is damaged ({wrong}); it is made anew")
    remove(place)
    return None


def save_atomically(place: Path, write: Callable[[Path], dict[str, Any]], what: str) -> bool:
    """Two runs of a sweep may build the same entry at once: each writes its own copy, the first rename wins.

    Whatever goes wrong, nothing of it is left. False, with a line, where the disk is full: the run can do without.
    """
    scratch = scratch_of(place)
    try:
        scratch.mkdir(parents=True)
        about = write(scratch)
        for file in scratch.iterdir():
            sync(file)
        seal(scratch, **about)
        with contextlib.suppress(OSError):  # another one was faster
            os.rename(scratch, place)
    except OSError as error:  # what pyarrow raises is one too
        say(f"warning: {place} cannot be written ({first_line(error)}); {what} are not kept, and made anew next time")
        return False
    finally:
        remove(scratch)
    return True
