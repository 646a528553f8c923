"""What a data set of token trees holds, counted in batches of Arrow, and which of its rows stay."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from rmlab.data.columns import where_of
from rmlab.data.config import Options
from rmlab.messages import UserError, say

BATCH = 1000  # rows that are counted at once
REASONS = ("overlong", "identical", "empty", "weightless", "duplicate")  # why a row is left out


@dataclass
class Counts:
    """Of a set; those that say so are of the rows that stay."""

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    identical: int = 0  # preferences between equal responses, which are left out
    duplicates: int = 0  # rows that say again what an earlier one says, whether or not they stay
    empty: int = 0  # rows with an empty response, whether or not they stay
    truncated: int = 0  # of those that stay, as all that follows
    cut: int = 0  # of all rows
    responses: int = 0
    preferences: int = 0
    ties: int = 0
    negative: int = 0  # preferences with a negative strength
    tokens: int = 0
    longest: int = 0

    def add(self, table: pa.Table, stays: np.ndarray) -> None:
        """Count the rows of a batch. stays: (B,) bool, which of them do."""
        preferences, responses, prefix = (lengths_of(table[name]) for name in ("better", "suffixes", "prefix"))
        probability, strength = (
            pc.list_flatten(table[name]).to_numpy()[np.repeat(stays, preferences)]
            for name in ("probability", "strength")
        )
        tokens = np.repeat(prefix, responses) + lengths_of(pc.list_flatten(table["suffixes"]))
        tokens = tokens[np.repeat(stays, responses)]
        truncated = table["truncated"].to_numpy()
        self.rows += len(table)
        self.identical += int(table["identical"].to_numpy().sum())
        self.empty += int(table["empty"].to_numpy().sum())
        self.cut += int(truncated.sum())
        self.truncated += int(truncated[stays].sum())
        self.responses += len(tokens)
        self.preferences += len(probability)
        self.ties += int((probability == 0.5).sum())
        self.negative += int((strength < 0).sum())
        self.tokens += int(tokens.sum())
        self.longest = max(self.longest, int(tokens.max(initial=0)))

    @property
    def kept(self) -> int:
        """Rows that stay."""
        return self.rows - sum(self.dropped.values())

    def line(self) -> str:
        """In a sentence."""
        more = "".join(f", {self.dropped[reason]:,} {reason}" for reason in REASONS[2:] if self.dropped[reason])
        return (
            f"{self.kept:,} comparisons of {self.rows:,} rows; {self.responses:,} responses, {self.preferences:,} "
            f"preferences, {self.ties:,} ties; {self.duplicates:,} rows are duplicates, {self.empty:,} have an empty "
            f"response; dropped {self.dropped['overlong']:,} overlong, {self.identical:,} identical{more}; truncated "
            f"{self.truncated:,}; {self.tokens:,} tokens, longest {self.longest:,}"
        )

    def advice(self) -> str:
        """What to do where no row stays."""
        if self.cut and self.cut >= self.dropped["identical"] / 2:
            return "what the responses differ in was cut off; raise data.max_length"
        return ADVICE[max(REASONS, key=lambda reason: self.dropped[reason])]


ADVICE = {
    "overlong": "raise data.max_length or set data.overlong=truncate",
    "identical": "the better and the worse response are the same tokens: are the columns the right ones, and does the "
    "chat template show what they differ in, such as tool calls?",
    "empty": "every row has an empty response: are the columns the right ones? data.empty=keep keeps them",
    "weightless": "every row has weight 0; is the column the right one? data.columns.weight=null hides it",
    "duplicate": "data.duplicates=keep keeps them",
}


def lengths_of(lists: Any) -> np.ndarray:
    """(N,) how many values each list of an Arrow column has."""
    return pc.list_value_length(lists).to_numpy()


def values(trees: Dataset, column: str) -> Iterator[Any]:
    """Those of a column, as Python values, one after the other."""
    return (value for table in tables(trees.select_columns([column])) for value in table[column].to_pylist())


def tables(trees: Dataset) -> Iterator[pa.Table]:
    """Its rows as tables of Arrow, BATCH at once: what is read of them does not add up in memory."""
    return iter(trees.with_format("arrow").iter(BATCH))


def repeats(content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places of what stands at an earlier place too, ascending; the first place of each) of (N,) hashes."""
    _, first, group = np.unique(content, return_index=True, return_inverse=True)
    places = np.flatnonzero(first[group] != np.arange(len(content)))
    return places, first[group[places]]


def report_and_keep(trees: Dataset, name: str, options: Options) -> Dataset:
    """Print the line of counts and return the rows that stay. UserError if none do, and for a duplicate if it is one.

    Of duplicates the first that is not left out for another reason stays.
    """
    counts = Counts()
    stays = staying(trees, name, options, counts)
    start = 0
    for table in tables(trees):
        counts.add(table, stays[start : start + len(table)])
        start += len(table)
    if not stays.any():
        raise UserError(f"{name}: nothing is left of {len(trees)} rows: {dict(counts.dropped)}; {counts.advice()}")
    say(f"{name}: {counts.line()}")
    if counts.negative:
        say(
            f"warning: {name}: {counts.negative:,} preferences have a negative strength: their better side is rated "
            "lower"
        )
    return trees.select(range(len(trees)) if stays.all() else np.flatnonzero(stays))


def staying(trees: Dataset, name: str, options: Options, counts: Counts) -> np.ndarray:
    """(N,) bool, which rows stay; why the others do not, and duplicates, are counted."""
    kept, content = [np.empty(0, bool)], [np.empty(0, np.int64)]
    for table in tables(trees.select_columns(["dropped", "content"])):
        reasons = pc.value_counts(table["dropped"]).to_pylist()
        counts.dropped.update({r["values"]: r["counts"] for r in reasons if r["values"]})
        kept.append(pc.equal(table["dropped"], "").to_numpy())
        content.append(table["content"].to_numpy())
    stays = np.concatenate(kept)
    places = np.flatnonzero(stays)
    again, first = repeats(np.concatenate(content)[places])
    counts.duplicates = len(again)
    if options.duplicates == "error" and len(again):
        raise UserError(
            f"{where_of(name, places[again[0]])}: it is row {places[first[0]]} again, with the same prompt, responses "
            "and preferences; remove it or set data.duplicates=drop (keep to keep it)"
        )
    if options.duplicates == "drop" and len(again):
        stays[places[again]] = False
        counts.dropped["duplicate"] = len(again)
    return stays
