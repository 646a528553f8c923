"""What a run may go on from, and what all of its processes must agree on before it does."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from rmlab.messages import UserError, say
from rmlab.runner.compare_runs import differing, shown
from rmlab.runner.config import Config, computed, flatten
from rmlab.runner.directory import RunDirectory
from rmlab.runner.environment import changed_since, describe_environment
from rmlab.secrets import MASK


def on_first_rank(action: Callable[[], Any]) -> Any:
    """What the first rank's `action` returns, or raises, on every rank; the others wait for it."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState()
    told: list[Any] = [None, None]  # what it returns, what it raises
    if state.is_main_process:
        try:
            told[0] = action()
        except Exception as error:
            told[1] = error
    if state.num_processes > 1:
        broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    return told[0]


def refuse_other_run(config: Config, out: RunDirectory) -> None:
    """UserError where the directory holds a run of another config, whose results would be taken for this one's."""
    try:
        before = out.environment().get("config")
    except UserError:
        return  # what is damaged is said elsewhere
    now = json.loads(json.dumps(computed(config.as_dict())))  # as environment.json holds it
    changed = differing(flatten(before), flatten(now)) if before else {}
    changed = {key: pair for key, pair in changed.items() if MASK not in str(pair[0])}  # nobody knows what it was
    if changed:
        key, (then, here) = next(iter(changed.items()))
        raise UserError(
            f"{out} holds another run, with {key}={shown(then)} and not {shown(here)}; leave run.dir as it is (it "
            "carries the run's id), choose another, or set run.redo=true"
        )


def start_afresh_if_needed(out: RunDirectory, inputs: Mapping[str, Any]) -> None:
    """Remove what must not be gone on from: results of a run that is redone, checkpoints that other things made.

    A run that came to its end and is damaged loses its metrics.json, and goes on from a checkpoint if it has one.
    """
    damage = out.damage() if out.has_metrics else None
    try:
        environment = out.environment()
    except UserError as error:
        say(f"{error}; it is not known what made the checkpoints beside it")
        environment = {"code": None}
    changed = what_changed(environment, inputs) if environment else []
    if changed:
        say(f"{out} was begun with other {' and '.join(changed)} than is here now; it starts afresh")
    if changed or (out.has_metrics and damage is None):
        out.forget_results()
    elif damage is not None:
        again = "goes on from its last checkpoint" if out.checkpoints.exists() else "is trained again"
        say(f"{out} is damaged ({damage}); it {again}")
        out.forget_metrics()


def what_changed(environment: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """What would make a resumed run's numbers others than a whole one's: code, packages, processes, data, device."""
    return [*changed_since(environment, inputs), *["device"] * (device(environment) != device(describe_environment()))]


def device(environment: Mapping[str, Any]) -> Any:
    """The GPU that a run is on, or of a CPU the number of threads, which decides the rounding."""
    hardware = environment.get("hardware", {})
    return hardware.get("gpu") or (hardware.get("machine"), hardware.get("threads"))


def full_disk(error: BaseException, out: RunDirectory) -> UserError | None:
    """The error in a sentence, if a full disk lies behind it, whatever library has met it."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    signs: tuple[str, ...] = ("No space left on device", "Disk quota exceeded", "File too large")
    signs += ("PytorchStreamWriter failed writing", "unexpected pos", "iostream error")  # in torch's words
    if any(sign in str(e) for e in chain for sign in signs):
        return UserError(f"the disk of {out} is full; make room, and the same command goes on from the last checkpoint")
    return None
