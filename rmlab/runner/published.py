"""The `report` node: what `rmlab-report` need not be told again, and what a paper has published on the question."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rmlab.messages import UserError, check_all, check_one_of, did_you_mean, first_line

# How the numbers came here, from the surest on. `in words`: the paper states a direction, and no number is quoted.
EVIDENCE = ("transcribed", "second-hand", "recalled: not checked", "in words")
MEASURES = ("accuracy", "nll", "brier", "gap", "offset")
CLAIM = re.compile(r"(?P<arm>.+?) (?P<sign>[<>]) (?P<other>.+?)(?: on (?P<column>.+))?")


@dataclass
class Measure:
    """What of a study stands for a column of a published table: the mean of a metric over preferences.

    metric: accuracy, nll, brier, `gap` (of the two rewards) or `offset` (how far their mean is from zero). set: an
    evaluation set, the first one by default; subset, strength (one, or the lowest and the highest): a part of it.
    suite, number: a total or subset of a benchmark suite, its score by default; where no run was scored on it, the
    score is not to be had, and the set stands for it.
    """

    metric: str = "accuracy"
    set: str | None = None
    subset: str | None = None
    strength: list[float] = field(default_factory=list)
    suite: str | None = None
    number: str | None = None

    def check(self, where: str) -> None:
        """UserError naming the key of what is no measure."""
        check_one_of(f"{where}.metric", self.metric, MEASURES)
        if len(self.strength) > 2:
            raise UserError(f"{where}.strength is {self.strength}; give one strength, or the lowest and the highest")
        if self.number and not self.suite:
            raise UserError(f"{where}.number is of a suite; give {where}.suite, too")


@dataclass(frozen=True)
class Claim:
    """`arm > other on column`: which of two numbers is the larger."""

    text: str
    arm: str
    sign: int  # 1: the arm's number is larger, -1: smaller
    other: str
    column: str


@dataclass
class Published:
    """A table of a paper. arms: by what our arms are called, a number for each of the columns; null: there is none."""

    citation: str = ""
    evidence: str = ""
    metric: str = ""  # what the numbers are, in words
    columns: dict[str, Measure] = field(default_factory=dict)
    arms: dict[str, list[float | None]] = field(default_factory=dict)
    claims: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> "Published":
        """Of `report.published`. UserError for what is none, or contradicts itself."""
        try:
            found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), dict(node)))
        except OmegaConfBaseException as error:
            raise UserError(f"report.published.{error.full_key}: {first_line(error)}") from error
        assert isinstance(found, cls)
        found.check()
        return found

    def check(self) -> None:
        """UserError naming the key of each mistake; also where the paper's own numbers contradict a claim."""
        where = "report.published"
        if not self.citation:
            raise UserError(
                f"{where}.citation is missing; say whose numbers these are: authors, title, arXiv id, table"
            )
        check_one_of(f"{where}.evidence", self.evidence, EVIDENCE)
        if not self.columns:
            raise UserError(
                f"{where}.columns is empty; name a column and what it is here: overall: {{metric: accuracy}}"
            )
        wrong = [arm for arm, numbers in self.arms.items() if len(numbers) != len(self.columns)]
        if wrong:
            raise UserError(
                f"{where}.arms.{wrong[0]} has {len(self.arms[wrong[0]])} numbers for {len(self.columns)} columns; "
                "write null for a number that is not there"
            )
        check_all(
            *(lambda n=name, m=measure: m.check(f"{where}.columns.{n}") for name, measure in self.columns.items())
        )
        for claim in self.stated():
            gap = self.difference(claim)
            if gap is not None and gap * claim.sign <= 0:
                raise UserError(f"{where}.claims: {claim.text!r}, but the numbers in arms differ by {gap:+g}")

    def stated(self) -> list[Claim]:
        """The claims. UserError for one that is no claim on a column."""
        return [parsed(text, list(self.columns)) for text in self.claims]

    def difference(self, claim: Claim) -> float | None:
        """The published number of the arm minus the other's; None where one of them is not published."""
        place = list(self.columns).index(claim.column)
        pair = [self.arms.get(name, [None] * len(self.columns))[place] for name in (claim.arm, claim.other)]
        return None if pair[0] is None or pair[1] is None else pair[0] - pair[1]


def parsed(text: str, columns: Sequence[str]) -> Claim:
    """`ARM > ARM on COLUMN`; the column may be left out where there is one. UserError for anything else."""
    found = CLAIM.fullmatch(text.strip())
    if not found:
        raise UserError(f"report.published.claims: {text!r} is no claim; write ARM > ARM on COLUMN, or < for less")
    column = found["column"] or (columns[0] if len(columns) == 1 else "")
    if column not in columns:
        near = did_you_mean(column, columns) if column else f"; say on which of {', '.join(columns)}"
        raise UserError(f"report.published.claims: {text!r} names no column{near}")
    return Claim(text.strip(), found["arm"], 1 if found["sign"] == ">" else -1, found["other"], column)


@dataclass
class ReportConfig:
    """The `report` node."""

    baseline: str | None = None
    tune: list[str] = field(default_factory=list)
    published: Published | None = None

    def check(self) -> None:
        """UserError naming the key of each mistake."""
        if self.published:
            self.published.check()
