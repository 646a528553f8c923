"""The stages of a run that faults.py disturbs, and the process in which one is: rmlab, struck at one call of a stage.

python faults_stages.py STAGE FAULT CALL -- OVERRIDES
"""

import errno
import functools
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORK = "work"  # the folder that a run writes to, below the one that it is started in


@dataclass(frozen=True)
class Stage:
    """What of rmlab to disturb, as MODULE:NAME where callers look it up.

    whole: what stops, holds or is watched; inside: what is killed or meets a full disk, where half of it is done;
    calls: at which calls of either, one try each (inside_calls: where they differ); writes: whether a full disk would
    be met there; kept: what a run says that goes on from all that was finished then; kept_after: the same once the
    whole stage is over.
    """

    whole: str
    inside: str = ""
    calls: tuple[int, ...] = (1,)
    inside_calls: tuple[int, ...] = ()
    writes: bool = False
    kept: str | None = None
    kept_after: str | None = None

    @property
    def hooks(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.whole, self.inside)))

    @property
    def tries(self) -> tuple[int, ...]:
        """The calls at which it is killed or meets a full disk."""
        return self.inside_calls or self.calls


TRAINED = "trained already, 4 steps"
STAGES = {
    "reading": Stage("rmlab.data.sets:load_rows"),
    "tokenising": Stage("rmlab.data.prepare:tree_table"),
    "cache": Stage("rmlab.data.cache:save_atomically", "rmlab.data.cache:seal", writes=True),
    "first step": Stage(
        "rmlab.training.trainer:RewardTrainer.training_step", calls=(1, 3), kept="goes on from step 2 of 4"
    ),
    "checkpoint": Stage(
        "rmlab.training.trainer:RewardTrainer._save_checkpoint", "transformers:Trainer._save_rng_state", calls=(3,),
        writes=True, kept="goes on from step 2 of 4", kept_after="goes on from step 3 of 4",
    ),
    "rotation": Stage("rmlab.training.checkpoints:rotate", calls=(3,), kept="goes on from step 3 of 4"),
    "evaluation": Stage("rmlab.training.trainer:RewardTrainer.evaluation_loop", kept=TRAINED),
    "scores": Stage(
        "rmlab.runner.directory:RunDirectory.write_scores", "pandas:DataFrame.to_parquet", inside_calls=(2,),
        writes=True, kept=TRAINED
    ),
    "export": Stage("rmlab.model.export:export", "rmlab.model.export:write_card", writes=True, kept=TRAINED),
    "metrics": Stage(
        "rmlab.runner.directory:RunDirectory.write_metrics", writes=True, kept=TRAINED, kept_after="it is finished"
    ),
}  # fmt: skip


def resolve(hook: str) -> tuple[Any, str]:
    """(the module or class, the name in it) of MODULE:NAME. AttributeError where there is none."""
    module, _, names = hook.partition(":")
    *outer, name = names.split(".")
    owner = functools.reduce(getattr, outer, importlib.import_module(module))
    getattr(owner, name)
    return owner, name


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """(time of change, bytes) of the files of a run, by path; not of its log, to which all stages add, nor its lock."""
    found = [f for f in sorted(folder.rglob("*")) if f.is_file() and not f.name.endswith((".log", ".lock"))]
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.stat().st_size) for f in found}


# ---- what strikes; each gets the call that it strikes at, as a function without arguments ----


def struck(written: list[str]) -> None:
    """Tell the process that watches."""
    Path("struck.tmp").write_text(json.dumps(written), encoding="utf-8")
    os.replace("struck.tmp", "struck.json")


def kill(call: Callable[[], Any]) -> None:
    struck([])
    os.kill(os.getpid(), signal.SIGKILL)


def stop(call: Callable[[], Any]) -> None:
    """Killed right after the stage, whose files are told."""
    before = files(Path(WORK))
    call()
    struck([name for name, state in files(Path(WORK)).items() if before.get(name) != state])
    os.kill(os.getpid(), signal.SIGKILL)


def hold(call: Callable[[], Any]) -> Any:
    """Until there is a file `go`."""
    struck([])
    while not Path("go").exists():
        time.sleep(0.1)
    return call()


def full(call: Callable[[], Any]) -> None:
    struck([])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(call: Callable[[], Any]) -> Any:
    """Fill the disk that the run writes to, and the last page of its log, which has one of its own."""
    struck([])
    for log in Path(WORK).rglob("*.log"):
        with log.open("ab") as file:
            file.write(b"\n" * (-file.tell() % os.sysconf("SC_PAGESIZE")))
    size = 2**20
    with Path(WORK, "filler").open("wb", buffering=0) as filler:
        while size:
            try:
                filler.write(bytes(size))
            except OSError:
                size //= 2
    return call()


def limit(call: Callable[[], Any]) -> Any:
    """No file may grow beyond a few bytes: what is nearest to a full disk without one."""
    struck([])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return call()


STRIKES = {"kill": kill, "stop": stop, "hold": hold, "raise": full, "fill": fill, "limit": limit}
INSIDE = ("kill", "raise", "fill", "limit")


def disturb(stage: Stage, fault: str, at: int) -> None:
    """From now on, the fault strikes at that call of the stage in this process."""
    importlib.import_module("rmlab.training.trainer")  # what other modules have imported by name stays as it is there
    owner, name = resolve(stage.inside or stage.whole if fault in INSIDE else stage.whole)
    original, calls = getattr(owner, name), 0

    @functools.wraps(original)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        call = functools.partial(original, *args, **kwargs)
        return STRIKES[fault](call) if calls == at else call()

    setattr(owner, name, hooked)


def main() -> None:
    stage, fault, at, _, *overrides = sys.argv[1:]
    from rmlab.commands import train

    disturb(STAGES[stage], fault, int(at))
    sys.argv = ["rmlab", *overrides]
    train.main()


if __name__ == "__main__":
    main()
