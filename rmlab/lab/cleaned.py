"""Training rows written again: suspicious labels weighed less, turned round, or left out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rmlab.data.rows import COLUMNS, decisive
from rmlab.files import replacing
from rmlab.lab.suspects import Key, Row
from rmlab.messages import UserError

HOW = ("down-weight", "flip", "drop")
DOUBTED = 0.5  # suspicion above which the opposite is likelier


def chosen(table: pd.DataFrame, share: float | None) -> set[Key]:
    """Whom to flip or drop: so large a share of the preferences, or where the opposite label is likelier."""
    wanted = table[table["suspicion"] > DOUBTED] if share is None else table.head(round(share * len(table)))
    return set(zip(wanted["id"], wanted["better"], wanted["worse"], strict=True))


def write_cleaned(
    rows: Sequence[Row], table: pd.DataFrame, how: str, share: float | None, out: Path
) -> tuple[int, int]:
    """Native rows to a jsonl file; returns how many preferences are changed, and how many rows are written.

    down-weight: every preference counts 1 - suspicion. UserError for rows of token ids.
    """
    doubted = chosen(table, share)
    suspicion = dict(
        zip(zip(table["id"], table["better"], table["worse"], strict=True), table["suspicion"], strict=True)
    )
    written = 0
    with replacing(out) as scratch, scratch.open("w", encoding="utf-8") as sink:
        for row in rows:
            if row.comparison.tokenised:
                raise UserError(f"row {row.id} is token ids, which are not written again; clean the texts")
            stated = list(preferences(row, how, doubted, suspicion))
            if stated:
                sink.write(json.dumps({**native(row), "preferences": stated}) + "\n")
                written += 1
    return (len(table) if how == "down-weight" else len(doubted)), written


def preferences(row: Row, how: str, doubted: set[Key], suspicion: Mapping[Key, float]) -> Iterator[dict[str, Any]]:
    """As they are to be trained on, with what else they say, such as who stated them."""
    given = row.row["preferences"] if decisive(row.row) == "preferences" else [{}] * len(row.comparison.preferences)
    for key, p, one in zip(row.keys(), row.comparison.preferences, given, strict=True):
        better, worse, weight = p.better, p.worse, p.weight
        if how == "drop" and key in doubted:
            continue
        if how == "flip" and key in doubted:
            better, worse = worse, better
        known = suspicion.get(key, float("nan"))
        if how == "down-weight" and known == known:
            weight *= 1 - known
        said = {"better": better, "worse": worse, "strength": p.strength, "probability": p.probability}
        more = {k: v for k, v in one.items() if k not in (*said, "weight", "flipped")}
        yield {**more, **said, **({"weight": round(weight, 6)} if weight != 1 else {})}


def native(row: Row) -> dict[str, Any]:
    """All but its preferences; columns that formats do not know stay, such as ratings, which scores may stand for."""
    c = row.comparison
    kept = {k: v for k, v in row.row.items() if k not in COLUMNS or k in ("subset", "tools", "chat_template_kwargs")}
    told = {"id": row.id, "prompt": c.prompt, "responses": c.responses}
    if "scores" in row.row and "ratings" not in kept:
        kept["ratings"] = row.row["scores"]
    return {**told, **kept, **({} if c.gold is None else {"gold_rewards": c.gold})}
