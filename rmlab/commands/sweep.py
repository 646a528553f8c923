"""What stands between a Hydra sweeper and its launcher, whichever they are: nothing is run twice, nothing is lost.

Every sweeper (basic, Optuna) hands its jobs to a launcher (serial, joblib, submitit, Ray) in one call, `launch`. Here
that call first looks at the run directories: finished runs are not launched again. It then shows how the sweep comes
along, waits for runs that another process trains, and says at the end which runs failed and why.
"""

import contextlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from rmlab.commands.progress import Progress, wait_for
from rmlab.messages import UserError, processes
from rmlab.runner.config import Config, to_dict
from rmlab.runner.directory import BusyError, RunDirectory, describe, objective
from rmlab.runner.environment import changed_since, fingerprints
from rmlab.runner.keep import tidy
from rmlab.runner.renamed import refuse_renamed
from rmlab.runner.suites import outstanding
from rmlab.secrets import masked, secrets_of
from rmlab.terminal import tell
from rmlab.upstream import launchers, returned

log = logging.getLogger("rmlab")
INTENDED = {
    "finished": "finished (skipped)",
    "redone": "finished (trained again)",
    "unscored": "finished (scored on more suites)",
    "half-done": "half-done (resumed)",
    "damaged": "damaged (trained again)",
    "failed": "failed (tried again)",
    "running": "run by another process",
    "new": "new",
}


def settings_of(config: DictConfig) -> dict[str, Any]:
    """The resolved config of a job, with the options that were chosen of each group, for the names of arms."""
    settings = to_dict(config)
    choices = HydraConfig.get().runtime.choices
    settings["run"]["choices"] = {str(k): v for k, v in choices.items() if not str(k).startswith("hydra")}
    return settings


@contextlib.contextmanager
def watched_launches() -> Iterator[list[str]]:
    """Puts a `Watched` around every launcher that Hydra makes meanwhile. The list fills with the runs that failed."""
    failed: list[str] = []
    made: list[Watched] = []

    def watched(launcher: Launcher, loader: Any, config: DictConfig) -> Watched:
        made.append(Watched(launcher, loader, config, failed))
        return made[-1]

    with launchers(watched):
        yield failed
    for launcher in made:
        if launcher.number - len(failed) > 1:
            tell(f"rmlab-report {launcher.root} compares the arms")


@dataclass(frozen=True)
class Job:
    """A run of a sweep. config: None for one that does not resolve; the job itself will say why."""

    overrides: list[str]
    out: RunDirectory
    config: dict[str, Any] | None

    @property
    def intention(self) -> str:
        """One of INTENDED: the state of the run, and what it means for this sweep."""
        config, state = self.config, self.out.state
        if state == "finished" and config:
            return "redone" if config["run"]["redo"] else "unscored" if outstanding(config["eval"], self.out) else state
        return state


class Watched(Launcher):
    """A launcher that launches through another one what is left to do."""

    def __init__(self, inner: Launcher, loader: Any, config: DictConfig, failed: list[str]) -> None:
        self.inner, self.loader, self.config, self.failed = inner, loader, config, failed
        self.root, self.number = Path(config.hydra.sweep.dir), 0
        self.root.mkdir(parents=True, exist_ok=True)  # where sweepers keep a database
        # The basic sweeper only asks whether a job failed, to stop; others (Optuna) must be told.
        self.swallow = config.hydra.runtime.choices["hydra/sweeper"] == "basic"

    def setup(self, **_: Any) -> None:
        """The inner launcher is set up already."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Skip finished runs, launch the others until each has ended, and return a result per job, in the order given.

        For the basic sweeper a failed run counts as completed without a value, so that it goes on; and a mistake that
        all jobs share ends the process with exit status 2 before anything is launched.
        """
        setup_globals()
        refuse_several_processes()
        numbered = enumerate(job_overrides, start=initial_job_idx)
        try:
            jobs = [self.plan(list(overrides), number) for number, overrides in numbered]
        except UserError as error:
            print(f"rmlab: error: {error}", file=sys.stderr)
            raise SystemExit(2) from None  # which Hydra lets pass
        self.number = initial_job_idx + len(jobs)
        mask_file(self.root / "multirun.yaml", [job.config for job in jobs])
        intended = [job.intention for job in jobs]
        both = list(zip(jobs, intended, strict=True))
        if self.swallow:  # a trial of Optuna is not the whole sweep: others may run
            refuse_if_none_can_run([j for j, found in both if found != "finished"])
        for job, found in both:
            if job.config and found == "new":
                written = masked(job.config, secrets_of(job.config))
                job.out.write_config(written)  # so that a run that never starts is seen
        quiet = not any(job.config["run"]["verbose"] for job in jobs if job.config)
        announce(self.config.study, intended, quiet)
        for job, found in both:
            if found == "damaged":
                tell(f"{job.out} is damaged: {job.out.damage()}")
            if found == "finished":
                tidy(job.out)
        warn_of_doubles(jobs)
        warn_of_changes([job for job, found in both if found == "finished"])
        results: list[Any] = [finished(job.out) if found == "finished" else None for job, found in both]
        for job, found in both:
            if found == "failed":
                job.out.forget_error()
        self.launch_open(jobs, results, initial_job_idx, quiet)
        self.summarise(jobs, results)
        return [completed(None) if self.swallow and r.status == JobStatus.FAILED else r for r in results]

    def launch_open(self, jobs: Sequence[Job], results: list[Any], initial_job_idx: int, quiet: bool) -> None:
        """Launch the jobs without a result until each has one, and fill it in; tell of each that ends."""
        todo = [i for i, result in enumerate(results) if result is None]
        names = names_of(jobs, self.root)
        open_runs = {jobs[i].out: names[jobs[i].out] for i in todo}
        with Progress(open_runs, self.number - len(open_runs), quiet) as progress:
            while todo:
                wait_for([jobs[i].out for i in todo])
                ended, ready = len(progress.ended), [i for i in todo if not jobs[i].out.is_locked]
                jobs_returned = self.launch_inner([jobs[i].overrides for i in ready], initial_job_idx) if ready else []
                progress.look()
                for i, result in zip(ready, jobs_returned, strict=True):
                    whole = progress.has_finished(jobs[i].out) and not jobs[i].out.error()
                    results[i] = finished(jobs[i].out) if whole else result
                still_open = [i for i in ready if self.is_open(jobs[i].out, results[i], len(progress.ended) > ended)]
                todo = [i for i in todo if i not in ready or i in still_open]
            for job, result in zip(jobs, results, strict=True):
                if result.status == JobStatus.FAILED and not job.out.error():
                    job.out.write_error(returned(result))  # it was killed before it could write by itself

    def is_open(self, out: RunDirectory, result: JobReturn, others_ended: bool) -> bool:
        """Whether a job is to be launched again: another process has the run, or the launcher died before its end.

        A launcher dies with one worker and takes the others along. So what has no error of its own is tried again, as
        long as each try brings some run to its end.
        """
        if isinstance(returned(result), BusyError):
            return True
        return result.status == JobStatus.FAILED and not out.error() and (others_ended or out.state == "running")

    def plan(self, overrides: list[str], number: int) -> Job:
        """The job of these overrides, in the directory that Hydra will give it."""
        refuse_renamed(overrides)
        config = self.loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        HydraConfig.instance().set_config(config)
        out = RunDirectory(Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir)
        task_config = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
        try:
            settings = settings_of(task_config)
        except Exception:
            return Job(overrides, out, None)
        refuse_directory_without_id(out, settings["run"]["id"])
        return Job(overrides, out, settings)

    def launch_inner(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """A result per job; if the launcher itself stops, its error is the result of every job."""
        try:
            return self.inner.launch(job_overrides, initial_job_idx)
        except Exception as error:
            tell(f"the launcher stopped: {describe(error)}")
            log.exception("the launcher stopped")
            return [JobReturn(status=JobStatus.FAILED, _return_value=error) for _ in job_overrides]

    def summarise(self, jobs: Sequence[Job], results: Sequence[JobReturn]) -> None:
        """One line that names the runs that failed; why was told when each ended."""
        outcomes = zip(jobs, results, strict=True)
        broken = [job.out for job, result in outcomes if result.status == JobStatus.FAILED]
        if broken:
            names = ", ".join(dict.fromkeys(str(out) for out in broken))
            tell(f"{len(broken)} of {len(jobs)} runs failed, error.txt in each says all: {names}")
            tell("the same command tries them again")
        self.failed += map(str, broken)


def names_of(jobs: Sequence[Job], root: Path) -> dict[RunDirectory, str]:
    """Each run below `root`, with the overrides that not all jobs have but for those that the directory tells."""
    common = set.intersection(*(set(job.overrides) for job in jobs))
    told = ("loss=", "seed=")
    own = {job.out: [o for o in job.overrides if o not in common and not o.startswith(told)] for job in jobs}
    return {out: " ".join([os.path.relpath(out.path, root), *overrides]) for out, overrides in own.items()}


def mask_file(file: Path, configs: Sequence[Any]) -> None:
    """Hydra writes down the whole sweep, as it was typed."""
    secrets = secrets_of(list(configs))
    if secrets and file.exists():
        file.write_text(masked(file.read_text(encoding="utf-8"), secrets), encoding="utf-8")


def refuse_directory_without_id(out: RunDirectory, run_id: str) -> None:
    """Exit status 2 where hydra.sweep.subdir gives runs directories that others would have too."""
    if run_id not in str(out.path):
        print(
            f"rmlab: error: hydra.sweep.dir and hydra.sweep.subdir give {out}, without the run's id: another sweep "
            "would take it for its own run; put ${run.id} in hydra.sweep.subdir, or leave both as they are",
            file=sys.stderr,
        )
        raise SystemExit(2)  # which Hydra lets pass


def refuse_several_processes() -> None:
    """torchrun and accelerate start the command several times, and each would draw and launch runs of its own."""
    if processes() > 1:
        print(
            "rmlab: error: a sweep is one process; launch each of its runs on its own under torchrun or accelerate",
            file=sys.stderr,
        )
        raise SystemExit(2)  # which Hydra lets pass


def refuse_if_none_can_run(jobs: Sequence[Job]) -> None:
    """A mistake that all jobs share is said once, and nothing is launched: exit status 2."""
    errors = []
    for job in jobs:
        try:
            if job.config is None:
                return
            Config.of(job.config).check()
            return  # this one can
        except UserError as error:
            errors.append(error)
    if errors:
        print(f"rmlab: error: {errors[0]}", file=sys.stderr)
        raise SystemExit(2)  # which Hydra lets pass


def finished(out: RunDirectory) -> JobReturn:
    """The result of a run that need not be launched: its objective, read from metrics.json."""
    return completed(objective(out.metrics()))


def completed(value: Any) -> JobReturn:
    """A result as launchers return it for a job that did not fail; None: a job without an objective."""
    return JobReturn(status=JobStatus.COMPLETED, _return_value=value)


def announce(study: str, intended: Sequence[str], quiet: bool) -> None:
    """One line: how many runs there are, of each kind, and where to read what they say."""
    counts = Counter(intended)
    parts = [f"{counts[key]} {INTENDED[key]}" for key in INTENDED if counts[key]]
    where = "; what they say is in the rmlab.log of each, or here with -v"
    trained = quiet and any(found != "finished" for found in intended)
    tell(f"sweep {study}: {len(intended)} run{'s'[: len(intended) != 1]}: {', '.join(parts)}{where * trained}")


def warn_of_doubles(jobs: Sequence[Job]) -> None:
    """Jobs of one directory, in one line: they differ in nothing that is computed, so only the first is trained."""
    doubles = len(jobs) - len({job.out for job in jobs})
    if doubles:
        tell(
            f"warning: {doubles} of the {len(jobs)} runs are the same as another, and are trained once: study, run, "
            "logger and report say not what is computed; give each value of run.threads and the like a study of its own"
        )


def warn_of_changes(jobs: Sequence[Job]) -> None:
    """Finished runs that other code, packages or data made, in one line."""
    changed = [changed_since(job.out.environment(), fingerprints(Config.of(job.config))) for job in jobs if job.config]
    keys = sorted({key for found in changed for key in found})
    if keys:
        number = sum(bool(found) for found in changed)
        tell(
            f"warning: {number} finished runs were made by other {' and '.join(keys)} than is here now; "
            "run.redo=true to redo them"
        )
