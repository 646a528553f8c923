"""The runs of a study as they were read, and what a reader must know of them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmlab.messages import UserError
from rmlab.runner.config import computed
from rmlab.runner.directory import RunDirectory


@dataclass
class Run:
    """A run directory as it was read. metrics, history and environment are empty unless it finished."""

    out: RunDirectory
    state: str
    config: dict[str, Any]
    error: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    arm: str = ""

    @property
    def seed(self) -> int:
        """By which the run is paired with one of the baseline."""
        return int(self.config["seed"])

    @property
    def made(self) -> float:
        """When it was begun, in seconds; of runs that do not say, when their config.yaml was written."""
        told = self.environment.get("started")
        return float(told) if told else self.out.planned

    def is_damaged(self, why: str) -> None:
        """It counts no longer as finished."""
        self.state, self.error = "damaged", why


def studies(folder: Path) -> list[Path]:
    """The folder itself, or the studies in it, if it holds no run but they do."""
    if run_directories(folder) or RunDirectory(folder).is_run:
        return [folder]
    return [place for place in sorted(folder.glob("*/")) if run_directories(place)] or [folder]


def run_directories(folder: Path) -> list[RunDirectory]:
    """Directories with a run's config.yaml; a reproduction is no run of its study."""
    found = [RunDirectory(place) for place in sorted(folder.glob("*/")) if RunDirectory(place).is_run]
    return [out for out in found if may_be_run(out) and not out.is_reproduction]


def may_be_run(out: RunDirectory) -> bool:
    """By its config.yaml; where that cannot be read, by what else a run leaves."""
    try:
        return {"seed", "run", "loss"} <= out.config().keys()
    except UserError:
        return out.has_metrics


def load_run(out: RunDirectory) -> Run:
    """What the directory holds; a finished run has no error of an earlier try. One that cannot be read is damaged."""
    try:
        run = Run(out, out.state, out.config(), error=out.error())
    except UserError as error:
        return Run(out, "damaged", {}, error=str(error))
    if run.state == "damaged":
        run.error = out.damage() or run.error
    if run.state == "finished":
        try:
            run.error, run.environment, run.metrics, run.history = "", out.environment(), out.metrics(), out.history()
        except UserError as error:
            run.is_damaged(str(error))
    return run


# ---- what a reader must know ----


HAPPENED = {
    "running": "is still running",
    "failed": "failed",
    "half-done": "was stopped half-way",
    "damaged": "is damaged",
    "new": "was not started",
}


def unfinished(runs: Sequence[Run]) -> list[str]:
    """Each run that is not finished, and why."""
    return [
        f"{run.out.name}{f' ({run.arm}, seed {run.seed})' if run.config else ''} {HAPPENED[run.state]}"
        + f": {run.error}" * bool(run.error)
        for run in runs
        if run.state != "finished"
    ]


def uneven(arms: Mapping[str, Sequence[Run]]) -> list[str]:
    """Seeds that some arms have and others lack, and seeds that an arm has twice."""
    seeds = {arm: [run.seed for run in members if run.state == "finished"] for arm, members in arms.items()}
    everywhere = {seed for mine in seeds.values() for seed in mine}
    notes = []
    for arm, mine in seeds.items():
        lacking = sorted(everywhere - set(mine))
        if lacking:
            notes.append(f"{arm} has no finished run of seed {', '.join(map(str, lacking))}")
        twice = sorted({seed for seed in mine if mine.count(seed) > 1})
        if twice:
            notes.append(f"{arm} has more than one run of seed {', '.join(map(str, twice))}; the last one counts")
    return notes


def apart(arms: Mapping[str, Sequence[Run]], baseline: str) -> list[str]:
    """Arms that share no seed with the baseline, so that no difference is paired."""
    seeds = {arm: {run.seed for run in members if run.state == "finished"} for arm, members in arms.items()}
    return [
        f"{arm} and the baseline, {baseline}, have no seed in common, so no difference is told; train {arm} "
        f"with seed {', '.join(map(str, sorted(theirs)))}, too"
        for arm, mine in seeds.items()
        for theirs in [seeds[baseline]]
        if mine and theirs and not mine & theirs
    ]


def mixed(runs: Sequence[Run]) -> list[str]:
    """Finished runs that different code, packages, data or hardware made: their difference may be that of the arms."""
    done = [run for run in runs if run.state == "finished"]
    notes = [f"config.yaml of {run.out.name} was changed after it ran" for run in done if was_edited(run)]
    for what, read in (
        ("code of rmlab", lambda e: e.get("code")),
        ("Python", lambda e: e.get("python")),
        ("numbers of processes", lambda e: e.get("processes")),
        ("hardware", lambda e: {k: v for k, v in e.get("hardware", {}).items() if k != "cpus"}),
    ):
        note = differing(what, (read(run.environment) for run in done))
        notes += [note] if note else []
    packages = {name for run in done for name in run.environment.get("packages", {})}
    for name in sorted(packages - {"rmlab"}):
        note = differing(f"versions of {name}", (run.environment.get("packages", {}).get(name) for run in done))
        notes += [note] if note else []
    inputs = [run.environment.get("inputs", {}) for run in done]
    for file in sorted({file for read in inputs for file in read}):
        note = differing(f"contents of {file}", (read[file] for read in inputs if file in read))
        notes += [note] if note else []
    return notes


def was_edited(run: Run) -> bool:
    """Whether config.yaml differs from the config that environment.json recorded; False if that has none."""
    recorded = run.environment.get("config")
    return recorded is not None and json.loads(json.dumps(computed(run.config))) != recorded


def differing(what: str, values: Iterable[object]) -> str | None:
    """`made by different code of rmlab: 3 runs ..., 2 runs ...`, or None where all agree."""
    kinds = Counter(json.dumps(value, sort_keys=True) for value in values)
    if len(kinds) < 2:
        return None
    parts = [f"{count} run{'s'[: count != 1]} {kind}" for kind, count in kinds.items()]
    return f"runs were made by different {what}: {', '.join(parts)}"
