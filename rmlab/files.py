"""Files that are whole or not there: written aside and renamed, sealed with hashes, named where they are damaged."""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash
import yaml

from rmlab.messages import UserError, first_line, is_first_rank

# ---- files ----


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
    write(path, as_json(content))


def as_json(content: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


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
        sync(scratch)
        os.replace(scratch, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {first_line(error)}") from error
    finally:
        scratch.unlink(missing_ok=True)


def modified(file: Path) -> int | None:
    """When the file was written, in nanoseconds; None if it is not there."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None


# ---- folders that are what was written ----


SEAL = "whole"  # a file beside the others of a folder: {"files": {name: [bytes, hash]}, ...}


def seal(folder: Path, **about: Any) -> None:
    """Write down what the folder holds, last of all; `about`: more to remember."""
    names = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.name != SEAL]
    content = {**about, "files": {str(f.relative_to(folder)): stamp(f) for f in names}}
    scratch = folder / f"{SEAL}.tmp"
    scratch.write_text(json.dumps(content), encoding="utf-8")
    sync(scratch)
    os.replace(scratch, folder / SEAL)


def read_seal(folder: Path) -> dict[str, Any]:
    """What `seal` wrote. OSError, ValueError or TypeError where that cannot be read."""
    content = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise ValueError(f"{folder / SEAL} is not what was written")
    return content


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder: not written to its end, or a file is not what was written. None: nothing."""
    try:
        for name, written in read_seal(folder)["files"].items():
            if not (folder / name).is_file():
                return f"{name} is gone"
            if stamp(folder / name) != written:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return "it was not written to its end"
    except (OSError, ValueError) as error:
        return f"it cannot be read: {first_line(error)}"
    return None


def stamp(file: Path) -> list[Any]:
    """[bytes, hash] of a file. xxh3 is as fast as the disk; it is to find damage, not forgery."""
    return [file.stat().st_size, file_hash(file)]


LARGE = 10**8  # bytes, more than can be read again at every look


def mark(file: Path) -> list[Any]:
    """[bytes, hash] of a file; of a large one, such as a model's weights, the size alone; [] where there is none."""
    if not file.is_file():
        return []
    size = file.stat().st_size
    return [size, file_hash(file) if size < LARGE else None]


def file_hash(file: Path) -> str:
    """xxh3 of the content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()


def sync(file: Path) -> None:
    """Have the system write the file to disk: a power cut might leave a new name on an empty one."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def scratch_of(place: Path) -> Path:
    """A name beside `place` that no other process uses, here or on a machine that shares the folder.

    What dead processes of this machine left under such names is removed.
    """
    host = "".join(c for c in platform.node() if c.isalnum()) or "host"
    for left in place.parent.glob(f"*.{host}-*"):
        number = left.name.rpartition("-")[0].rpartition("-")[2]
        if number.isdigit() and not is_alive(int(number)):
            remove(left)
    return place.with_name(f"{place.name}.{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def is_alive(process: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def remove(place: Path) -> None:
    """A file or a folder, if it is there."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)
