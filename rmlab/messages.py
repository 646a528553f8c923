"""What users read: errors that are one sentence naming the place and what to do, and lines of facts."""

import difflib
import logging
import os
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input (a config value, a row, a file). The message stands alone; no traceback is needed."""


def is_first_rank() -> bool:
    """Of the processes of a run, the one that speaks and writes for all."""
    return os.environ.get("RANK", "0") == "0"


def say(message: str) -> None:
    """Print a line, and log it (a run keeps it in rmlab.log)."""
    if is_first_rank():
        print(message, flush=True)
        logging.getLogger("rmlab").info(message)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'margin'?` when a known name is close to `name`, else the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or the name of its kind where it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


# ---- checks of a config value; `key` is how the user writes it ----


def check_one_of(key: str, value: object, allowed: Iterable[str]) -> None:
    """UserError naming the key and the nearest allowed value, unless `value` is one of them."""
    if value not in (allowed := tuple(allowed)):
        raise UserError(f"{key} is {value!r}{did_you_mean(str(value), allowed)}")


def check_at_least(key: str, value: float | None, least: float) -> None:
    """UserError unless the number is at least `least`, or null."""
    if value is not None and value < least:
        raise UserError(f"{key} is {value}; it must be at least {least}")
