"""Rows in windows: tokenised together, sorted by length and laid out for the model, one window ahead of it."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, cast

from rmlab.data import Comparison, Text
from rmlab.data.candidates import to_candidates, unread
from rmlab.data.columns import read_row, read_rows, where_of
from rmlab.data.drafts import Numbered
from rmlab.data.trees import TokenTree
from rmlab.messages import say
from rmlab.scoring.batch import Batch
from rmlab.scoring.collator import PreferenceCollator

WINDOW = 512  # rows
CHARACTERS = 2**22  # of all responses with their prompts: few rows are a window where they are long, or many answers


@dataclass(frozen=True)
class Window:
    """Some rows that follow each other."""

    trees: list[TokenTree]
    pieces: list[tuple[int, TokenTree]]  # what is computed together, `index` is its place here; and which tree it is of
    batches: list[Batch]  # of pieces

    @classmethod
    def of(cls, trees: list[TokenTree], collator: PreferenceCollator, whole: bool = False) -> "Window":
        """Laid out; a tree that is too large for one forward is in several pieces, unless it must be `whole`."""
        parts = [(n, piece) for n, tree in enumerate(trees) for piece in pieces_of(tree, collator, whole)]
        pieces = [(n, replace(piece, index=index)) for index, (n, piece) in enumerate(parts)]
        return cls(trees, pieces, collator.micro_batches([piece for _, piece in pieces]))


def pieces_of(tree: TokenTree, collator: PreferenceCollator, whole: bool = False) -> list[TokenTree]:
    """The responses of a tree without preferences, as many together as one forward computes, or one; `whole`: all."""
    budget = cast(int, collator.tokens_per_batch)
    alone = replace(tree, better=[], worse=[], strength=[], probability=[])
    if whole or collator.computed([alone]) <= budget:
        return [alone]
    parts: list[TokenTree] = []
    for suffix in tree.suffixes:
        grown = replace(alone, suffixes=[*parts[-1].suffixes, suffix]) if parts else alone
        if parts and collator.computed([grown]) <= budget:
            parts[-1] = grown
        else:
            parts.append(replace(alone, suffixes=[suffix]))
    return parts


def blocks(rows: Iterable[Mapping[str, Any]], name: str, start: int) -> Iterator[list[Numbered]]:
    """The comparisons of rows for a window each, numbered from `start`. UserError for a row that cannot be read.

    Where a window ends follows from the row at which the last WINDOW rows began, and from nothing before: what goes on
    there has the same windows.
    """
    read = read_rows(rows) if hasattr(rows, "iter") else map(read_row, rows)
    for first in itertools.count(start, WINDOW):
        some = list(itertools.islice(read, WINDOW))
        if not some:
            return
        places = [where_of(name, n) for n in range(first, first + len(some))]
        found = [
            (to_candidates(row, place), n, place)
            for n, (row, place) in enumerate(zip(some, places, strict=True), first)
        ]
        if first == start:
            tell_unread(some[0], found[0][0], name)
        yield from of_size(found)


def of_size(comparisons: Sequence[Numbered]) -> Iterator[list[Numbered]]:
    """They, in lists of at most CHARACTERS; a larger one has a list of its own."""
    part: list[Numbered] = []
    size = 0
    for numbered in comparisons:
        more = characters(numbered[0])
        if part and size + more > CHARACTERS:
            yield part
            part, size = [], 0
        part.append(numbered)
        size += more
    yield part


def characters(comparison: Comparison) -> int:
    """About how many there are to tokenise; token ids count as four."""
    if comparison.tokenised:
        return 4 * sum(map(len, comparison.responses))
    return sum(map(length, comparison.responses)) + len(comparison.responses) * length(comparison.prompt)


def length(text: Text) -> int:
    """Of a text, or of what messages say."""
    return len(text) if isinstance(text, str) else sum(len(str(message.get("content"))) for message in text)


def tell_unread(row: Mapping[str, Any], comparison: Comparison, name: str) -> None:
    """A line where no prompt is read and the first row has other texts, one of which may be it."""
    if found := unread(row, comparison):
        say(f"warning: {name}: no prompt is read, nor what is in {', '.join(found)}; call the prompt's column prompt")


def ahead(windows: Iterator[Window]) -> Iterator[Window]:
    """The same, each made while the one before it is computed."""
    with ThreadPoolExecutor(1) as other:
        coming = other.submit(next, windows, None)
        while (window := coming.result()) is not None:
            coming = other.submit(next, windows, None)
            yield window
