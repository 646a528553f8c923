"""RunDirectory: the one reader and writer of the files of a run, and what they say of its state. No torch."""

import contextlib
import os
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash
import yaml
from filelock import FileLock, Timeout

from rmlab.files import as_json, mark, modified, read, write, write_here, write_json
from rmlab.messages import UserError, first_line, is_first_rank, rank
from rmlab.metrics.scored import ScoredComparison
from rmlab.model.identity import UNREAD

if TYPE_CHECKING:
    from rmlab.runner.scores import Scores

METRICS = "metrics.json"
CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
HISTORY = "history.json"
ERROR = "error.txt"
REPRODUCTION = "reproduction.json"
LOCK = ".lock"
LOG = "rmlab.log"


class BusyError(UserError):
    """Another process works in this run directory."""


@dataclass(frozen=True)
class RunDirectory:
    """A run on disk. What is read of a file that is not there is empty; a file that cannot be read is a UserError."""

    path: Path

    @classmethod
    def of(cls, path: Path | str) -> "RunDirectory":
        """With a relative path, so that what is printed can be typed."""
        return cls(Path(os.path.relpath(path)))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The last part of the path, by which reports name the run."""
        return self.path.name

    # ---- its state ----

    @property
    def state(self) -> str:
        """finished, damaged, running, failed, half-done (begun and killed, it resumes) or new."""
        if self.has_metrics:
            return "damaged" if self.damage() else "finished"
        if self.is_locked:
            return "running"
        if self.error_files():
            return "failed"
        return "half-done" if (self.path / ENVIRONMENT).exists() else "new"

    @property
    def is_finished(self) -> bool:
        """Whether metrics.json is there, the last file that a run writes, and nothing that it stands for is damaged."""
        return self.has_metrics and self.damage() is None

    @property
    def has_metrics(self) -> bool:
        """Whether the run has come to its end, whatever became of its files since."""
        return (self.path / METRICS).exists()

    def damage(self) -> str | None:
        """What of a run that came to its end is gone or is not what was written; None: nothing."""
        try:
            metrics, environment, _ = self.metrics(), self.environment(), self.history()
            for file in (file for name in metrics["eval"] for file in self.score_files(name)):
                if not file.is_file():
                    return f"scores/{file.name} is gone"
            for name, written in environment.get("files", {}).items():
                given_away = name.startswith(("model/", "adapter/")) and not (self.path / name).parent.exists()
                if not given_away and mark(self.path / name) != written:
                    return f"{name} is not what was written"
        except (UserError, OSError) as error:
            return first_line(error)
        except (KeyError, TypeError, AttributeError):
            return "metrics.json does not hold the metrics of a run"
        return None

    @property
    def is_run(self) -> bool:
        """Whether a run was planned or trained here."""
        return (self.path / CONFIG).exists()

    @property
    def is_reproduction(self) -> bool:
        """Whether rmlab-reproduce made it: reports leave it out, and the next reproduction may replace it."""
        return (self.path / REPRODUCTION).exists()

    @property
    def is_locked(self) -> bool:
        """Whether a process, here or elsewhere, works in it."""
        if not (self.path / LOCK).exists():
            return False
        try:
            with FileLock(self.path / LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # somebody else's directory, to be read only: nobody knows
            return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process works in it; the second gets a BusyError. The system unlocks what is killed.

        Of several ranks the first locks for all.
        """
        if not is_first_rank():
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK, timeout=1)  # who asks for the state takes the lock for a moment
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(f"{self} is being trained by another process; wait for it, or stop it") from None
        try:
            yield
        finally:
            lock.release()

    def refuse_if_busy(self) -> None:
        """BusyError if a process works in it, known before anything slow; `locked` still decides."""
        if is_first_rank() and (self.path / LOCK).exists():
            with self.locked():
                pass

    def stamps(self) -> tuple[int | None, int | None]:
        """When metrics.json and error.txt were written; None for what is not there."""
        return modified(self.path / METRICS), max((modified(f) or 0 for f in self.error_files()), default=None)

    @property
    def planned(self) -> float:
        """When config.yaml was written, in seconds."""
        return (modified(self.path / CONFIG) or 0) / 1e9

    # ---- its files ----

    def config(self) -> dict[str, Any]:
        """The resolved config, as `Config.of` takes it."""
        return read(self.path / CONFIG)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """config.yaml; makes the directory if it is not there."""
        self.path.mkdir(parents=True, exist_ok=True)
        write(self.path / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))

    def environment(self) -> dict[str, Any]:
        """What made the numbers (see environment.py), with `config` as it was trained and, at the end, `seconds`."""
        return read(self.path / ENVIRONMENT)

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """environment.json: at the start, and once more with the seconds that the run took."""
        write_json(self.path / ENVIRONMENT, environment)

    def metrics(self) -> dict[str, Any]:
        """{"eval": {SET: {...}}, "train": {...}}."""
        return read(self.path / METRICS)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Last, atomically: its presence means that the run is done."""
        write_json(self.path / METRICS, metrics)

    def history(self) -> list[dict[str, Any]]:
        """What was logged at each step: the learning curves."""
        return read(self.path / HISTORY, kind=list)

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """history.json, in the order given."""
        write_json(self.path / HISTORY, list(history))

    def reproduction(self) -> dict[str, Any]:
        """What rmlab-reproduce found, of a directory that reproduces another."""
        return read(self.path / REPRODUCTION)

    def write_reproduction(self, result: Mapping[str, Any]) -> None:
        """reproduction.json, first of all as a mark, then with the result; makes the directory if it is not there."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / REPRODUCTION, result)

    def error_files(self) -> list[Path]:
        """error.txt of the first rank, and error.rankN.txt of others, which fail on their own."""
        return [f for f in (self.path / ERROR, *sorted(self.path.glob("error.rank*.txt"))) if f.exists()]

    def error(self) -> str:
        """The first line of error.txt, or of another rank's; empty without one."""
        lines = [f.read_text(encoding="utf-8", errors="replace").partition("\n")[0] for f in self.error_files()]
        return next(filter(None, lines), "")

    def write_error(self, error: BaseException) -> None:
        """error.txt, of another rank than the first error.rankN.txt: the error in a line, then where it came from."""
        whole = "".join(traceback.format_exception(error))
        name = ERROR if is_first_rank() else f"error.rank{rank()}.txt"
        write_here(self.path / name, f"{describe(error)}\n\n{whole}")

    def forget_error(self) -> None:
        """Remove what an earlier try has left: its errors, and scratch files of a process that was killed."""
        for left in (*self.error_files(), *self.path.glob("*.tmp"), *self.path.glob("scores/*.tmp")):
            left.unlink(missing_ok=True)

    def has_scores(self, name: str) -> bool:
        """Whether the scores of that evaluation set were kept."""
        return self.scores_file(name).exists()

    def scores(self, name: str) -> "Scores":
        """The scores of an evaluation set."""
        from rmlab.runner.scores import read_scores

        return read_scores(self.scores_file(name))

    def write_scores(self, name: str, scored: Sequence[ScoredComparison], outputs: Sequence[str] = ()) -> None:
        """Both files of an evaluation set (see scores.py), from the first rank alone. outputs: names of the head's."""
        from rmlab.runner.scores import write_scores

        if is_first_rank():
            write_scores(scored, self.scores_file(name), outputs)

    def scores_file(self, name: str) -> Path:
        """Where the responses of an evaluation set are kept; the file of its preferences lies beside it."""
        return self.path / "scores" / f"{name}.parquet"

    def score_files(self, name: str) -> tuple[Path, Path]:
        """Both files of an evaluation set: its responses and its preferences."""
        file = self.scores_file(name)
        return file, file.with_suffix(".preferences.parquet")

    def marks(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Of every file of results, by name, for environment.json: damage is noticed by it.

        Of metrics.json too, which is only written after it; not of suites, which may be scored later.
        """
        told, sets = as_json(metrics).encode(), tuple(f"{name}." for name in metrics["eval"])
        files = [f for place in (self.model, self.path / "adapter") for f in sorted(place.rglob("*"))]
        files += [self.path / HISTORY, *(f for f in (self.path / "scores").rglob("*") if f.name.startswith(sets))]
        kept = [file for file in files if file.is_file() and not file.name.endswith(UNREAD)]  # which may be edited
        marks = {file.relative_to(self.path).as_posix(): mark(file) for file in kept}
        return {METRICS: [len(told), xxhash.xxh3_128_hexdigest(told)], **marks}

    @property
    def log(self) -> Path:
        """What its tries have said, one after another."""
        return self.path / LOG

    @property
    def checkpoints(self) -> Path:
        """The folder of Trainer's checkpoints, from which a killed run resumes."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Where the trained model is put for plain transformers; not there if its adapter cannot be merged."""
        return self.path / "model"

    def contents(self) -> dict[str, Path]:
        """What there is of interest to a reader, by name."""
        places = {n: self.path / n for n in ("model", "adapter", "scores", "suites", METRICS, CONFIG, "wandb")}
        return {name: place for name, place in places.items() if place.exists()}

    def forget_results(self) -> None:
        """Remove what a run that is trained again has left: its checkpoints would be resumed.

        metrics.json first: without what it stands for, the run would look finished.
        """
        self.forget_metrics()
        for left in ("checkpoints", "scores", "suites", "model", "adapter"):
            shutil.rmtree(self.path / left, ignore_errors=True)

    def forget_metrics(self) -> None:
        """The run is no longer finished; what it has trained stays."""
        (self.path / METRICS).unlink(missing_ok=True)


def describe(error: BaseException) -> str:
    """An error in one line."""
    text = first_line(error) if str(error).strip() else ""
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def objective(metrics: Mapping[str, Any]) -> float | None:
    """Accuracy on the first evaluation set, what a Hydra sweeper maximises; None without one."""
    first: Mapping[str, Any] = next(iter(metrics["eval"].values()), {})
    return first.get("accuracy")
