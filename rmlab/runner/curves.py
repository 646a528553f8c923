"""What was logged during training, as metrics.json and history.json keep it."""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # which takes seconds to import
    from rmlab.training.trainer import RewardTrainer


def last_train_logs(trainer: "RewardTrainer") -> dict[str, Any]:
    """The last training metrics that were logged; Trainer's own totals would forget what ran before a resume."""
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    last = sorted(logged[-1].items()) if logged else []  # sorted, as a checkpoint keeps them
    kept = finite({k: v for k, v in last if k not in ("step", "epoch")})
    return {**kept, "steps": trainer.state.global_step, "epochs": trainer.state.epoch}


def history(trainer: "RewardTrainer") -> list[dict[str, Any]]:
    """What was logged at each step of training, without timings."""
    timings = ("runtime", "per_second", "flos")
    entries = [{k: v for k, v in e.items() if not k.endswith(timings)} for e in trainer.state.log_history]
    kept = [finite(entry) for entry in entries if entry.keys() - {"step", "epoch", "train_loss"}]
    return [dict(sorted(entry.items())) for entry in kept]  # as a checkpoint keeps them


def finite(entry: dict[str, Any]) -> dict[str, Any]:
    """With null for what is no number, which JSON does not have: a gradient that fp16 could not hold."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}
