"""A run directory seen from outside: what state it is in, who works in it, and what is left of a failure. No torch."""

import contextlib
import json
import os
import traceback
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from rmlab.environment import software
from rmlab.messages import UserError, is_first_rank, say


class BusyError(UserError):
    """Another process works in this run directory."""


def state(out: Path) -> str:
    """finished (metrics.json is there), running, failed, half-done (begun and killed, it resumes) or new."""
    if (out / "metrics.json").exists():
        return "finished"
    if is_locked(out):
        return "running"
    if (out / "error.txt").exists():
        return "failed"
    return "half-done" if (out / "environment.json").exists() else "new"


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Only one process works in a run directory; the second gets a BusyError. The system unlocks what is killed.

    Of several ranks the first locks for all.
    """
    if not is_first_rank():
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=1)  # a moment of patience: who asks for the state takes the lock briefly
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(f"{out} is being trained by another process; wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(out: Path) -> bool:
    """Whether a process, here or elsewhere, works in a run directory."""
    if not (out / ".lock").exists():
        return False
    try:
        with FileLock(out / ".lock", timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's directory, to be read only: nobody knows
        return False


def write_config(config: Mapping[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write(out / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def write_error(error: BaseException, out: Path) -> None:
    """error.txt: the error in a line, then where it came from. The next try removes it."""
    whole = "".join(traceback.format_exception(error))
    write(out / "error.txt", f"{describe(error)}\n\n{whole}")


def describe(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{kind}{lines[0] if lines else ''}"


def read_error(out: Path) -> str:
    """The first line of error.txt; empty without one."""
    file = out / "error.txt"
    return file.read_text(encoding="utf-8").partition("\n")[0] if file.exists() else ""


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_json(path: Path, content: Any) -> None:
    write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write(path: Path, text: str) -> None:
    """The whole file or none of it, from the first rank alone."""
    if is_first_rank():
        scratch = path.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")  # two processes may write, and either be killed
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)


def with_objective(metrics: dict[str, Any]) -> dict[str, Any]:
    """`objective`: accuracy on the first evaluation set, what a Hydra sweeper maximises; None without one."""
    first: Mapping[str, Any] = next(iter(metrics["eval"].values()), {})
    return {**metrics, "objective": first.get("accuracy")}


def changed_since(out: Path, inputs: Mapping[str, Any]) -> list[str]:
    """What made a finished run and is other now: of code, packages, python, processes, inputs.

    A plugin that was not loaded then made no difference to it.
    """
    before = read_json(out / "environment.json")
    now = {**software(), "inputs": {k: inputs.get(k) for k in before.get("inputs", {})}}
    return [key for key in now if before.get(key) != now[key]]


def skip(out: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a finished run; says so, and warns when other code, packages or data made them."""
    say(f"skipped {out}: it is finished (run.redo=true trains it again)")
    changed = changed_since(out, inputs)
    if changed:
        say(f"warning: {out} was made by other {' and '.join(changed)} than is here now; run.redo=true to redo it")
    return with_objective(read_json(out / "metrics.json"))
