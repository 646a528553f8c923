"""The one exception that users are meant to read: a sentence that names the place and what to do."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input (a config value, a row, a file). The message stands alone; no traceback is needed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'margin'?` when a known name is close to `name`, else the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
