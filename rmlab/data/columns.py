"""Rows under rmlab's names: columns renamed, nested values read, prompts cut or joined."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rmlab.data import ROW
from rmlab.data.labels import decoded
from rmlab.data.values import without_nulls
from rmlab.messages import UserError, did_you_mean


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as Python values: the text that `load` keeps, or columns, without the nulls that Arrow puts inside them."""
    return json.loads(row[ROW]) if ROW in row else {k: without_nulls(v) for k, v in row.items()}


def renamed_text(row: Mapping[str, Any], columns: Mapping[str, Any], separator: str | None) -> dict[str, str]:
    """`rename` of a row of Arrow, kept as text."""
    return {ROW: json.dumps(rename(read_row(row), columns, separator), default=str)}


def rename(row: Mapping[str, Any], columns: Mapping[str, Any], separator: str | None) -> dict[str, Any]:
    """The row under rmlab's names; with a separator, chosen and rejected texts cut into prompt and responses."""
    hidden = {name for name, source in columns.items() if source is None}
    out = {k: v for k, v in row.items() if k not in hidden}
    for name, source in columns.items():
        if isinstance(source, str):
            out[name] = column(row, source, name)
        elif isinstance(source, Mapping):
            out.pop(name, None)  # a label in a code of its own, which may also be called label
            out.update(decoded(column(row, str(source.get("column")), name), source, name))
        elif source is not None:
            values = [column(row, s, name) for s in source]
            out[name] = joined(values, source) if name == "prompt" else values
    if separator and isinstance(out.get("chosen"), str) and isinstance(out.get("rejected"), str):
        parts = [out[side].rpartition(separator) for side in ("chosen", "rejected")]
        if parts[0][1] and parts[0][:2] == parts[1][:2]:
            out["prompt"] = parts[0][0] + parts[0][1]
            out["chosen"], out["rejected"] = parts[0][2], parts[1][2]
    return out


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
    """What a dotted name says: a key of a mapping, or of each mapping in a list. KeyError if there is none."""
    if not parts:
        return value
    if isinstance(value, list):
        return [inside(item, parts) for item in value]
    if not isinstance(value, Mapping):
        raise KeyError(parts[0])
    return inside(value[parts[0]], parts[1:])


def joined(values: list[Any], sources: Sequence[str]) -> Any:
    """One prompt of several columns: texts with a blank line between them, or messages after a system text.

    UserError for messages beside a text whose column does not say that it is the system's.
    """
    if not any(is_messages(value) for value in values):
        return "\n\n".join(flat(values))
    prompt: list[Any] = []
    for value, source in zip(values, sources, strict=True):
        if is_messages(value):
            prompt += value
        elif value not in (None, "") and "system" in source.lower() and isinstance(value, str):
            prompt.append({"role": "system", "content": value})
        elif value not in (None, ""):
            raise UserError(f"data.columns.prompt: {source} is text beside messages; only a system text can be joined")
    return prompt


def is_messages(value: Any) -> bool:
    """Whether it is a list of chat messages."""
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


def flat(values: Any) -> list[str]:
    """Non-empty texts of a nested list, in order."""
    if isinstance(values, list):
        return [text for value in values for text in flat(value)]
    return [str(values)] if values not in (None, "") else []
