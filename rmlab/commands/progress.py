"""How a sweep comes along: a line when runs end, and waiting for runs that another process trains."""

import threading
import time
from collections.abc import Sequence

from rmlab.runner.directory import RunDirectory


def tell(message: str) -> None:
    """A line on the terminal, at once: Hydra's own log goes there too, so it is not logged."""
    print(message, flush=True)


def in_words(seconds: float) -> str:
    """`95 s`; from 100 seconds on in minutes, `2 min`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def wait_for(outs: Sequence[RunDirectory]) -> None:
    """Until another process has left one of these directories, if any has them all."""
    if outs and all(out.is_locked for out in outs):
        tell(f"waiting for another process, which trains {outs[0]}" + f" and {len(outs) - 1} more" * (len(outs) > 1))
        while all(out.is_locked for out in outs):
            time.sleep(1)


class Progress:
    """Prints a line when runs end: how many are done, failed and left, and for how long. Reads the directories alone.

    So it works wherever the runs are: in this process, in others, on nodes that share the file system.
    """

    def __init__(self, study: str, all_runs: Sequence[RunDirectory], todo: Sequence[RunDirectory]) -> None:
        self.study, self.total, self.todo = study, len(all_runs), list(dict.fromkeys(todo))
        self.before = {out: out.stamps() for out in self.todo}
        self.started, self.ended, self.stop = time.time(), 0, threading.Event()
        self.lock, self.thread = threading.Lock(), threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> "Progress":
        if self.total > 1 and self.todo:
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
        """Tell of what has ended since the last look; one thread at a time."""
        with self.lock:
            self.tell_if_changed()

    def tell_if_changed(self) -> None:
        """Count new metrics.json and error.txt; a change of their number is a line, but in a sweep of one run."""
        now = {out: out.stamps() for out in self.todo}
        done = sum(now[out][0] not in (None, self.before[out][0]) for out in self.todo)
        failed = sum(now[out][1] not in (None, self.before[out][1]) for out in self.todo)
        if done + failed == self.ended:
            return
        self.ended = done + failed
        left = len(self.todo) - self.ended
        seconds = (time.time() - self.started) / self.ended * left
        skipped = self.total - len(self.todo)
        line = f"sweep {self.study}: {skipped + done} of {self.total} runs done, {failed} failed, {left} left"
        if self.total > 1:
            tell(line + f", about {in_words(seconds)} to go" * (left > 0))

    def has_finished(self, out: RunDirectory) -> bool:
        """Since the beginning: metrics.json is new."""
        return out.stamps()[0] not in (None, self.before[out][0])
