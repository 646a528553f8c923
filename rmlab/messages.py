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
