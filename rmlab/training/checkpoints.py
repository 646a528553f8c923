"""Checkpoints that a killed run can trust: sealed with size and hash of each file, removed by step, not by a clock."""

import contextlib
import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rmlab.files import SEAL, damage, read_seal, seal
from rmlab.messages import UserError, say
from rmlab.model.changes import hash_of_others, trained_weights
from rmlab.model.export import write_card
from rmlab.model.head import head_of
from rmlab.model.head_files import write_about
from rmlab.training.config import RewardConfig
from rmlab.training.contexts import with_attributes
from rmlab.upstream import load_trained, loss_since_log, set_loss_since_log

if TYPE_CHECKING:
    from rmlab.training.trainer import RewardTrainer

# ---- writing ----


class SavingTrainer(Trainer):
    """Trainer with sealed checkpoints, which may leave out what is frozen (`save_frozen`): it is where it came from."""

    args: RewardConfig
    model: nn.Module
    in_part = False  # whether what is saved now leaves it out

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Trainer's, sealed, with the metrics since the last log in it."""
        with sealed(self), with_attributes(self, in_part=self.saves_in_part):
            super()._save_checkpoint(model, trial)
            write_beside(cast("RewardTrainer", self))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Trainer's. A part has no config.json: nobody is to load it as a model, filled up with random weights."""
        super()._save(output_dir, trained_weights(self.model) if self.in_part else state_dict)
        if head_of(self.model) is None:
            write_about(Path(output_dir or str(self.args.output_dir)), self.model)
        if self.in_part and self.args.should_save:
            (Path(str(output_dir)) / "config.json").unlink()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Trainer's, but what is frozen may be missing."""
        lost = trained_weights(self.model).keys() & {*load_result.missing_keys}
        load_result.missing_keys[:] = sorted(lost)
        super()._issue_warnings_after_load(load_result)

    @property
    def saves_in_part(self) -> bool:
        """Whether checkpoints leave out what is frozen; adapters do it by themselves."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if self.args.save_frozen or sharded or not isinstance(self.model, PreTrainedModel):
            return False
        return any(not p.requires_grad for p in self.model.parameters())

    @functools.cached_property
    def frozen(self) -> str:
        """A hash of what is frozen, the same at every step."""
        return hash_of_others(self.model, trained_weights(self.model))


@contextlib.contextmanager
def sealed(trainer: SavingTrainer) -> Iterator[None]:
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
            frozen = {"frozen": trainer.frozen} if trainer.saves_in_part else {}
            seal(place, resumable=not args.save_only_model, **frozen)
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


def last_whole_checkpoint(folder: Path, trainer: SavingTrainer | None = None) -> str | None:
    """The newest checkpoint to resume from; None if there is none. A damaged one is named and passed over.

    So is one that lacks frozen weights where those of the trainer are others.
    """
    for place in reversed(checkpoints(folder)):
        wrong = damage(place) or (trainer and misfit(place, trainer))
        if wrong is None and read_seal(place).get("resumable"):
            return str(place)
        if (place / SEAL).exists():  # without it the run was killed while it wrote, as killed runs are
            say(f"{place} is passed over: {wrong or 'it holds no optimizer state (save_only_model)'}")
    return None


def misfit(place: Path, trainer: SavingTrainer) -> str | None:
    """Why a whole checkpoint is not of this model, as far as it says of which it is."""
    frozen = read_seal(place).get("frozen")
    return "the frozen weights were others" if frozen not in (None, trainer.frozen) else None


def checkpoint_to_resume(trainer: SavingTrainer, wanted: str | bool | None) -> str | bool | None:
    """What Trainer is to resume from, the same on all ranks; for True the newest whole one if any is sealed.

    UserError for a sealed one that is damaged or another model's. One of another trainer has no seal, and is not
    looked at.
    """
    chosen: list[Any] = [wanted, None]
    if wanted and trainer.is_world_process_zero():
        if wanted is True:
            chosen[0] = last_whole_checkpoint(Path(str(trainer.args.output_dir)), trainer) or True
        elif (Path(wanted) / SEAL).exists():
            harm = damage(Path(wanted))
            other = None if harm else misfit(Path(wanted), trainer)
            chosen[1] = f"is damaged: {harm}" if harm else other and f"is of another model: {other}"
    if trainer.args.world_size > 1:
        broadcast_object_list(chosen)
    if chosen[1] is not None:
        raise UserError(f"{wanted} {chosen[1]}; resume from another checkpoint")
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
    if trainer.is_world_process_zero() and not trainer.in_part:
        write_card(place, trainer.accelerator.unwrap_model(trainer.model))


def window_file(trainer: Trainer, place: Path) -> Path:
    """Of this rank, in a checkpoint."""
    return place / f"window-{trainer.args.process_index}.json"
