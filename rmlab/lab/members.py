"""The finished runs of an arm, which differ in their seeds: the members of an ensemble."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab.messages import UserError
from rmlab.report.arms import find_arm
from rmlab.report.runs import Run
from rmlab.report.study import Study, load_study

if TYPE_CHECKING:  # which imports torch
    from rmlab.scoring.ensemble import Ensemble


def ensemble_of_study(study: str | Path, arm: str | None = None, **options: Any) -> "Ensemble":
    """The models that the finished runs of an arm have kept, as one. options: of rmlab.Ensemble.load.

    arm: its name in the report, or words of it; None where there is only one. UserError for no such study or arm, and
    for runs that have kept no model.
    """
    from rmlab.scoring.ensemble import Ensemble

    found = load_study(Path(study))
    return Ensemble.load([str(run.out) for run in seeds_of(found, the_arm(found, arm))], **options)


def the_arm(study: Study, wanted: str | None) -> str:
    """The arm that is meant. UserError where it is not clear which."""
    if wanted is None and len(study.arms) > 1:
        raise UserError(f"{study.name} has several arms; name one: {', '.join(map(repr, study.arms))}")
    return find_arm(wanted, {arm: study.values[arm] for arm in study.arms}, study.tune, "arm")


def seeds_of(study: Study, arm: str) -> Sequence[Run]:
    """Its finished runs, the last of each seed. UserError where there are fewer than two."""
    finished = list({run.seed: run for run in study.arms[arm] if run.state == "finished"}.values())
    if len(finished) < 2:
        raise UserError(f"{arm} of {study.name} has {len(finished)} finished run; an ensemble is of two seeds at least")
    return finished
