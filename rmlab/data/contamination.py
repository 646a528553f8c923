"""Prompts of an evaluation set that the training data holds, in the same words or in nearly the same.

The evaluation set is kept in memory, as hashes of its words; training prompts come by one at a time, however many.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from rmlab.data import Comparison, Text
from rmlab.data.cache import digest
from rmlab.data.columns import where_of
from rmlab.data.excerpts import said, shared_prompt
from rmlab.data.rows import to_comparison
from rmlab.data.trees import as_messages

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

WORDS = 5  # of a shingle
SIMILAR = 0.8  # Jaccard index of two prompts' shingles: as many in both, of all that there are
LOOSE = 0.6  # what the index is asked for, so that it misses next to none; what it finds is counted exactly
PERMUTATIONS = 128


@dataclass(frozen=True)
class Match:
    """A prompt of the evaluation set, and the training prompt that is most like it, the first of several.

    similarity: share of the runs of five words in either that are in both; 1 where `exact`, the same prompt but for
    white space around it and its wrapping as text or message.
    """

    id: str
    row: str
    similarity: float
    exact: bool


def contamination(evaluated: Iterable[tuple[str, Text]], trained: Iterable[tuple[str, Text]]) -> list[Match]:
    """The prompts (id, prompt) of an evaluation set that are in the training data, in their order, each with its match.

    Near ones have a similarity of at least 0.8, whatever their case and punctuation; prompts of fewer than five words
    are near where all of their words are the same.
    """
    index = Index(evaluated)
    best: dict[int, Match] = {}
    for row, prompt in trained:
        for place, similarity, exact in index.like(prompt):
            before = best.get(place)
            if before is None or (similarity, exact) > (before.similarity, before.exact):
                best[place] = Match(index.ids[place], row, similarity, exact)
    return [best[place] for place in sorted(best)]


class Index:
    """Prompts by what they say."""

    def __init__(self, prompts: Iterable[tuple[str, Text]]) -> None:
        self.ids: list[str] = []
        self.same: dict[str, list[int]] = {}  # hash of the whole prompt -> its places
        self.shingles: list[frozenset[int]] = []
        self.known: set[int] = set()  # shingles of any of them
        self.near = new_lsh()
        for place, (name, prompt) in enumerate(prompts):
            self.ids.append(name)
            if said(prompt).strip():  # nothing is in no other rows
                self.same.setdefault(digest(as_messages(prompt)), []).append(place)
            self.shingles.append(shingles(said(prompt)))
            self.known |= self.shingles[-1]
            if self.shingles[-1]:
                self.near.insert(place, minhash(self.shingles[-1]))

    def like(self, prompt: Text) -> Iterator[tuple[int, float, bool]]:
        """(place, similarity, whether it is the same) of each that is like the prompt."""
        same = self.same.get(digest(as_messages(prompt)), [])
        yield from ((place, 1.0, True) for place in same)
        words = shingles(said(prompt))
        if not words or len(words & self.known) < SIMILAR * len(words):  # then it is like none of them
            return
        for place in self.near.query(minhash(words)):
            similarity = jaccard(words, self.shingles[place])
            if similarity >= SIMILAR and place not in same:
                yield place, similarity, False


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """How many are in both, of all that are in either."""
    both = len(a & b)
    return both / (len(a) + len(b) - both)


def shingles(text: str) -> frozenset[int]:
    """Hashes of all runs of five words; of fewer words, of all of them together."""
    words = re.findall(r"\w+", text.lower())
    runs = range(max(1, len(words) - WORDS + 1)) if words else ()
    return frozenset(xxhash.xxh3_64_intdigest(" ".join(words[n : n + WORDS]).encode("utf-8", "replace")) for n in runs)


def minhash(hashes: frozenset[int]) -> "MinHash":
    """What the index knows a set of shingles by."""
    from datasketch import MinHash

    made = MinHash(num_perm=PERMUTATIONS)
    made.update_batch([each.to_bytes(8, "little") for each in sorted(hashes)])
    return made


def new_lsh() -> "MinHashLSH":
    """An empty index that rather finds too many than too few."""
    from datasketch import MinHashLSH

    return MinHashLSH(threshold=LOOSE, num_perm=PERMUTATIONS, weights=(0.2, 0.8))


def prompts_of(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[tuple[str, Text]]:
    """(id, or number; prompt) of rows in any accepted format, but for those of token ids. UserError for a bad row.

    Of rows without a prompt it is what their responses begin with alike.
    """
    for number, row in enumerate(rows):
        comparison = to_comparison(row, where_of(name, number))
        if not comparison.tokenised:
            yield comparison.id if comparison.id is not None else str(number), asked(comparison)


def asked(comparison: Comparison) -> Text:
    """The prompt, or what the responses begin with alike, in whole words."""
    return comparison.prompt or shared_prompt([said(response) for response in comparison.responses])
