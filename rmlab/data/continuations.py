"""Preferences out of plain text: what follows a text beats what follows other texts (reward-based scaling, 2603.02225).

Nobody has to compare anything: a document is cut into a prefix and the words after it, and other documents give the
rejected responses. All continuations have as many words, so that their length tells nothing.
"""

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab.data import DATASETS, ROW
from rmlab.data.columns import as_text, read_rows, where_of
from rmlab.data.sources import SUFFIXES, load
from rmlab.data.values import whole
from rmlab.messages import UserError, check_at_least, check_seed, say

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

WORD = re.compile(r"\s*\S+")  # with the white space before it: joined again, the text is what it was


@dataclass(frozen=True)
class Cutting:
    """How texts become comparisons."""

    prefix: int  # words
    continuation: int  # words
    others: int  # responses of other texts beside the true one
    block: int  # texts among which these are drawn
    seed: int

    def __post_init__(self) -> None:
        """UserError for what is no whole number of at least 1, and for a block that is too small."""
        for name in ("prefix", "continuation", "others", "block"):
            value = getattr(self, name)
            if type(value) is not int:
                raise UserError(f"continuations: {name} is {value!r}; it must be a whole number")
            check_at_least(f"continuations: {name}", value, 1)
        check_seed("continuations: seed", self.seed)
        if self.block <= self.others:
            raise UserError(
                f"continuations: {self.others} others cannot be drawn from a block of {self.block}; enlarge it"
            )


@dataclass(frozen=True)
class Piece:
    """A part of a text, cut in two."""

    document: int
    prefix: str
    continuation: str


@DATASETS.register
def continuations(
    *,
    path: str | None,
    text: str,
    prefix: int,
    continuation: int,
    others: int,
    block: int,
    seed: int,
    split: str = "train",
    hub: Mapping[str, Any] | None = None,
    streaming: bool = False,
    limit: int | None = None,
) -> "Dataset | IterableDataset":
    """Comparisons of 1 + `others` continuations, the true one first, of the texts of any source that `load` reads.

    Or of a folder of .txt files, each a text. The same rows, streamed or not; a text too short to be cut makes none.

    Args:
        text: the column that holds the texts.
        prefix, continuation: words of each; where in a text they stand is drawn with the seed.
        block: so many texts in a row, of which the others are drawn.
        limit: of texts.
    """
    from datasets import Dataset, IterableDataset

    from rmlab.data.texts import FEATURES

    cutting = Cutting(prefix, continuation, others, block, seed)
    read = {"path": path, "text": text, "split": split, "hub": hub, "limit": limit}
    if streaming:
        return IterableDataset.from_generator(rows_as_text, FEATURES, gen_kwargs={"read": read, "cutting": cutting})
    rows = [row[ROW] for row in rows_as_text(read, cutting)]
    if not rows:
        raise UserError(
            f"continuations: {path} has no {others + 1} different texts of {prefix + continuation} words; cut shorter"
        )
    say(f"{path}: {len(rows):,} texts of at least {prefix + continuation:,} words become comparisons")
    return Dataset.from_dict({ROW: rows})


def rows_as_text(read: Mapping[str, Any], cutting: Cutting) -> Iterator[dict[str, str]]:
    """The comparisons as `load` keeps rows: the text of JSON."""
    pieces = cut(texts(**read), cutting)
    for row in compared(pieces, cutting):
        yield {ROW: as_text(row, where_of(str(read["path"]), int(row["id"])))}


def texts(path: str | None, text: str, **options: Any) -> Iterator[str]:
    """The documents, one after the other. UserError for a row whose column holds no text."""
    files = sorted(Path(path).expanduser().rglob("*.txt")) if path is not None else []
    if files:
        refuse_other_kinds(str(path))
        yield from (file.read_text(encoding="utf-8", errors="replace") for file in files[: options["limit"]])
        return
    dataset = load(path=path, columns={"text": text}, streaming=True, **options)
    for index, row in enumerate(read_rows(dataset)):
        where = where_of(str(path), index)
        if not isinstance(row["text"], str):
            raise UserError(f"{where}: {text} is no text")
        yield whole(row["text"], where, text)


def refuse_other_kinds(path: str) -> None:
    """UserError for a folder of .txt files that holds rows, too: which of them are the texts?"""
    rows = [f.name for f in Path(path).expanduser().rglob("*") if f.name.removesuffix(".gz").endswith(SUFFIXES)]
    if rows:
        raise UserError(f"continuations: {path} holds .txt files and {min(rows)}; keep one kind")


def cut(documents: Iterable[str], cutting: Cutting) -> Iterator[Piece]:
    """One piece of each document that is long enough, somewhere in it; of the same document the same one."""
    size = cutting.prefix + cutting.continuation
    for index, document in enumerate(documents):
        words = WORD.findall(document)
        if len(words) < size:
            continue
        start = random.Random(f"{cutting.seed} {document}").randrange(len(words) - size + 1)
        middle = start + cutting.prefix
        yield Piece(index, "".join(words[start:middle]).lstrip(), "".join(words[middle : start + size]))


def compared(pieces: Iterable[Piece], cutting: Cutting) -> Iterator[dict[str, Any]]:
    """A row of each piece: its continuation, then those of others. The last block may draw of the one before it."""
    pieces, before = iter(pieces), list[Piece]()
    while some := list(itertools.islice(pieces, cutting.block)):
        donors = some if len(some) == cutting.block else before + some
        for piece in some:
            other = drawn(piece, donors, cutting)
            if other:
                yield {
                    "id": str(piece.document),
                    "prompt": piece.prefix,
                    "responses": [piece.continuation, *other],
                    "preferences": [{"better": 0, "worse": k} for k in range(1, 1 + len(other))],
                }
        before = some


def drawn(piece: Piece, donors: list[Piece], cutting: Cutting) -> list[str]:
    """`others` different continuations that are not of this prefix; none where there are not so many."""
    draw, found = random.Random(f"{cutting.seed} others {piece.document}"), dict[str, None]()
    few = draw.sample(donors, min(len(donors), 4 * cutting.others))  # enough, unless many texts are the same
    for donor in itertools.chain(few, donors):
        if donor.prefix != piece.prefix and donor.continuation != piece.continuation:
            found[donor.continuation] = None
        if len(found) == cutting.others:
            return list(found)
    return []
