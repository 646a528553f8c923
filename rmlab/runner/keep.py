"""What a finished run leaves on the disk besides its numbers: `run.keep`."""

import contextlib
import shutil

from rmlab.messages import UserError, is_first_rank
from rmlab.runner.config import KEPT
from rmlab.runner.directory import RunDirectory


def forget_checkpoints(out: RunDirectory) -> None:
    """Of a run that has its metrics, unless it was to keep them. Call it with the directory locked.

    What it was to keep stands in its own config.yaml, whatever was asked for since; of a run before there was
    `run.keep` all stays.
    """
    run = out.config().get("run", {})
    if is_first_rank() and out.has_metrics and "checkpoints" not in run.get("keep", KEPT):
        shutil.rmtree(out.checkpoints, ignore_errors=True)


def tidy(out: RunDirectory) -> None:
    """The same of a finished run, where a kill between its metrics and its end has left them."""
    if out.checkpoints.exists():
        with contextlib.suppress(UserError, OSError), out.locked():  # busy, damaged, or to be read only
            forget_checkpoints(out)
