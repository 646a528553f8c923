"""What rows carry for the loss besides who beats whom: weights, and the columns that its terms read.

Of every response a column has a number, or a list of them (one for each output of the head); of every preference it
has a number. NaN is what a row does not know: null, "N/A", or a missing column of an evaluation set.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rmlab.data import Preference
from rmlab.data.config import Columns, Options
from rmlab.data.values import number, sized
from rmlab.messages import UserError

UNKNOWN = ("", "n/a", "na", "nan", "none", "null")  # texts that data sets write for a rating that nobody gave
SIDES = ("chosen", "rejected")
Numbers = list[list[float]]  # (K or P, 1 or D)


def weight_of(value: Any, where: str) -> float:
    """A number of at least 0. UserError for another."""
    weight = number(value, where, "weight")
    if weight < 0:
        raise UserError(
            f"{where}: weight is {weight}, below 0; fix the row, or hide the column with data.columns.weight=null"
        )
    return weight


def weighed(row: Mapping[str, Any], preferences: list[Preference], where: str) -> list[Preference]:
    """The preferences with the row's `weight`: one number, or one of each; their own is multiplied by it."""
    if "weight" not in row:
        return preferences
    given = row["weight"]
    values = sized(given, len(preferences), where, "weight") if isinstance(given, list) else [given] * len(preferences)
    return [replace(p, weight=p.weight * weight_of(v, where)) for p, v in zip(preferences, values, strict=True)]


def columns_of(
    row: Mapping[str, Any], responses: int, preferences: Sequence[Preference], options: Options, where: str
) -> dict[str, Numbers]:
    """What `options.columns` names, by name: (K or P, 1 or D).

    UserError for a value that is none of a number, a list of them and null; and for a row of a training set
    (`options.complete`) that says nothing of such a column.
    """
    found = {}
    for name, kind in options.columns:
        count = len(preferences) if kind == "pair" else responses
        given = (of_pairs if kind == "pair" else of_responses)(row, name, count)
        if given is None and options.complete:
            raise UserError(f"{where}: {missing(name, kind)}")
        values = [None] * count if given is None else sized(given, count, where, name)
        found[name] = vectors(values, kind, where, name)
    return found


def missing(name: str, kind: str) -> str:
    """What to do about a column that the loss reads and the row lacks."""
    given = "a number per row" if kind == "pair" else f"one value per response, or {name}_chosen and {name}_rejected"
    return (
        f"the loss reads the column {name!r} ({given}), which the row lacks; map yours with "
        f"data.columns.{name}=YOUR_COLUMN, or choose another loss"
    )


def of_pairs(row: Mapping[str, Any], name: str, count: int) -> Any:
    """(P,) the values of each preference: of the row, or of the preferences as they are stated. None: it has none."""
    if name in row:
        return row[name] if isinstance(row[name], list) else [row[name]] * count
    native = row.get("preferences")
    if isinstance(native, list) and any(isinstance(p, Mapping) and name in p for p in native):
        return [p.get(name) for p in native]
    return None


def of_responses(row: Mapping[str, Any], name: str, count: int) -> Any:
    """(K,) the values of each response; None: the row has none.

    Ratings may also be the scores that say who wins.
    """
    sides = [f"{name}_{side}" for side in SIDES]
    if any(side in row for side in sides):
        return [row.get(side) for side in sides]
    if name in row:
        return [None] * count if row[name] is None else row[name]
    if name != "ratings":
        return None
    if all(f"score_{side}" in row for side in SIDES):
        return [row[f"score_{side}"] for side in SIDES]
    return row.get("scores")


def vectors(values: Sequence[Any], kind: str, where: str, name: str) -> Numbers:
    """Every value as a list of numbers, all as long. UserError for lists of several lengths, and for what is neither.

    A null is a list of unknown numbers; where none is known, each is one.
    """
    lists = [value if isinstance(value, list) else [value] for value in values]
    stated = {len(numbers) for numbers, value in zip(lists, values, strict=True) if value is not None}
    width = max(stated, default=1)
    if stated and (len(stated) > 1 or width < 1):
        raise UserError(f"{where}: {name} holds lists of {sorted(stated)} numbers; all must have as many, at least 1")
    if kind != "output" and width > 1:
        raise UserError(
            f"{where}: {name} holds lists of {width} numbers, and the loss reads one per {kind}; say which with "
            f"data.columns.{name}=YOUR_COLUMN"
        )
    unknown = [math.nan] * width
    found = [
        unknown if value is None else [known(v, where, name) for v in numbers]
        for numbers, value in zip(lists, values, strict=True)
    ]
    nothing = all(math.isnan(v) for numbers in found for v in numbers)
    return [[math.nan]] * len(found) if nothing else found  # as many as other rows have, which is not known here


def known(value: Any, where: str, name: str) -> float:
    """A number, NaN for null and texts that say so. UserError for anything else."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    if isinstance(value, str) and value.strip().lower() in UNKNOWN:
        return math.nan
    return number(value, where, name)


def widths(columns: Mapping[str, Numbers]) -> dict[str, int]:
    """How many numbers each column has of a response or preference, where one of them is known."""
    return {
        name: len(values[0])
        for name, values in columns.items()
        if values and not all(math.isnan(v) for numbers in values for v in numbers)
    }


def refuse_other_widths(rows: Iterable[tuple[Mapping[str, Numbers], str]]) -> None:
    """UserError where a row (columns, how errors name it) has as many numbers as another has not."""
    seen: dict[str, tuple[int, str]] = {}
    for columns, where in rows:
        for name, width in widths(columns).items():
            first, place = seen.setdefault(name, (width, where))
            if first != width:
                raise UserError(f"{where}: {name} holds {width} numbers per response, and {first} in {place}")


def names_of(columns: Columns) -> list[str]:
    """What token trees say that their columns are."""
    return [f"{name} {kind}" for name, kind in columns]


def in_order(columns: Mapping[str, Numbers], wanted: Columns, preferences: Sequence[int]) -> list[Numbers]:
    """Those of a token tree: in the order of `wanted`, of pairs those of the preferences at these places."""
    kept = []
    for name, kind in wanted:
        values = columns.get(name, [])
        kept.append([values[p] for p in preferences] if kind == "pair" else values)
    return kept
