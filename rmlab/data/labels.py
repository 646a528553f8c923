"""Labels and votes: who of the responses wins, in whatever code a data set writes it."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from rmlab.data import Preference
from rmlab.data.values import brief, listed, number, sized
from rmlab.messages import UserError

SHARES = {"0": 0.5, "1": 1.0, "2": 0.0, "tie": 0.5, "first": 1.0, "second": 0.0, "a": 1.0, "b": 0.0}
SHARES |= {"model_a": 1.0, "model_b": 0.0, "tie (bothbad)": 0.5}
CODES = ("first", "second", "tie")
SIGNS = ("negative", "positive")


def from_label(label: Any, count: int, where: str) -> list[Preference]:
    """With K = 2 one label, which is read as the only vote; with K > 2 a list of one label per pair, as in `votes`."""
    return from_votes([label], count, where) if count == 2 else from_votes(label, count, where)


def from_votes(votes: Any, count: int, where: str) -> list[Preference]:
    """Labels 1 (first), 2 (second) or 0 (tie), by position: the k-th wins label k.

    With K = 2 every vote is about the one pair: probability is the winner's share (a tie counts half to each) and
    strength is 2 * probability - 1. With K > 2 there is one label per pair (0,1), (0,2), ..., (1,2), ...
    """
    pairs = list(itertools.combinations(range(count), 2))
    if count == 2:
        shares = [first_share(votes, where)]
    else:
        shares = [first_share([v], where) for v in sized(votes, len(pairs), where, "votes")]
    return [
        Preference(*((i, j) if share >= 0.5 else (j, i)), abs(2 * share - 1), max(share, 1 - share))
        for (i, j), share in zip(pairs, shares, strict=True)
    ]


def first_share(votes: Any, where: str) -> float:
    """Share of the votes that prefer the first of two responses; ties count half."""
    shares = []
    for vote in listed(votes, where, "votes"):
        if (key := plain(vote)) not in SHARES:
            raise UserError(
                f"{where}: vote {brief(vote)} is none of {sorted(SHARES)} (0 is a tie, 1 and 2 the position); state "
                "another code: data.columns.label={column: NAME, first: ..., second: ..., tie: ...}"
            )
        shares.append(SHARES[key])
    if not shares:
        raise UserError(f"{where}: no votes")
    return sum(shares) / len(shares)


def plain(vote: Any) -> str:
    """A label as text: 2.0, "2 " and 2 are the same."""
    return str(vote).strip().lower().removesuffix(".0") if isinstance(vote, str | int | float) else brief(vote)


# ---- a code that the config states ----


def decoded(value: Any, code: Mapping[str, Any], name: str) -> dict[str, Any]:
    """{name or "preferences": what rmlab reads} of a value in a stated code, `{first: ..., second: ..., tie: ...}`.

    Each side is a value or a list of them; `first: negative` (or positive) says that a number's sign names the side and
    its size the strength. That is no score of either, which a loss could read. Several values (votes, a label per
    pair) are read one by one.
    UserError for a value of no side.
    """
    if code["first"] in SIGNS and plain(value) not in SIGNS:
        signed = number(value, f"data.columns.{name}", code["column"])
        return {"preferences": [of_sign(-signed if code["first"] == "negative" else signed)]}
    sides = [side_of(v, code, name) for v in (value if isinstance(value, list) else [value])]
    return {name: sides if isinstance(value, list) or name == "votes" else sides[0]}


def side_of(value: Any, code: Mapping[str, Any], name: str) -> str:
    """Which of CODES a value is."""
    sides = [side for side in CODES if plain(value) in {plain(v) for v in options_of(code.get(side))}]
    if len(sides) != 1:
        stated = {side: code[side] for side in CODES if side in code}
        raise UserError(f"data.columns.{name}: {brief(value)} is no value of first, second or tie in {stated}")
    return sides[0]


def check_code(code: Mapping[str, Any], name: str) -> None:
    """UserError unless it names a column and says which values are the first and which the second."""
    wanted = "{column: NAME, first: ..., second: ..., tie: ...}"
    if name not in ("label", "votes"):
        raise UserError(f"data.columns.{name} must be a column or a list of them; only label and votes have a code")
    unknown = set(code) - {"column", *CODES}
    if unknown or not code.get("column") or any(code.get(side) is None for side in ("first", "second")):
        raise UserError(f"data.columns.{name} is {dict(code)}; it must be {wanted}")
    signs = {str(code[side]) for side in ("first", "second")} & set(SIGNS)
    if len(signs) == 1:
        raise UserError(f"data.columns.{name}: first and second must be negative and positive, or values of the column")


def of_sign(value: float) -> dict[str, Any]:
    """The preference that a signed number states: above 0 the first of two wins, and 0 is a tie."""
    if value == 0:
        return {"better": 0, "worse": 1, "probability": 0.5}
    return {"better": int(value < 0), "worse": int(value > 0), "strength": abs(value)}


def options_of(value: Any) -> list[Any]:
    """The values of a side: none, one, or several."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def refuse_unstated_code(labels: Iterable[Any], name: str, column: str) -> None:
    """UserError for labels that are 0 and 1 and never 2: in many data sets 0 is then the first and 1 the second."""
    found = set()
    for label in labels:
        found.add(plain(label))
        if not found <= {"0", "1"}:
            return  # which the first rows tell in most sets
    if found == {"0", "1"}:
        raise UserError(
            f"{name}: the labels are 0 and 1 and never 2, and rmlab would read 0 as a tie and 1 as the first; state "
            f"what they mean: data.columns.{column}={{column: NAME, first: 0, second: 1}} (in Python: write the words "
            "first, second and tie)"
        )
