"""How a sweep comes along: a line when a run ends, and waiting for runs that another process trains."""

import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rmlab.messages import UserError
from rmlab.runner.directory import RunDirectory
from rmlab.terminal import tell

WARNING = re.compile(r"\[rmlab\]\[INFO\] (warning: .*)")  # as `say` leaves it in a run's log
MANY = 5  # warnings that are told; a study may give each of its runs one of its own


def in_words(seconds: float) -> str:
    """`95 s`, `1.7 min`, `25 min`, `3.2 h`."""
    minutes = seconds / 60
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes:.1f} min" if minutes < 10 else f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def wait_for(outs: Sequence[RunDirectory]) -> None:
    """Until another process has left one of these directories, if any has them all."""
    if outs and all(out.is_locked for out in outs):
        tell(f"waiting for another process, which trains {outs[0]}" + f" and {len(outs) - 1} more" * (len(outs) > 1))
        while all(out.is_locked for out in outs):
            time.sleep(1)


class Progress:
    """Tells of each run when it ends: its numbers or its error, and how long the rest will take.

    Reads the directories alone, so it works wherever the runs are: in this process, in others, on nodes that share the
    file system.
    """

    def __init__(self, todo: Mapping[RunDirectory, str], done: int, quiet: bool) -> None:
        """todo: runs with their names; done: how many have ended before; quiet: whether they print into their logs."""
        self.todo, self.done, self.quiet = todo, done, quiet
        self.before = {out: out.stamps() for out in self.todo}
        self.seen, self.ended, self.warned = dict(self.before), set[RunDirectory](), set[str]()
        self.logged = {out: size(out.log) for out in self.todo}
        self.started, self.stop = time.time(), threading.Event()
        self.lock, self.thread = threading.Lock(), threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> "Progress":
        if self.todo:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join()
        self.look()

    def watch(self) -> None:
        """Look once a second, in a thread, until the sweep ends."""
        while not self.stop.wait(1):
            self.look()

    def look(self) -> None:
        """Tell of what has ended since the last look, in that order; one thread at a time."""
        with self.lock:
            ended = []
            for out in self.todo:
                finished, failed = (
                    now if now != was else None for now, was in zip(out.stamps(), self.seen[out], strict=True)
                )
                self.seen[out] = out.stamps()
                if finished or failed:
                    ended.append((finished or failed, out, bool(finished)))
            for _, out, well in sorted(ended, key=lambda end: end[0] or 0):
                self.ended.add(out)
                self.tell_of(out, well)

    def tell_of(self, out: RunDirectory, well: bool) -> None:
        """A line of the run, after the warnings in its log that no other run had."""
        for warning in WARNING.findall(text_from(out.log, self.logged[out])) if self.quiet else []:
            if warning not in self.warned and len(self.warned) < MANY:
                tell(warning)
            self.warned.add(warning)
        total, left = self.done + len(self.todo), len(self.todo) - len(self.ended)
        number = f"[{self.done + len(self.ended):{len(str(total))}}/{total}]"
        seconds = (time.time() - self.started) / len(self.ended) * left
        rest = f"  ({in_words(seconds)} to go)" * (left > 0)
        outcome = outcome_of(out) if well else f"failed: {out.error()}"
        tell(f"{number} {self.todo[out]}  {outcome}{rest}")

    def has_finished(self, out: RunDirectory) -> bool:
        """Since the beginning: metrics.json is new."""
        return out.stamps()[0] not in (None, self.before[out][0])


def outcome_of(out: RunDirectory) -> str:
    """`accuracy 0.710  nll 0.580  1.7 min`: of the first evaluation set, without one of training."""
    try:
        metrics, seconds = out.metrics(), out.environment()["seconds"]
        shown = next(iter(metrics["eval"].values()), metrics["train"])
    except (UserError, KeyError):  # another process trains it again already
        return "finished"
    numbers = [f"{name} {shown[name]:.3f}" for name in ("accuracy", "nll") if isinstance(shown.get(name), float)]
    return "  ".join([*numbers, in_words(seconds)])


def size(file: Path) -> int:
    """In bytes; 0 where there is none."""
    return file.stat().st_size if file.exists() else 0


def text_from(file: Path, start: int) -> str:
    """What stands in the file from that byte on; nothing where there is none."""
    if not file.exists():
        return ""
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read().decode(errors="replace")
