"""What a finished run leaves on the disk besides its numbers: `run.keep`."""

import contextlib
import shutil
from typing import TYPE_CHECKING

from rmlab.data import Tokenizer
from rmlab.messages import UserError, is_first_rank
from rmlab.runner.config import KEPT, Config
from rmlab.runner.directory import RunDirectory

if TYPE_CHECKING:  # which imports torch
    from rmlab.training.trainer import RewardTrainer


def keeps_model(config: Config) -> bool:
    """Whether a finished run has its model still, or what it takes to make it."""
    return bool({"model", "changes"} & set(config.run.keep))


def keep_model(config: Config, out: RunDirectory, trainer: "RewardTrainer", tokenizer: Tokenizer) -> None:
    """model/, and adapter/ where there is one. Every rank must call it, as weights may be spread over them."""
    from rmlab.model.export import export, gathered
    from rmlab.model.reference import keep_reference

    model = trainer.accelerator.unwrap_model(trainer.model)
    weights = gathered(model)
    if weights is None and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        shutil.rmtree(out.model, ignore_errors=True)  # of an earlier try, which may have kept other files
        export(model, tokenizer, out.model, weights, changes="changes" in config.run.keep)
        for name, evaluation in list(trainer.evaluations.items())[:1]:
            keep_reference(out.model, evaluation.comparisons, f"the evaluation set {name} of its run")


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
