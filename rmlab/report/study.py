"""The runs of a study and its arms: what varies between their configs, seeds apart."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmlab.messages import UserError, did_you_mean
from rmlab.runner.config import computed, flatten
from rmlab.runner.directory import RunDirectory

Values = dict[str, Any]  # the varied keys of an arm, shortest unambiguous name -> value


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


@dataclass
class Study:
    """Runs by arm, the baseline first. values[arm]: what makes the arm; notes: what a reader must know of the runs."""

    folder: Path
    question: str | None
    runs: list[Run]
    arms: dict[str, list[Run]]
    values: dict[str, Values]
    baseline: str
    tune: list[str]
    notes: list[str]

    @property
    def finished(self) -> list[Run]:
        """Runs that have metrics, in the order of their directories."""
        return [run for run in self.runs if run.state == "finished"]


def load_study(folder: Path, baseline: str | None = None, tune: Sequence[str] | None = None) -> Study:
    """The study in runs/STUDY. baseline and tune: as asked for, else as the runs' configs say.

    UserError where there is no finished run, or no such arm.
    """
    runs = [load_run(out) for out in run_directories(folder)]
    if not any(run.state == "finished" for run in runs):
        what = "is a run; give its study" if RunDirectory(folder).is_run else "holds no finished run; give a study"
        damaged = next(
            (f"; {run.out.name} is damaged: {run.out.damage()}" for run in runs if run.state == "damaged"), ""
        )
        raise UserError(f"{folder} {what}, for example runs/losses{damaged}")
    values = name_arms(runs)
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(run)
    newest = max((r for r in runs if r.state == "finished"), key=lambda r: r.out.stamps()[0] or 0)
    told = newest.config.get("report") or {}
    kept = nuisance_keys(tune, told.get("tune") or [], {key for mine in values.values() for key in mine})
    done = {run.arm: values[run.arm] for run in runs if run.state == "finished"}
    done = {arm: done[arm] for arm in sorted(done, key=natural(values))}
    first = find_arm(baseline or told.get("baseline"), done, kept, "--baseline" if baseline else "report.baseline")
    ordered = {first: arms[first], **{name: arms[name] for name in sorted(arms, key=natural(values))}}
    for members in ordered.values():
        members.sort(key=lambda run: run.seed)
    return Study(
        folder=folder,
        question=newest.config.get("question"),
        runs=runs,
        arms=ordered,
        values={name: values[name] for name in ordered},
        baseline=first,
        tune=kept,
        notes=[*unfinished(runs), *uneven(ordered), *mixed(runs)],
    )


def nuisance_keys(asked: Sequence[str] | None, told: Sequence[str], varied: set[str]) -> list[str]:
    """Of the keys asked for (else of those that the runs' configs tell) the ones that vary; UserError for another."""
    wanted = list(asked if asked is not None else told)
    kept = [key for key in wanted if any(is_one_of(name, [key]) for name in varied)]
    if asked is not None and kept != wanted:
        wrong = sorted(set(wanted) - set(kept))[0]
        raise UserError(f"--tune: {wrong!r} does not vary here; what varies: {', '.join(sorted(varied)) or 'nothing'}")
    return kept


def run_directories(folder: Path) -> list[RunDirectory]:
    """Directories with a run's config.yaml; a reproduction is no run of its study."""
    found = [RunDirectory(place) for place in sorted(folder.glob("*/")) if RunDirectory(place).is_run]
    return [out for out in found if {"seed", "run", "loss"} <= out.config().keys() and not out.is_reproduction]


def load_run(out: RunDirectory) -> Run:
    """What the directory holds; a finished run has no error of an earlier try. UserError for a damaged file."""
    run = Run(out, out.state, out.config(), error=out.error())
    if run.state == "finished":
        run.error, run.environment, run.metrics, run.history = "", out.environment(), out.metrics(), out.history()
    return run


# ---- arms ----


def name_arms(runs: Sequence[Run]) -> dict[str, Values]:
    """Set every run's `arm`, and return what makes each of them.

    An arm is what differs between the configs of the runs, the seed apart. A group whose chosen options say all
    (loss=plain, loss=margin) is named by the option alone, other values by key=value, keys as short as they can be.
    """
    flat = [flatten({k: v for k, v in computed(run.config).items() if k != "seed"}) for run in runs]
    keys = sorted({key for one in flat for key in one})
    varied = [key for key in keys if len({repr(one.get(key)) for one in flat}) > 1]
    options = {group: chosen(runs, group) for group in {key.partition(".")[0] for key in varied}}
    short = shorten(varied)
    values: dict[str, Values] = {}
    for place, (run, one) in enumerate(zip(runs, flat, strict=True)):
        mine: Values = {}
        for group in sorted(options):
            below = [key for key in varied if key.partition(".")[0] == group]
            if len(set(options[group])) > 1:
                option = options[group][place]
                mine[group] = option
                same = [other for other, name in zip(flat, options[group], strict=True) if name == option]
                below = [key for key in below if len({repr(other.get(key)) for other in same}) > 1]
            mine.update({short[key]: one[key] for key in below if key in one})
        run.arm = label(mine) or str(run.config["run"].get("name") or "run")
        values[run.arm] = mine
    return values


def chosen(runs: Sequence[Run], group: str) -> list[str | None]:
    """The option of a config group that each run chose; nothing if any of them does not say."""
    options = [run.config["run"].get("choices", {}).get(group) for run in runs]
    if group == "loss":
        options = [option or run.config["run"].get("name") for option, run in zip(options, runs, strict=True)]
    return options if all(options) else [None] * len(runs)


def label(values: Values) -> str:
    """`margin`, `learning_rate=0.001`, `margin learning_rate=0.001`: options by name alone, other values with key."""
    groups = ("model", "data", "loss", "peft")
    return " ".join(str(v) if k in groups else f"{k}={show(v)}" for k, v in values.items())


def show(value: Any) -> str:
    """Short, but never so short that two values look alike."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "none" if value is None else str(value)


def is_one_of(name: str, keys: Sequence[str]) -> bool:
    """Whether the short name of a varied key stands for one of these dotted keys."""
    return any(f".{key}".endswith(f".{name}") for key in keys)


def without(values: Values, keys: Sequence[str]) -> Values:
    """What makes an arm, nuisance keys apart."""
    return {name: value for name, value in values.items() if not is_one_of(name, keys)}


SAYS_NOTHING = ("weight", "path", "name", "source")  # without what it is of


def shorten(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key by its last part, or by as many as say what it is and tell it from the others."""
    short = {}
    for key in keys:
        parts = key.split(".")
        for n in range(1 + (parts[-1] in SAYS_NOTHING and len(parts) > 1), len(parts) + 1):
            end = "." + ".".join(parts[-n:])
            if sum(f".{other}".endswith(end) for other in keys) == 1:
                break
        short[key] = end[1:]
    return short


def find_arm(wanted: str | None, values: Mapping[str, Values], tune: Sequence[str], where: str) -> str:
    """The arm of that label, or the only one with these words in its label; without a wish `plain`, else the first.

    Arms that differ in nuisance values alone are one. A UserError for none and for several.
    """
    arms = list(values)
    if wanted is None:
        return next((arm for arm in arms if "plain" in arm.split()), arms[0])
    words = set(wanted.split())
    found = [wanted] if wanted in arms else [arm for arm in arms if words <= set(arm.split())]
    if not found and where == "report.baseline":  # of a sweep that was changed on the command line
        return find_arm(None, values, tune, where)
    if not found:
        raise UserError(f"{where}: no arm {wanted!r}{did_you_mean(wanted, arms)}")
    if len({label(without(values[arm], tune)) for arm in found}) > 1 and where != "report.baseline":
        raise UserError(f"{where}: {wanted!r} may be {' or '.join(repr(arm) for arm in found)}; say which")
    return found[0]


def natural(values: Mapping[str, Values]) -> Callable[[str], list[tuple[int, float, str]]]:
    """Sort key of arms: numbers by size, words by letter."""

    def key(arm: str) -> list[tuple[int, float, str]]:
        return [
            (0, float(v), "") if isinstance(v, int | float) and not isinstance(v, bool) else (1, 0.0, str(v))
            for v in values[arm].values()
        ]

    return key


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
        f"{run.out.name} ({run.arm}, seed {run.seed}) {HAPPENED[run.state]}" + f": {why}" * bool(why)
        for run in runs
        if run.state != "finished"
        for why in [run.out.damage() if run.state == "damaged" else run.error]
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
