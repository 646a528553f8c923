"""Checkpoints that a killed run can trust: whole ones are marked, half-written ones are passed over."""

from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rmlab.upstream import load_trained

MARK = "whole"


class MarkWhole(TrainerCallback):
    """Leaves an empty file `whole` in every checkpoint after its last byte is written."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Trainer calls this on every rank once a checkpoint is saved; the first one marks it."""
        if state.is_world_process_zero:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / MARK).touch()


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest marked checkpoint of a run, to resume from; None if there is none."""
    whole = [mark.parent for mark in folder.glob(f"checkpoint-*/{MARK}")]
    return str(max(whole, key=lambda place: int(place.name.split("-")[1]))) if whole else None


def train_or_resume(trainer: Trainer, checkpoint: str | None) -> None:
    """Train, or go on from a checkpoint. One from after the last step is only loaded: Trainer would take one more."""
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        if state.global_step >= state.max_steps:
            trainer.state = state
            load_trained(trainer, checkpoint, bool(trainer.args.load_best_model_at_end and state.best_model_checkpoint))
            return
    trainer.train(resume_from_checkpoint=checkpoint)
