"""Rows of one rated response each -> rows of all responses to a prompt."""

import collections
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rmlab.data import ROW
from rmlab.data.columns import as_text, where_of
from rmlab.data.extra import known
from rmlab.data.rows import COLUMNS
from rmlab.data.values import brief
from rmlab.messages import UserError, say

if TYPE_CHECKING:
    from datasets import Dataset

RATED = {"prompt", "response", "score"}
# What is the same of responses that are compared.
SHARED = ("prompt", "subset", "tools", "chat_template_kwargs", "user")


def group_rated(rows: Iterable[Mapping[str, Any]], path: str) -> "Dataset":
    """A data set of K-wise rows, one per prompt, of rows of one rated response each. UserError if none is left."""
    from datasets import Dataset

    kept = grouped(list(rows), path)
    if not kept:
        raise UserError(f"data.path: {path} holds no comparison")
    return Dataset.from_dict({ROW: [as_text(row, where_of(path, n)) for n, row in enumerate(kept)]})


def is_rated(row: Mapping[str, Any]) -> bool:
    """Whether a row holds one rated response, and no comparison of its own."""
    return set(row) >= RATED and not {"chosen", "rejected"} <= set(row) and "responses" not in row


def grouped(rows: list[Mapping[str, Any]], path: str) -> list[Mapping[str, Any]]:
    """Rows of one rated response each -> one K-wise row per prompt (with its tools), those of one response left out.

    Of each other column that holds numbers, the row has those of every response.
    """
    groups: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for index, row in enumerate(rows):
        if any(row.get(name) in (None, "", []) for name in ("prompt", "score")) or row.get("response") is None:
            raise UserError(f"{where_of(path, index)}: one of prompt, response, score is missing")
        groups[as_text({k: row.get(k) for k in SHARED if k != "subset"}, where_of(path, index))].append(row)
    refuse_other_weights(groups.values(), path)
    numbers = numeric(rows)
    kept: list[Mapping[str, Any]] = [
        {
            **{k: group[0][k] for k in (*SHARED, "weight") if k in group[0]},
            **{k: [r.get(k) for r in group] for k in numbers},
            "responses": [r["response"] for r in group],
            "scores": [r["score"] for r in group],
        }
        for group in groups.values()
        if len(group) > 1
    ]
    if len(kept) < len(groups):
        of_whom = " of one user" if any("user" in row for row in rows) else ""
        left_out = f"{len(groups) - len(kept):,} of {len(groups):,}"
        say(f"{path}: left out {left_out} prompts that have a single response{of_whom}")
    return kept


def refuse_other_weights(groups: Iterable[list[Mapping[str, Any]]], path: str) -> None:
    """UserError where the responses to a prompt have several weights: their comparison has one."""
    for group in groups:
        weights = list(dict.fromkeys(brief(row.get("weight")) for row in group))
        if len(weights) > 1:
            raise UserError(
                f"{path}: responses to the prompt {brief(group[0]['prompt'])} have the weights {', '.join(weights)}, "
                "and their comparison can have one; hide the column with data.columns.weight=null"
            )


def numeric(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns that hold numbers, or lists of them, beside what makes a comparison of rated rows."""
    found: dict[str, bool] = {}
    for row in rows:
        for name, value in row.items():
            found[name] = found.get(name, True) and all(map(is_number, value if isinstance(value, list) else [value]))
    return [name for name, numbers in found.items() if numbers and name not in {*SHARED, *RATED, *COLUMNS}]


def is_number(value: Any) -> bool:
    """Whether it is one as `extra.known` reads it: also the text of one, and what says that nobody knows it."""
    if value is None or isinstance(value, int | float):
        return True
    try:
        return isinstance(known(value, "", ""), float)
    except UserError:
        return False
