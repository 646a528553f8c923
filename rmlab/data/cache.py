"""Keys of what is kept on disk, and how it gets there: by content, atomically."""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

from rmlab.data import Tokenizer
from rmlab.files import remove, scratch_of, seal, sync
from rmlab.messages import first_line, say


@functools.cache
def code(*packages: Path) -> str:
    """A hash of the source of packages, by default of this one: what is cached is never that of other code."""
    files = [file for package in packages or (Path(__file__).parent,) for file in sorted(package.glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def digest(value: Any) -> str:
    """A hash (16 hex digits) of a value as JSON, the same for any order of keys; what is not JSON enters as `str`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


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


def save_atomically(dataset: Dataset, place: Path) -> None:
    """Two runs of a sweep may build the same cache at once: each writes its own copy, the first rename wins.

    On a full disk nothing of it is left, and a line says so: the run can do without.
    """
    scratch = scratch_of(place)
    try:
        with quiet():
            dataset.save_to_disk(str(scratch))
        for file in scratch.rglob("*"):
            if file.is_file():
                sync(file)
        seal(scratch)
    except OSError as error:  # what pyarrow raises is one too
        remove(scratch)
        say(f"warning: {place} cannot be written ({first_line(error)}); tokens are not kept, and made anew next time")
        return
    try:
        os.rename(scratch, place)
    except OSError:
        remove(scratch)
