"""Rows under rmlab's names: columns renamed, nested values read, prompts cut or joined."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rmlab.data import ROW
from rmlab.data.labels import check_code, decoded
from rmlab.data.named import column, values_of
from rmlab.data.values import brief, without_nulls
from rmlab.messages import UserError

BATCH = 256  # rows that are Python values at once
HEAD = 100  # rows of a stream that are looked at before it is used


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as Python values: the text that `load` keeps, or columns, without the nulls that Arrow puts inside them."""
    return json.loads(row[ROW]) if ROW in row else without_nulls_inside(row)


def with_nulls(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with them, as `renamed` is given it."""
    return json.loads(row[ROW]) if ROW in row else row


def without_nulls_inside(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with all its columns, in whose values no key is null."""
    return {name: without_nulls(value) for name, value in row.items()}


def rows_of(batch: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a batch of columns, as `read_row` reads them."""
    return (read_row(dict(zip(batch, values, strict=True))) for values in zip(*batch.values(), strict=True))


def read_rows(dataset: Any, batch: int = BATCH) -> Iterator[dict[str, Any]]:
    """The rows of a data set as `read_row` reads them: so many at once of Arrow, for one by one takes long."""
    return (row for rows in dataset.iter(batch) for row in rows_of(rows))


def head(dataset: Any) -> Any:
    """All rows of a data set, or the first of a stream, which is only read as it is needed."""
    return dataset if hasattr(dataset, "__len__") else dataset.take(HEAD)


def renamed_texts(
    rows: Mapping[str, list[Any]], indices: list[int], columns: Mapping[str, Any], separator: str | None, path: str
) -> dict[str, list[str]]:
    """`renamed` of some rows of Arrow, kept as text. Nulls inside stay until then: a name may be that of one."""
    whole = (dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True))
    texts = []
    for row, n in zip(whole, indices, strict=True):
        named = renamed(with_nulls(row), n, columns, separator, path)
        texts.append(as_text(named if ROW in row else without_nulls_inside(named), where_of(path, n)))
    return {ROW: texts}


def renamed(
    row: Mapping[str, Any], index: int, columns: Mapping[str, Any], separator: str | None, path: str
) -> dict[str, Any]:
    """`rename` of the row at `index` of `path`, which errors name."""
    try:
        return rename(row, columns, separator)
    except (UserError, RecursionError) as error:
        what = error if isinstance(error, UserError) else "a value is nested too deep to be read"
        raise UserError(f"{where_of(path, index)}: {what}") from error


def where_of(path: str, index: int) -> str:
    """How errors name a row of a file or data set."""
    return f"{path} row {index} (counting from 0)"


def as_text(row: Mapping[str, Any], where: str) -> str:
    """A row as JSON. UserError for one that is nested too deep."""
    try:
        return json.dumps(row, default=plain_value)
    except RecursionError as error:
        raise UserError(f"{where} is nested too deep; remove it") from error


def plain_value(value: Any) -> Any:
    """What JSON has no type for: dates and decimals as text, all else as a mapping, which no column of text takes."""
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | Decimal):
        return str(value)
    return {type(value).__name__: repr(value)[:80]}


def rename(row: Mapping[str, Any], columns: Mapping[str, Any], separator: str | None) -> dict[str, Any]:
    """The row under rmlab's names; with a separator, chosen and rejected texts cut into prompt and responses."""
    hidden = {name for name, source in columns.items() if source is None}
    out = {k: v for k, v in row.items() if k not in hidden}
    for name, source in columns.items():
        if isinstance(source, Mapping) and "column" in source:
            check_code(source, name)
            out.pop(name, None)  # a label in a code of its own, which may also be called label
            out.update(decoded(values_of(row, source["column"], name), source, name))
        elif name == "prompt" and source is not None and not isinstance(source, str):
            out[name] = joined(row, source)
        elif source is not None:
            out[name] = values_of(row, source, name)
    if isinstance(columns.get("prompt"), str) and out["prompt"] is None and not has_dialogues(out):
        raise UserError(f"data.columns.prompt: {columns['prompt']} is null; fix or remove the row")
    if separator and isinstance(out.get("chosen"), str) and isinstance(out.get("rejected"), str):
        parts = [out[side].rpartition(separator) for side in ("chosen", "rejected")]
        if parts[0][1] and parts[0][:2] == parts[1][:2]:
            out["prompt"] = parts[0][0] + parts[0][1]
            out["chosen"], out["rejected"] = parts[0][2], parts[1][2]
    return out


def joined(row: Mapping[str, Any], sources: Any) -> Any:
    """One prompt of several columns: texts with a blank line between them, or messages after a system text.

    UserError for messages beside a text whose column does not say that it is the system's.
    """
    if not isinstance(sources, Sequence) or not all(isinstance(source, str) for source in sources):
        raise UserError(f"data.columns.prompt must be a column or a list of them, not {brief(sources)}")
    values = [column(row, source, "prompt") for source in sources]
    values = [[value] if is_message(value) else value for value in values]
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


def has_dialogues(row: Mapping[str, Any]) -> bool:
    """Whether its responses are messages, in which a prompt may stand."""
    given = [row.get("chosen"), row.get("responses")]
    inside = [item for value in given if isinstance(value, list) for item in value]
    first = [item for value in inside for item in (value if isinstance(value, list) else [value])]
    return any(isinstance(item, Mapping) for item in first)


def is_messages(value: Any) -> bool:
    """Whether it is a list of chat messages."""
    return isinstance(value, list) and any(is_message(item) for item in value)


def is_message(value: Any) -> bool:
    """Whether it is a chat message."""
    return isinstance(value, Mapping) and "role" in value


def flat(values: Any) -> list[str]:
    """Non-empty texts of a nested list, in order. UserError for what is neither text nor a number."""
    if isinstance(values, list):
        return [text for value in values for text in flat(value)]
    if not isinstance(values, str | int | float | None):
        raise UserError(f"data.columns.prompt: {brief(values)} is no text that could be joined")
    return [str(values)] if values not in (None, "") else []
