"""Ctrl-C and SIGTERM (a preempted job): the step is finished and a checkpoint written before the process ends."""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rmlab.messages import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption(TrainerCallback):
    """Listens while it is entered; as a callback of the trainer it stops after a checkpoint. `stopped_at`: its step.

    A second signal ends the process at once, as if nobody listened.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.stopped_at: int | None = None
        self._saving = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def end(self) -> None:
        """KeyboardInterrupt, or SystemExit for SIGTERM, where training was stopped; says where it goes on."""
        if self.stopped_at is None:
            return
        say(f"stopped, with a checkpoint; the same command goes on from step {self.stopped_at}", now=True)
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Alone, a process need not ask the others."""
        if args.world_size == 1 and self.received is not None:
            self._saving = control.should_save = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """All ranks log at the same step, where they wait for each other anyway; a signal may have met only some."""
        if args.world_size > 1 and state.global_step:
            received = reduce(torch.tensor([float(self.received or 0)], device=PartialState().device), "sum")
            if received.item():
                self.received = self.received or signal.SIGTERM
                self._saving = control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop now, and not before the checkpoint, in which it would stand that training had ended."""
        if self._saving:
            self.stopped_at, control.should_training_stop = state.global_step, True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        name = signal.Signals(number).name
        say(f"{name}: a checkpoint is written after this step; once more ends it at once", now=True)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
