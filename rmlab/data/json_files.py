"""Rows of JSON files: an object a line, or one array; an error names the line."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from rmlab.messages import UserError, first_line


def is_json(file: Path) -> bool:
    """By its name, .gz apart; a data file that is not JSON is parquet."""
    return file.name.removesuffix(".gz").endswith((".jsonl", ".json"))


def read_json(file: Path) -> Iterable[dict[str, Any]]:
    """Rows of a JSON lines file, or of one JSON array. A line that is no object is a UserError naming it."""
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        yield from parse_json(file, opener)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"data.path: cannot read {file}: {error}") from error


def parse_json(file: Path, opener: Callable[..., IO[str]]) -> Iterable[dict[str, Any]]:
    """Rows of a file that `opener` opens: of one array, where a .json file begins with [, else an object per line.

    Empty lines are passed over. UserError naming the line or row that is no JSON object.
    """
    with opener(file, "rt", encoding="utf-8-sig") as stream:  # some tools begin a file with a mark
        if not file.name.removesuffix(".gz").endswith(".jsonl"):
            content = stream.read()
            if content.lstrip().startswith("["):
                rows = parsed(content, str(file))
                for index, row in enumerate(rows):
                    if not isinstance(row, dict):
                        raise UserError(f"{file} row {index} (counting from 0) is not a JSON object with named columns")
                    yield row
                return
            refuse_one_object(content, file)
            lines: Iterable[str] = content.split("\n")  # and at no other mark: a text may hold U+2028
        else:
            lines = stream
        for number, line in enumerate(lines, 1):
            if line.strip():
                row = parsed(line, f"{file} line {number}")
                if not isinstance(row, dict):
                    raise UserError(f"{file} line {number} is not a JSON object with named columns")
                yield row


def refuse_one_object(content: str, file: Path) -> None:
    """UserError for a .json file that is one object over several lines: rows lie inside it, nobody knows where."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(whole, dict) and "\n" in content.strip():
        raise UserError(f"{file} is one JSON object ({', '.join(whole)}); write its rows as an array, or one a line")


def parsed(text: str, where: str) -> Any:
    """A JSON value. UserError for what is none, or too deep or long to be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # integers of thousands of digits too
        raise UserError(f"{where} is not JSON ({first_line(error)})") from error
