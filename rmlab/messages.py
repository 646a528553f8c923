"""What users read: errors that are one sentence naming the place and what to do, and lines of facts."""

import difflib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rmlab.terminal import is_logged, tell


class UserError(ValueError):
    """Bad input (a config value, a row, a file). The message stands alone; no traceback is needed."""


class Mistakes(UserError):  # noqa: N818
    """Several at once: numbered, a line each."""

    def __init__(self, *errors: UserError) -> None:
        super().__init__(*errors)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join([f"{len(self.errors)} mistakes:", *(f"{n}. {e}" for n, e in enumerate(self.errors, start=1))])


def check_all(*checks: Callable[[], object]) -> None:
    """Call every check. What one refuses is raised as it is, what several refuse together as `Mistakes`."""
    found: dict[str, UserError] = {}
    for check in checks:
        try:
            check()
        except Mistakes as several:
            found |= {str(error): error for error in several.errors}
        except UserError as error:
            found.setdefault(str(error), error)
    if found:
        raise Mistakes(*found.values()) if len(found) > 1 else next(iter(found.values()))


# How launchers tell a process its number and how many there are: torchrun and accelerate, MPI's, a step of srun.
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def rank() -> int:
    """The number of this process among those of a run."""
    names = (*RANKS, "SLURM_PROCID") if "SLURM_STEP_NUM_TASKS" in os.environ else RANKS
    return int(next((os.environ[name] for name in names if os.environ.get(name, "").isdigit()), "0"))


def processes() -> int:
    """How many processes were launched together, whether or not they know each other."""
    return int(next((os.environ[name] for name in SIZES if os.environ.get(name, "").isdigit()), "1"))


def is_first_rank() -> bool:
    """Of the processes of a run, the one that speaks and writes for all."""
    return rank() == 0


def say(message: str, now: bool = False) -> None:
    """Print a line, and log it (a run keeps it in rmlab.log). now: also where a run of a sweep is only logged."""
    if is_first_rank():
        if now or not is_logged():
            tell(message)
        logging.getLogger("rmlab").info(message)


MANY = 25  # names that a sentence can hold


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'margin'?` when a known name is close to `name`, else the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    more = f" and {len(known) - MANY} more" if len(known) > MANY else ""
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known[:MANY])}{more}"


def in_words(sentence: str, words: Mapping[str, str]) -> str:
    """A sentence with what training calls by keys of its config under the names that a command has for them."""
    for key, word in words.items():
        sentence = sentence.replace(key, word)
    return sentence


def pair_of(text: str, option: str) -> tuple[str, Any]:
    """NAME=VALUE as name and value of YAML, so that null and lists can be said. UserError for no pair."""
    import yaml

    name, equals, value = text.partition("=")
    try:
        if name and equals:
            return name, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise UserError(f"{option} {text!r}: say NAME=VALUE")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters of it, or the name of its kind where it has none.

    Of `Mistakes` all lines as one.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = " ".join(lines) if isinstance(error, Mistakes) else lines[0]
    return line if len(line) <= 300 else f"{line[:300]} ..."


# ---- checks of a config value; `key` is how the user writes it ----


def check_one_of(key: str, value: object, allowed: Iterable[str]) -> None:
    """UserError naming the key and the nearest allowed value, unless `value` is one of them."""
    if value not in (allowed := tuple(allowed)):
        raise UserError(f"{key} is {value!r}{did_you_mean(str(value), allowed)}")


def check_at_least(key: str, value: float | None, least: float) -> None:
    """UserError unless the number is at least `least` and finite, or null."""
    if value is not None and not least <= value < float("inf"):
        raise UserError(f"{key} is {value}; it must be at least {least}" + " and finite" * (value >= least))


def check_seed(key: str, value: int | None) -> None:
    """UserError unless numpy and torch take it as a seed, or null."""
    if value is not None and not 0 <= value < 2**32:
        raise UserError(f"{key} is {value}; a seed is at least 0 and below 2^32")
