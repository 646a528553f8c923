"""Rows of JSON files: an object a line, or one array; an error names the line."""

import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

from rmlab.messages import UserError, first_line


def is_json(file: Path) -> bool:
    """By its name, .gz apart; a data file that is not JSON is parquet."""
    return file.name.removesuffix(".gz").endswith((".jsonl", ".json"))


Read: TypeAlias = tuple[dict[str, Any], str | None]  # a row, and its line where it has one


def read_json(file: Path) -> Iterator[Read]:
    """Rows of a JSON lines file, or of one JSON array. A line that is no object is a UserError naming it."""
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig") as stream:  # some tools begin a file with a mark
            if file.name.removesuffix(".gz").endswith(".jsonl"):
                yield from rows_of_lines(stream, file)
            else:
                yield from rows_of_either(stream, file)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"data.path: cannot read {file}: {error}") from error


def rows_of_either(stream: IO[str], file: Path) -> Iterator[Read]:
    """Rows of a .json file: of one array, where it begins with [, else of an object per line."""
    before = list(iter_until(stream, str.strip))
    if before and before[-1].lstrip().startswith("["):
        yield from rows_of_array("".join(before) + stream.read(), file)
        return
    if before and not is_object(before[-1]):
        content = "".join(before) + stream.read()
        refuse_one_object(content, file)
        yield from rows_of_lines(content.split("\n"), file)  # and at no other mark: a text may hold U+2028
        return
    yield from rows_of_lines(itertools.chain(before, stream), file)


def iter_until(lines: Iterable[str], found: Callable[[str], Any]) -> Iterator[str]:
    """The lines up to the first that is what was looked for, with it."""
    for line in lines:
        yield line
        if found(line):
            return


def rows_of_array(content: str, file: Path) -> Iterator[Read]:
    """Rows of one JSON array. UserError naming the row that is no object."""
    for index, row in enumerate(parsed(content, str(file))):
        if not isinstance(row, dict):
            raise UserError(f"{file} row {index} (counting from 0) is not a JSON object with named columns")
        yield row, None


def rows_of_lines(lines: Iterable[str], file: Path) -> Iterator[Read]:
    """Rows of an object per line; empty lines are passed over. UserError naming the line that is none."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = parsed(line, f"{file} line {number}")
            if not isinstance(row, dict):
                raise UserError(f"{file} line {number} is not a JSON object with named columns")
            yield row, line.strip()


def is_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


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
