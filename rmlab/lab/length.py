"""What length does to rewards, taken off afterwards: a curve of reward over length, or a price per token.

Huang et al. 2409.17407 (reward minus its locally weighted regression on length, no label is used), Singhal et al.
2310.03716 (the price). Cleveland 1979 is the regression: LOWESS, robust, with the two thirds of responses nearest in
length as its window.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmlab.messages import UserError, check_at_least, say
from rmlab.metrics.scored import ScoredComparison

if TYPE_CHECKING:  # imported by the task itself: --help must not wait for them
    from rmlab.metrics.pairs import Number

CLOSE = 0.01  # of the range of lengths: between points that near the curve is a line, as in R's lowess


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `rmlab-lab length`."""
    add = parser.add_argument
    add("scores", nargs="+", type=Path, metavar="FIT APPLY", help="scores/SET.parquet of runs: to fit, and to change")
    add("--penalty", type=float, metavar="PRICE", help="of a token, instead of a curve; then APPLY alone is given")
    add("--window", type=float, default=2 / 3, metavar="PART", help="of responses that a point is of; default: 2/3")
    add("-o", "--out", type=Path, help="the changed scores, OUT.parquet, which rmlab-report --scores takes")


def run(options: argparse.Namespace) -> None:
    """Print accuracy, also by length, before and after; write --out. UserError for other files than are asked for."""
    from rmlab.report.tables import Words, print_tables
    from rmlab.runner.scores import write_scores

    wanted = 1 if options.penalty is not None else 2
    if len(options.scores) != wanted:
        raise UserError("give FIT.parquet and APPLY.parquet; with --penalty APPLY.parquet alone")
    if not 0 < options.window <= 1:
        raise UserError(f"--window is {options.window}; it must be above 0 and at most 1")
    check_at_least("--penalty", options.penalty, 0)
    if options.out is not None and options.out.suffix != ".parquet":
        raise UserError(f"{options.out}: scores are written as parquet; call it so")
    *fitted, before = [read(file) for file in options.scores]
    bias = Curve.of(fitted[0], options.window) if fitted else Price(options.penalty)
    after = without(before, bias)
    print_tables([table_of(before, after)], Words(f"{options.scores[-1]} without what length does", [bias.told], []))
    if options.out is not None:
        write_scores(after, options.out)
        say(str(options.out))


def read(file: Path) -> list[ScoredComparison]:
    """The comparisons of a file of scores. UserError for one that is none, or has no lengths."""
    from rmlab.runner.scores import read_scores

    try:
        found = read_scores(file).comparisons()
    except KeyError as error:
        raise UserError(f"{file} is no scores/SET.parquet of a run: it lacks {error}") from error
    if not any(length for c in found for length in c.lengths):
        raise UserError(f"{file} tells no lengths of responses")
    return found


# ---- what length does ----


@dataclass(frozen=True)
class Price:
    """Each token costs the same."""

    token: float

    def __call__(self, lengths: np.ndarray) -> np.ndarray:
        """(K,) of lengths (K,) in tokens."""
        return self.token * lengths

    @property
    def told(self) -> str:
        """In a sentence."""
        return f"A token costs {self.token:g}."


@dataclass(frozen=True)
class Curve:
    """The mean reward of responses by their length: a line between points, and beyond them as at the last one."""

    lengths: np.ndarray  # (N,) rising
    rewards: np.ndarray  # (N,)

    @classmethod
    def of(cls, comparisons: Sequence[ScoredComparison], window: float) -> "Curve":
        """LOWESS of all responses. UserError where all are as long."""
        from statsmodels.nonparametric.smoothers_lowess import lowess

        from rmlab.metrics.pairs import Responses

        responses = Responses.of(comparisons)
        if not (spread := float(np.ptp(responses.length))):
            raise UserError("all responses to fit are as long, so that length tells nothing")
        found = lowess(responses.reward, responses.length, frac=window, delta=CLOSE * spread)
        lengths, first = np.unique(found[:, 0], return_index=True)
        return cls(lengths, found[first, 1])

    def __call__(self, lengths: np.ndarray) -> np.ndarray:
        """(K,) of lengths (K,) in tokens."""
        return np.interp(lengths, self.lengths, self.rewards)

    @property
    def told(self) -> str:
        """In a sentence."""
        low, high = self.lengths[[0, -1]]
        ends = self(np.array([low, high]))
        return f"The curve is {ends[0]:.3f} at {low:.0f} tokens and {ends[1]:.3f} at {high:.0f}; beyond, as there."


def without(comparisons: Sequence[ScoredComparison], bias: Curve | Price) -> list[ScoredComparison]:
    """The same with reward - bias(length) + the mean bias, so that the mean reward stays."""
    taken = [bias(np.asarray(c.lengths, dtype=float)) for c in comparisons]
    level = float(np.concatenate(taken).mean())
    return [
        replace(c, rewards=(np.asarray(c.rewards) - off + level).tolist(), outputs=[])
        for c, off in zip(comparisons, taken, strict=True)
    ]


# ---- what that does ----

SHOWN = {
    "accuracy, better is shorter": "shorter",
    "accuracy, better is longer": "longer",
    "accuracy, as long": "matched",
    "reward and length": "correlation",
    "gap and difference in length": "gap_correlation",
}


def numbers(comparisons: Sequence[ScoredComparison]) -> dict[str, "Number"]:
    """Each with its interval, by title; those that there are."""
    from rmlab.metrics.length import length
    from rmlab.metrics.pairs import Pairs, Responses

    pairs = Pairs.of(comparisons)
    told = length(pairs, Responses.of(comparisons))
    found = {title: told[key] for title, key in SHOWN.items() if key in told}
    return {"accuracy": pairs.accuracy(pairs.decided), **found}


def difference(before: Sequence[ScoredComparison], after: Sequence[ScoredComparison]) -> "Number":
    """In accuracy, after minus before, of the same preferences; 95%, prompts drawn whole."""
    from rmlab.metrics.pairs import Pairs, mean

    one, other = Pairs.of(before), Pairs.of(after)
    return mean((other.right - one.right)[one.decided], one.prompt[one.decided])


def table_of(before: Sequence[ScoredComparison], after: Sequence[ScoredComparison]) -> Any:
    """A line per number."""
    import pandas as pd

    from rmlab.report.tables import Table, interval

    def cell(found: "Number | None", style: str = "{:.4f}") -> str:
        if not found or "value" not in found:
            return ""
        return f"{style.format(found['value'])} {interval(found.get('low'), found.get('high'), style)}".strip()

    told, changed = numbers(before), numbers(after)
    lines = [{"": title, "before": cell(told[title]), "after": cell(changed.get(title))} for title in told]
    lines.append({"": "difference in accuracy", "before": "", "after": cell(difference(before, after), "{:+.4f}")})
    title = f"Before and after, {told['accuracy']['n']:,} decided preferences, 95% intervals"
    return Table(title, pd.DataFrame(lines), "arms")
