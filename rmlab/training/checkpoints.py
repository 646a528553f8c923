"""Checkpoints that a killed run can trust: sealed with size and hash of each file, removed by step, not by a clock."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rmlab.files import SEAL, damage, read_seal, seal
from rmlab.messages import UserError, say
from rmlab.model.export import write_card
from rmlab.upstream import load_trained, loss_since_log, set_loss_since_log

if TYPE_CHECKING:
    from rmlab.training.trainer import RewardTrainer

# ---- writing ----


@contextlib.contextmanager
def sealed(trainer: Trainer) -> Iterator[None]:
    """Around the writing of a checkpoint: seal it and then remove older ones; what could not be written leaves nothing.

    Trainer itself would remove by time of change, which a clock that went back turns round, and before anything marks
    the new one as whole.
    """
    args, step = trainer.args, trainer.state.global_step
    folder, limit = Path(str(args.output_dir)), args.save_total_limit
    place, args.save_total_limit = folder / f"checkpoint-{step}", None
    try:
        yield
        trainer.accelerator.wait_for_everyone()  # every rank has its own files in it
        if trainer.is_world_process_zero():
            seal(place, resumable=not args.save_only_model)
            rotate(folder, limit, keep={place, Path(trainer.state.best_model_checkpoint or place)})
    except Exception:
        if trainer.is_world_process_zero() and not (place / SEAL).exists():
            shutil.rmtree(place, ignore_errors=True)  # of a full disk: half a checkpoint helps nobody
        raise
    finally:
        args.save_total_limit = limit


def rotate(folder: Path, limit: int | None, keep: set[Path]) -> None:
    """Remove the checkpoints of the lowest steps until `limit` are left, but none of `keep`; None or 0: keep all."""
    if not limit:
        return
    others = [place for place in checkpoints(folder) if place not in keep]
    for place in others[: max(0, len(others) + len(keep) - limit)]:
        shutil.rmtree(place, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a folder, whole or not, by step."""
    found = [place for place in folder.glob("checkpoint-*") if place.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=lambda place: int(place.name.removeprefix("checkpoint-")))


# ---- reading ----


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint to resume from; None if there is none. A damaged one is named and passed over."""
    for place in reversed(checkpoints(folder)):
        wrong = damage(place)
        if wrong is None and read_seal(place).get("resumable"):
            return str(place)
        if (place / SEAL).exists():  # without it the run was killed while it wrote, as killed runs are
            say(f"{place} is passed over: {wrong or 'it holds no optimizer state (save_only_model)'}")
    return None


def checkpoint_to_resume(trainer: Trainer, wanted: str | bool | None) -> str | bool | None:
    """What Trainer is to resume from, the same on all ranks; for True the newest whole one if any is sealed.

    UserError for a sealed one that is damaged. One that another trainer wrote has no seal, and is not looked at.
    """
    chosen: list[Any] = [wanted, None]
    if wanted and trainer.is_world_process_zero():
        if wanted is True:
            chosen[0] = last_whole_checkpoint(Path(str(trainer.args.output_dir))) or True
        elif (Path(wanted) / SEAL).exists():
            chosen[1] = damage(Path(wanted))
    if trainer.args.world_size > 1:
        broadcast_object_list(chosen)
    if chosen[1] is not None:
        raise UserError(f"{wanted} is damaged: {chosen[1]}; resume from another checkpoint")
    return chosen[0]


def train_or_resume(trainer: "RewardTrainer") -> None:
    """Train, or go on from the last whole checkpoint; one from after the last step is only loaded.

    Trainer would take one more step. Of early stopping too: what stopped it then is in the checkpoint.
    """
    checkpoint = checkpoint_to_resume(trainer, True)
    if not isinstance(checkpoint, str):
        trainer.train()
        return
    state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
    control: dict[str, Any] = state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
    if state.global_step >= state.max_steps or control.get("should_training_stop"):
        say(f"trained already, {state.global_step} steps; {checkpoint} is loaded")
        trainer.state = state
        load_trained(trainer, checkpoint, bool(trainer.args.load_best_model_at_end and state.best_model_checkpoint))
        return
    say(f"goes on from step {state.global_step} of {state.max_steps}: {checkpoint}")
    trainer.train(resume_from_checkpoint=checkpoint)


# ---- what was measured since the last log ----


class Windows(TrainerCallback):
    """Training metrics begin anew with training, or as they stood in the checkpoint that it goes on from.

    So that a resumed run logs what an uninterrupted one does, also where logging and saving do not meet.
    """

    def __init__(self, trainer: "RewardTrainer") -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Also called where auto_find_batch_size begins again, after a batch that did not fit."""
        trainer, resumed = self.trainer, self.trainer.resumed_from
        trainer.running.clear()
        if isinstance(resumed, str) and (file := window_file(trainer, Path(resumed))).exists():
            window = json.loads(file.read_text(encoding="utf-8"))
            set_loss_since_log(trainer, window["loss"], window["logged"])
            trainer.running.load(window["sums"], window["steps"], args.device)


def callbacks_of(trainer: "RewardTrainer") -> list[TrainerCallback]:
    """What a trainer needs besides transformers' own callbacks."""
    patience = trainer.args.early_stopping_patience
    return [Windows(trainer), *([] if patience is None else [EarlyStoppingCallback(patience)])]


def write_beside(trainer: "RewardTrainer") -> None:
    """Into the checkpoint of this step: the sums of this rank since the last log, and a model card."""
    loss, logged = loss_since_log(trainer)
    sums, steps = trainer.running.state()
    place = Path(str(trainer.args.output_dir)) / f"checkpoint-{trainer.state.global_step}"
    content = {"loss": loss, "logged": logged, "sums": sums, "steps": steps}
    window_file(trainer, place).write_text(json.dumps(content), encoding="utf-8")
    if trainer.is_world_process_zero():
        write_card(place, trainer.accelerator.unwrap_model(trainer.model))


def window_file(trainer: Trainer, place: Path) -> Path:
    """Of this rank, in a checkpoint."""
    return place / f"window-{trainer.args.process_index}.json"
