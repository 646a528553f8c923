"""Chosen and rejected: how surely and how strongly one beats the other, or each of several the others."""

from collections.abc import Mapping
from typing import Any

from rmlab.data import Preference, Text
from rmlab.data.values import number, share, text
from rmlab.messages import UserError

SIDES = ("chosen", "rejected")
SCORES = ("score_chosen", "score_rejected")
Row = Mapping[str, Any]


def stated(better: int, worse: int, strength: float | None, probability: float) -> Preference:
    """Better is the likelier side (probability >= 0.5), and a tie has no strength.

    strength: of better minus worse as they are given, so it changes its sign with them; None: not stated, 1.0.
    """
    if probability == 0.5:
        return Preference(better, worse, 0.0, 0.5)
    if probability < 0.5:
        better, worse, probability = worse, better, 1 - probability
        strength = None if strength is None else -strength
    return Preference(better, worse, Preference.strength if strength is None else strength, probability)


def pair_preference(row: Row, where: str) -> Preference:
    """Strength from margin, or score_chosen - score_rejected; probability from its column; 1.0 where unknown."""
    probability = share(row["probability"], where) if "probability" in row else 1.0
    margin = number(row["margin"], where, "margin") if "margin" in row else None
    difference = score_difference(row, where) if margin is None or any(row.get(s) is not None for s in SCORES) else None
    if margin and difference and (margin > 0) != (difference > 0):
        raise UserError(
            f"{where}: margin and score_chosen - score_rejected have other signs; data.columns.margin=null hides one"
        )
    return stated(0, 1, difference if margin is None else margin, probability)


def score_difference(row: Row, where: str) -> float | None:
    """score_chosen - score_rejected; None where the row has neither column. UserError for one without the other."""
    if not any(column in row for column in SCORES):
        return None
    chosen, rejected = (number(row.get(column), where, column) for column in SCORES)
    return number(chosen - rejected, where, "score_chosen - score_rejected")


def sides_are_lists(row: Row) -> bool:
    """Whether chosen and rejected are lists of several responses, each a text or a dialogue."""
    return all(
        isinstance(row.get(side), list) and row[side] and all(isinstance(r, str | list) for r in row[side])
        for side in SIDES
    )


def all_sides(row: Row, where: str) -> tuple[list[Text], list[Preference]]:
    """(K responses, chosen ones first; P preferences): each chosen one beats each rejected one.

    What a row says of a pair (margin, scores, probability) holds for all of them.
    """
    chosen, rejected = ([text(response, where, side) for response in row[side]] for side in SIDES)
    one, count = pair_preference(row, where), len(chosen)
    sides = [(i, count + j) for i in range(count) for j in range(len(rejected))]
    pairs = [pair if one.better == 0 else pair[::-1] for pair in sides]
    return chosen + rejected, [Preference(*pair, one.strength, one.probability) for pair in pairs]
