"""Several reward models as one: each reads the rows through its own tokenizer, and their rewards become one."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rmlab.messages import UserError, check_at_least, check_one_of
from rmlab.metrics.scored import ScoredComparison
from rmlab.scoring.reward_model import RewardModel, as_array

END: Any = object()  # of rows, which may be anything, also null
# (M, K) rewards of M members -> (K,). `c`: how much a member's disagreement costs.
REDUCE: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "mean": lambda rewards, c: rewards.mean(0),
    "min": lambda rewards, c: rewards.min(0),
    "median": lambda rewards, c: np.median(rewards, axis=0),
    "mean-std": lambda rewards, c: rewards.mean(0) - c * rewards.std(0),
}


class Ensemble:
    """Scores as a RewardModel does.

    Args:
        members: the models, at least one.
        reduce: mean, min (worst case), median, or mean-std: the mean minus `c` standard deviations (of the population).
    """

    def __init__(self, members: Sequence[RewardModel], reduce: str = "mean", c: float = 1.0) -> None:
        check_reduce(reduce, c)
        if not members:
            raise UserError("an ensemble has at least one member")
        self.members, self.reduce, self.c = list(members), reduce, c

    @classmethod
    def load(cls, paths: Sequence[str], reduce: str = "mean", c: float = 1.0, **options: Any) -> "Ensemble":
        """Of run directories, folders or hub names. options: of every member, see RewardModel."""
        check_reduce(reduce, c)
        return cls([RewardModel(path, **options) for path in paths], reduce, c)

    def score(self, rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """As RewardModel.score."""
        return as_array([self.reduced(each).rewards for each in self.each(rows, "the data")])

    def scored(self, rows: Iterable[Mapping[str, Any]], name: str, start: int = 0) -> Iterator[ScoredComparison]:
        """As RewardModel.scored; lengths are those of the first member's tokens."""
        return (self.reduced(each) for each in self.each(rows, name, start, texts=True))

    def each(
        self, rows: Iterable[Mapping[str, Any]], name: str, start: int = 0, texts: bool = False
    ) -> Iterator[tuple[ScoredComparison, ...]]:
        """(M,) what every member says of a row."""
        copies = shared(rows, len(self.members))
        scored = (m.scored(copy, name, start, texts) for m, copy in zip(self.members, copies, strict=True))
        return zip(*scored, strict=True)

    def reduced(self, each: Sequence[ScoredComparison]) -> ScoredComparison:
        """One of all members'."""
        if len(each) == 1:
            return each[0]
        rewards = np.array([one.rewards for one in each], dtype=np.float64)
        return replace(each[0], rewards=REDUCE[self.reduce](rewards, self.c).astype(np.float32).tolist())


def check_reduce(reduce: str, c: float) -> None:
    """UserError for an unknown word, and a negative `c`."""
    check_one_of("reduce", reduce, REDUCE)
    check_at_least("c", c, 0)


def shared(rows: Iterable[Mapping[str, Any]], count: int) -> list[Iterator[Mapping[str, Any]]]:
    """The rows so many times, read once; each member reads them from a thread of its own."""
    lock = threading.Lock()

    def taken(copy: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        while True:
            with lock:
                row = next(copy, END)
            if row is END:
                return
            yield row

    return [taken(copy) for copy in itertools.tee(rows, count)]
