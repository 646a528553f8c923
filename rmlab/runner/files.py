"""Files that are whole or not there: written beside their place and renamed, and named where they cannot be read."""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash
import yaml

from rmlab.messages import UserError, first_line, is_first_rank


def read(file: Path, kind: type = dict) -> Any:
    """Content of a JSON or YAML file of that kind; empty where there is no file. UserError for one that is damaged."""
    if not file.exists():
        return kind()
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
        if file.suffix == ".yaml" and content is None:  # an empty file, perhaps of somebody else
            return kind()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {file}: {first_line(error)}") from error
    if not isinstance(content, kind):
        raise UserError(f"{file} holds no {'keys and values' if kind is dict else 'list'}")
    return content


def write_json(path: Path, content: Any) -> None:
    """Like `write`, indented. ValueError for NaN and infinity, which JSON does not have."""
    write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write(path: Path, text: str) -> None:
    """The whole file or none of it, from the first rank alone."""
    if is_first_rank():
        write_here(path, text)


def write_here(path: Path, text: str) -> None:
    """The same from any rank. UserError naming the file where it cannot be written, such as on a full disk."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A scratch file to write, which then takes the place of `path`; none of it is left if that fails."""
    scratch = path.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")  # two processes may write, and either be killed
    try:
        yield scratch
        with scratch.open("rb+") as stream:
            os.fsync(stream.fileno())  # or a power cut might leave the new name on an empty file
        os.replace(scratch, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {first_line(error)}") from error
    finally:
        scratch.unlink(missing_ok=True)


def file_hash(file: Path) -> str:
    """xxh3 of the content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()


def modified(file: Path) -> int | None:
    """When the file was written, in nanoseconds; None if it is not there."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None
