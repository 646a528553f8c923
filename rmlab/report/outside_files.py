"""A file of scores that no run of the study made: what it says of each comparison."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow.parquet

from rmlab.data import Comparison
from rmlab.data.json_files import is_json, read_json
from rmlab.data.prompts import split_prompt
from rmlab.data.values import brief, listed, number, text
from rmlab.messages import UserError, first_line

Key: TypeAlias = tuple[str, str]  # what a comparison is found by: ("id" or "comparison", its value)
Verdict: TypeAlias = int | str  # the index of the response that is preferred, or one of WORDS
SIDES = ("chosen", "rejected")
WORDS = ("tie", *SIDES)
FORMS = "reward with response (its index), rewards (of all responses), or verdict"


@dataclass
class Entry:
    """What is said of one comparison. rewards: of its responses by index, NaN where unknown; or a verdict.

    texts: prompt and responses, where the comparison is to be found by them. where: the row, for errors.
    """

    where: str
    rewards: dict[int, float] = field(default_factory=dict)
    verdict: Verdict | None = None
    texts: Comparison | None = None


@dataclass(frozen=True)
class ScoresFile:
    """entries: by what the comparison is found by. verdicts: whether it says who is preferred, not by how much."""

    file: Path
    entries: dict[Key, Entry]
    verdicts: bool

    @property
    def by(self) -> str:
        """id, comparison or text."""
        return next(iter(self.entries))[0]


def read_scores_file(file: Path) -> ScoresFile:
    """UserError naming the row for one that says nothing, twice the same, or something else than the first one."""
    entries: dict[Key, Entry] = {}
    form = by = ""
    for place, row in enumerate(rows_of(file)):
        where = f"{file} row {place} (counting from 0)"
        form, by = form or form_of(row, where), by or found_by(row, where)
        if form not in row or (by != "text" and row.get(by) is None):
            raise UserError(f"{where} has no {form if form not in row else by}, but the first row has")
        key, texts = key_of(row, by, where)
        entry = entries.get(key)
        if entry is not None and form != "reward":
            raise UserError(f"{where}: {described(key)} is there already; keep one row of each comparison")
        add(entries.setdefault(key, Entry(where, texts=texts)), row, form, where, key)
    if not entries:
        raise UserError(f"{file} holds no row; give {FORMS}")
    return ScoresFile(file, entries, form == "verdict")


def rows_of(file: Path) -> Iterator[Mapping[str, Any]]:
    """Of a json, jsonl or parquet file, also .gz of JSON. UserError where it cannot be read."""
    if not file.is_file():
        raise UserError(f"--scores: there is no file {file}")
    if is_json(file):
        try:
            yield from (row for row, _ in read_json(file))
        except UserError as error:
            raise UserError(str(error).replace("data.path: ", "--scores: ")) from error
        return
    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, ValueError) as error:  # what pyarrow raises is one of them
        raise UserError(f"cannot read {file} as parquet ({first_line(error)}); give jsonl, json or parquet") from error
    yield from rows


def form_of(row: Mapping[str, Any], where: str) -> str:
    """Which column says what: reward, rewards or verdict."""
    found = [form for form in ("verdict", "rewards", "reward") if form in row]
    if not found or (found[0] == "reward" and "response" not in row):
        raise UserError(f"{where} has the columns {', '.join(map(str, row))}; scores are {FORMS}")
    return found[0]


def found_by(row: Mapping[str, Any], where: str) -> str:
    """Which column says of what comparison: id, else comparison, else the texts."""
    by = next((name for name in ("id", "comparison") if row.get(name) is not None), None)
    if by is None and not {"responses", "chosen"} & set(row):
        raise UserError(f"{where} names no comparison: give its id, or its prompt and responses (or chosen, rejected)")
    return by or "text"


def key_of(row: Mapping[str, Any], by: str, where: str) -> tuple[Key, Comparison | None]:
    """By which the row's comparison is found, with its texts if by them."""
    if by != "text":
        return (by, as_id(row[by])), None
    given = row["responses"] if "responses" in row else [row.get(side) for side in SIDES]
    texts = [text(response, where, "responses") for response in listed(given, where, "responses")]
    if len(texts) < 2:
        raise UserError(f"{where}: responses holds {len(texts)}; a comparison has at least 2")
    prompt, responses = split_prompt(row, texts, where)
    return ("text", repr([prompt, responses])), Comparison(prompt, responses, [])


def as_id(value: Any) -> str:
    """As text; a whole number never has a point, whatever a table made of its column."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)


def described(key: Key) -> str:
    """For errors: `id 'q1'`."""
    return f"{key[0]} {brief(key[1])}"


def add(entry: Entry, row: Mapping[str, Any], form: str, where: str, key: Key) -> None:
    """What the row says, into the entry of its comparison. UserError for a response that has a reward already."""
    if form == "verdict":
        entry.verdict = verdict_of(row["verdict"], where)
        if entry.texts and "responses" not in row and entry.verdict in SIDES:  # those of the file, not of the set
            entry.verdict = SIDES.index(entry.verdict)
    elif form == "rewards":
        values = [] if row["rewards"] is None else listed(row["rewards"], where, "rewards")
        entry.rewards = {k: reward_of(value, where) for k, value in enumerate(values)}
    else:
        k = row.get("response")
        k = int(k) if isinstance(k, float) and k.is_integer() else k  # of a table with gaps
        if isinstance(k, bool) or not isinstance(k, int) or k < 0:
            raise UserError(f"{where}: response is {brief(k)}, not the index of a response, which is 0 for the first")
        if k in entry.rewards:
            raise UserError(f"{where}: {described(key)} has a reward of response {k} already; keep one")
        entry.rewards[k] = reward_of(row["reward"], where)


def reward_of(value: Any, where: str) -> float:
    """A finite number; NaN where nothing is said."""
    return math.nan if missing(value) else number(value, where, "reward")


def missing(value: Any) -> bool:
    """None, or the NaN that a table has in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def verdict_of(value: Any, where: str) -> Verdict | None:
    """An index, `tie`, `chosen` or `rejected`; None where nothing is said."""
    word = value.strip() if isinstance(value, str) else value
    if missing(word) or word == "":
        return None
    if isinstance(word, float) and word.is_integer():
        word = int(word)
    if isinstance(word, int) and not isinstance(word, bool) and word >= 0:
        return word
    if isinstance(word, str) and word.lower() in WORDS:
        return word.lower()
    if isinstance(word, str) and re.fullmatch("[A-Za-z]", word):
        return ord(word.upper()) - ord("A")
    raise UserError(
        f"{where}: verdict is {brief(value)}; it must be the index of the preferred response (0 is the first), its "
        "letter (A is the first), tie, chosen or rejected"
    )
