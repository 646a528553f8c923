"""Several reward models as one: each reads the rows through its own tokenizer, and their rewards become one."""

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rmlab.data import Tokenizer
from rmlab.messages import UserError
from rmlab.metrics.ensemble import check_reduce, together
from rmlab.metrics.scored import ScoredComparison
from rmlab.scoring.reward_model import RewardModel, as_array

END: Any = object()  # of rows, which may be anything, also null


class Ensemble:
    """Scores as a RewardModel does; `outputs` of what it has scored are the rewards of its members.

    Args:
        members: the models, at least one.
        reduce: mean, min (worst case), median, mean-std or mean-var: the mean minus `c` standard deviations, or
            variances, of the members.
        align: none, or prompt: each member's rewards of a row are moved to the same mean first, see metrics/ensemble.
            Members whose spread differs are loaded with normalise=True.
    """

    folder: str | None = None  # of its weights, as RewardModel has it: there is none

    def __init__(
        self, members: Sequence[RewardModel], reduce: str = "mean", c: float = 1.0, align: str = "none"
    ) -> None:
        check_reduce(reduce, c, align)
        if not members:
            raise UserError("an ensemble has at least one member")
        self.members, self.reduce, self.c, self.align = list(members), reduce, c, align

    @classmethod
    def load(
        cls, paths: Sequence[str], reduce: str = "mean", c: float = 1.0, align: str = "none", **options: Any
    ) -> "Ensemble":
        """Of run directories, folders or hub names. options: of every member, see RewardModel."""
        check_reduce(reduce, c, align)
        return cls([RewardModel(path, **options) for path in paths], reduce, c, align)

    @property
    def tokenizer(self) -> Tokenizer:
        """The first member's. UserError where some members have a chat template and others have none."""
        with_template = {bool(getattr(member.tokenizer, "chat_template", None)) for member in self.members}
        if len(with_template) > 1:
            raise UserError("some members have a chat template and others have none; rows are not the same for both")
        return self.members[0].tokenizer

    @property
    def measured(self) -> dict[str, Any]:
        """As RewardModel.measured, of every member."""
        told = [member.measured for member in self.members]
        return {"members": told, "reduce": self.reduce, "c": self.c, "align": self.align}

    @property
    def names(self) -> list[str]:
        """(M,) of its outputs, the rewards of its members; of one member those of its head."""
        several = [f"member_{n}" for n in range(len(self.members))]
        return several if len(several) > 1 else self.members[0].names

    def score(self, rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """As RewardModel.score."""
        return as_array([self.reduced(each).rewards for each in self.each(rows, "the data")])

    def scored(
        self, rows: Iterable[Mapping[str, Any]], name: str, start: int = 0, texts: bool = True
    ) -> Iterator[ScoredComparison]:
        """As RewardModel.scored; lengths are those of the first member's tokens."""
        return (self.reduced(each) for each in self.each(rows, name, start, texts))

    def each(
        self, rows: Iterable[Mapping[str, Any]], name: str, start: int = 0, texts: bool = False
    ) -> Iterator[tuple[ScoredComparison, ...]]:
        """(M,) what every member says of a row."""
        copies = shared(rows, len(self.members))
        scored = (m.scored(copy, name, start, texts) for m, copy in zip(self.members, copies, strict=True))
        return zip(*scored, strict=True)

    def reduced(self, each: Sequence[ScoredComparison]) -> ScoredComparison:
        """One of all members'."""
        return together(each, self.reduce, self.c, self.align)


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
