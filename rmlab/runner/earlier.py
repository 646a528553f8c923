"""The run of another study that a run follows, by its seed: `${rmlab_run:STUDY,${seed}}` in a config."""

from pathlib import Path

from rmlab.messages import UserError
from rmlab.runner.directory import RunDirectory


def earlier_run(study: str, seed: int, root: str = "runs") -> str:
    """The directory of the one finished run of that seed in root/STUDY.

    UserError where there is none, or several: a study that others follow has one arm.
    """
    places = [RunDirectory(place) for place in sorted((Path(root) / study).glob("*/")) if RunDirectory(place).is_run]
    found = [out for out in places if out.is_finished and not out.is_reproduction and out.config()["seed"] == seed]
    if len(found) != 1:
        said = "no finished run" if not found else f"{len(found)} runs"
        raise UserError(
            f"{Path(root) / study} has {said} of seed {seed}, and one is to be followed; run that study first"
        )
    return str(found[0].path)
