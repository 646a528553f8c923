"""What an entry of data.columns reads of a row: a column, a nested value, several of them, or what is made of several.

NAME | a.b                         a column; a nested value, through lists too
[ENTRY, ...]                       the values of several
{columns: [ENTRY, ...]}            ... of each response: vectors of lists
{sum: {NAME: WEIGHT}}              their weighted sum, of each response where they are lists
{dialogue: [ENTRY, ENTRY]}         chat messages of what the user and the assistant say in turn
{flags: {first: NAME, second: NAME, tie: NAME}}    which of the columns holds 1
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rmlab.data.values import brief, number
from rmlab.messages import UserError, did_you_mean


def values_of(row: Mapping[str, Any], source: Any, name: str) -> Any:
    """What `data.columns.NAME: source` reads. UserError for a source that says nothing, or names no column."""
    if isinstance(source, str):
        return column(row, source, name)
    if isinstance(source, Mapping):
        return made(row, source, name)
    if not isinstance(source, Sequence):
        raise UserError(f"data.columns.{name} must be a column or a list of them, not {brief(source)}")
    return [values_of(row, s, name) for s in source]


def column(row: Mapping[str, Any], source: str, name: str) -> Any:
    """`row[source]`, or the nested value of a dotted `source`."""
    if source in row:
        return row[source]
    try:
        return inside(row, source.split("."))
    except KeyError:
        raise UserError(
            f"data.columns.{name}: no column {source!r} in the data{did_you_mean(source, map(str, row))}"
        ) from None


def inside(value: Any, parts: Sequence[str]) -> Any:
    """What a dotted name says: a key of a mapping, or of each mapping in a list. KeyError if there is none.

    What a null would hold is null.
    """
    if not parts or value is None:
        return value
    if isinstance(value, list):
        return [inside(item, parts) for item in value]
    if not isinstance(value, Mapping):
        raise KeyError(parts[0])
    return inside(value[parts[0]], parts[1:])


# ---- made of several ----


def made(row: Mapping[str, Any], source: Mapping[str, Any], name: str) -> Any:
    """What a mapping of one word of MAKERS to columns says."""
    (word, parts), *more = source.items() or [("", None)]
    make, takes = MAKERS.get(word, (None, type(None)))
    if make is None or more or not isinstance(parts, takes) or isinstance(parts, str) or not parts:
        if name in ("label", "votes"):
            raise UserError(
                f"data.columns.{name} is {dict(source)}; it must be {{column: NAME, first: ..., second: ..., tie: ...}}"
            )
        raise UserError(
            f"data.columns.{name} is {brief(dict(source))}; it must be a column or a list of them, "
            "{columns: [NAME, ...]}, {sum: {NAME: WEIGHT}} or {dialogue: [NAME, NAME]}"
        )
    return make(row, parts, name)


def vectors(row: Mapping[str, Any], parts: Sequence[Any], name: str) -> Any:
    """A list of the values of these columns; of columns that hold lists (K,) a list (K, columns)."""
    return each([values_of(row, part, name) for part in parts], list, name)


def weighted_sum(row: Mapping[str, Any], parts: Mapping[str, Any], name: str) -> Any:
    """The sum of the columns times their weights; of columns that hold lists (K,) a list (K,)."""
    weights = [number(weight, f"data.columns.{name}.sum", str(part)) for part, weight in parts.items()]
    return each([column(row, str(part), name) for part in parts], lambda values: total(values, weights, name), name)


def each(values: list[Any], make: Callable[[list[Any]], Any], name: str) -> Any:
    """What is made of values of several columns; of lists, of the first value of each, of the second and so on."""
    if not any(isinstance(value, list) for value in values):
        return make(values)
    if len({len(value) if isinstance(value, list) else -1 for value in values}) > 1:
        raise UserError(f"data.columns.{name}: its columns must hold lists of as many values each")
    return [make(list(those)) for those in zip(*values, strict=True)]


def total(values: list[Any], weights: list[float], name: str) -> float | None:
    """The weighted sum; None where a value is missing."""
    if any(value is None for value in values):
        return None
    return sum(w * number(v, f"data.columns.{name}", "a value") for w, v in zip(weights, values, strict=True))


def dialogue(row: Mapping[str, Any], parts: Sequence[Any], name: str) -> list[dict[str, str]]:
    """Messages of two columns: what the user says and what the assistant says, each a text or a list of turns.

    A list may be written as the text of JSON. Turns without a text are empty.
    """
    if len(parts) != 2:
        raise UserError(f"data.columns.{name}.dialogue must name two columns, the user's and the assistant's")
    asked, said = (turns(values_of(row, part, name)) for part in parts)
    if len(asked) != len(said):
        raise UserError(f"data.columns.{name}: the user speaks {len(asked)} times and the assistant {len(said)} times")
    roles = itertools.cycle(("user", "assistant"))
    spoken = itertools.chain.from_iterable(zip(asked, said, strict=True))
    return [{"role": role, "content": "" if text is None else text} for role, text in zip(roles, spoken, strict=False)]


def turns(value: Any) -> list[Any]:
    """What one side says, in turn: of a list, the JSON of one, or a text.

    Half a character that JSON was cut in (a lone surrogate, which no encoding holds) becomes U+FFFD.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            read = json.loads(value)
            if all(isinstance(turn, str | None) for turn in read):
                return [turn and turn.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for turn in read]
    return value if isinstance(value, list) else [value]


def flag(row: Mapping[str, Any], parts: Mapping[str, Any], name: str) -> str:
    """Which of first, second and tie has the column that holds 1 (or true). UserError unless exactly one does."""
    if not {"first", "second"} <= set(parts) <= {"first", "second", "tie"}:
        raise UserError(
            f"data.columns.{name}.flags is {dict(parts)}; it must be {{first: NAME, second: NAME, tie: NAME}}"
        )
    found = {word: column(row, str(part), name) for word, part in parts.items()}
    up = [word for word, value in found.items() if str(value).lower().removesuffix(".0") in ("1", "true")]
    if len(up) != 1:
        raise UserError(f"data.columns.{name}: exactly one of {dict(parts)} must be 1, and they are {found}")
    return up[0]


MAKERS: dict[str, tuple[Callable[[Any, Any, str], Any], type]] = {
    "columns": (vectors, Sequence),
    "sum": (weighted_sum, Mapping),
    "dialogue": (dialogue, Sequence),
    "flags": (flag, Mapping),
}
