"""The runs of a study and its arms: what varies between their configs, seeds apart."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rmlab.messages import UserError, did_you_mean
from rmlab.report.arms import Values, as_swept, find_arm, is_one_of, name_arms
from rmlab.report.runs import Run, apart, load_run, mixed, run_directories, studies, uneven, unfinished
from rmlab.runner.directory import RunDirectory
from rmlab.runner.published import Published


@dataclass
class Study:
    """Runs by arm, the baseline first. values[arm]: what makes the arm; notes: what a reader must know of the runs.

    usual: what most arms have in common, and names do not say. outside: arm -> its file, of scores that no
    run of the study made; such an arm has no runs. published: a paper's table, as the newest run quotes it.
    """

    folders: list[Path]
    question: str | None
    runs: list[Run]
    arms: dict[str, list[Run]]
    values: dict[str, Values]
    baseline: str
    tune: list[str]
    notes: list[str]
    usual: Values = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)
    called: str = ""
    published: Published | None = None

    @property
    def name(self) -> str:
        """Of its folder, or of all of them; of a study without runs what it is called."""
        return " + ".join(folder.name for folder in self.folders) or self.called

    @property
    def title(self) -> str:
        """The question that it answers, or its name."""
        return self.question or f"{'Study' if self.folders else 'Scores on'} {self.name}"

    @property
    def finished(self) -> list[Run]:
        """Runs that have metrics, in the order of their directories."""
        return [run for run in self.runs if run.state == "finished"]


def load_study(
    folders: Path | Sequence[Path],
    baseline: str | None = None,
    tune: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
) -> Study:
    """The study in runs/STUDY, or several as one; a folder of studies stands for all of them.

    baseline and tune: as asked for, else as the runs' configs say. exclude: arms or runs to leave out, by name.
    UserError where there is no finished run, or no such arm.
    """
    folders = [place for folder in ([folders] if isinstance(folders, Path) else folders) for place in studies(folder)]
    read = [load_run(out) for folder in folders for out in run_directories(folder)]
    runs, lost = [run for run in read if run.config], [run for run in read if not run.config]
    refuse_nothing_finished(folders, read)
    told_all = [key for run in runs for key in (run.config.get("report") or {}).get("tune") or []]
    asked = list(tune if tune is not None else dict.fromkeys(told_all))  # a key to tune by is never left out of arms
    name_arms(runs, asked)
    runs, left_out = without_excluded(runs, exclude)
    refuse_nothing_finished(folders, runs)
    named = name_arms(runs, asked)
    values = named.values
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(run)
    newest = max((r for r in runs if r.state == "finished"), key=lambda r: r.out.stamps()[0] or 0)
    told = newest.config.get("report") or {}
    kept = nuisance_keys(tune, told.get("tune") or [], {key for mine in values.values() for key in mine})
    done = {run.arm: values[run.arm] for run in sorted(runs, key=lambda r: r.made) if run.state == "finished"}
    first = find_arm(baseline or told.get("baseline"), done, kept, "--baseline" if baseline else "report.baseline")
    order = as_swept(arms, values)
    ordered = {first: arms[first], **{name: arms[name] for name in order}}
    for members in ordered.values():
        members.sort(key=lambda run: run.seed)
    return Study(
        folders=folders,
        question=newest.config.get("question") if len(folders) == 1 else None,
        runs=runs,
        arms=ordered,
        values={name: values[name] for name in ordered},
        baseline=first,
        tune=kept,
        notes=[*left_out, *unfinished([*runs, *lost]), *uneven(ordered), *apart(ordered, first), *mixed(runs)],
        usual=named.usual,
        published=Published.of(told["published"]) if told.get("published") else None,
    )


def refuse_nothing_finished(folders: Sequence[Path], runs: Sequence[Run]) -> None:
    """UserError unless there is a finished run."""
    if any(run.state == "finished" for run in runs):
        return
    folder = folders[0]
    what = "is a run; give its study" if RunDirectory(folder).is_run else "holds no finished run; give a study"
    damaged = next((f"; {run.out.name} is damaged: {run.error}" for run in runs if run.state == "damaged"), "")
    raise UserError(f"{folder} {what}, for example runs/losses{damaged}")


def nuisance_keys(asked: Sequence[str] | None, told: Sequence[str], varied: set[str]) -> list[str]:
    """Of the keys asked for (else of those that the runs' configs tell) the ones that vary; UserError for another."""
    wanted = list(asked if asked is not None else told)
    kept = [key for key in wanted if any(is_one_of(name, [key]) for name in varied)]
    if asked is not None and kept != wanted:
        wrong = sorted(set(wanted) - set(kept))[0]
        raise UserError(f"--tune: {wrong!r} does not vary here; what varies: {', '.join(sorted(varied)) or 'nothing'}")
    return kept


def without_excluded(runs: Sequence[Run], exclude: Sequence[str]) -> tuple[list[Run], list[str]]:
    """(the runs that stay, a note per name). A name is an arm, words of arms, or how run directories begin.

    UserError for a name that is none.
    """
    gone: set[int] = set()
    notes = []
    for name in exclude:
        words = set(name.split())
        found = [n for n, run in enumerate(runs) if run.arm == name]
        found = found or [
            n for n, run in enumerate(runs) if words <= set(run.arm.split()) or run.out.name.startswith(name)
        ]
        if not found:
            known = sorted({run.arm for run in runs})
            raise UserError(f"--exclude: no arm or run {name!r}{did_you_mean(name, known)}")
        gone.update(found)
        notes.append(f"left out by --exclude {name}: {len(found)} run{'s'[: len(found) != 1]}")
    return [run for n, run in enumerate(runs) if n not in gone], notes
