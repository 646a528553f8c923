"""The terminal: lines that are told there, and a log that takes the place of it, for runs of a sweep."""

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_lock = threading.RLock()  # a sweep tells of its runs from another thread; a signal may come while it does
_terminal: TextIO | None = None  # what stdout was, while a log takes its place


def tell(message: str) -> None:
    """A line on the terminal, at once, also while what is printed goes to a log."""
    with _lock:
        print(message, file=_terminal or sys.stdout, flush=True)


def is_logged() -> bool:
    """Whether what is printed goes to a log and not to the terminal."""
    return _terminal is not None


@contextlib.contextmanager
def only_logged(log: Path) -> Iterator[None]:
    """Inside, what this process and those that it starts print goes to the end of `log`; all but what is told.

    As file descriptors, so that libraries in other languages and loggers that hold an older stream are met too.
    """
    before = sys.stdout, sys.stderr
    if None in before:  # closed, there is no terminal
        yield
        return
    for stream in before:
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    show_on(terminal_behind(before[0], kept[0]))
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    sys.stdout, sys.stderr = Lines(1), Lines(2)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
        show_on(None)
        for old in kept:
            os.close(old)


def show_on(terminal: TextIO | None) -> None:
    """Have `tell` write to it; None: to stdout, whatever that is then."""
    global _terminal
    with _lock:
        _terminal = terminal


def terminal_behind(stdout: TextIO, descriptor: int) -> TextIO:
    """A stream to where stdout goes now: on `descriptor`, a copy of 1, or itself if it goes elsewhere (a notebook)."""
    try:
        if stdout.fileno() != 1:
            return stdout
    except (OSError, ValueError):
        return stdout
    return open(descriptor, "w", encoding=stdout.encoding, errors=stdout.errors, closefd=False)


class Lines(io.TextIOBase):
    """Writes whole lines to a file descriptor; of a line that writes over itself, a progress bar, its last state."""

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.rest = descriptor, ""

    def fileno(self) -> int:
        """Where it writes."""
        return self.descriptor

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Keeps what follows the last line end, until that line has its own."""
        *lines, rest = (self.rest + text).split("\n")
        self.rest = rest[max(rest.rfind("\r"), 0) :]
        shown = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines]
        whole = "".join(f"{new}\n" for new, line in zip(shown, lines, strict=True) if new or not line)
        with contextlib.suppress(OSError):  # a full disk; what must be written says so itself
            os.write(self.descriptor, whole.encode(errors="backslashreplace"))
        return len(text)
