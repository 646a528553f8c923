"""Scored comparisons as arrays: what the diagnostics are functions of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmlab.data.style import STYLE
from rmlab.metrics.evaluate import TIE, sides
from rmlab.metrics.intervals import mean_interval, share_interval
from rmlab.metrics.scored import ScoredComparison

Number = dict[str, float | int]


@dataclass(frozen=True)
class Pairs:
    """P preferences, each with its likelier side as the better one (probability >= 0.5)."""

    gap: np.ndarray  # (P,) reward of the better minus that of the worse response
    probability: np.ndarray  # (P,)
    strength: np.ndarray  # (P,)
    prompt: np.ndarray  # (P,) which prompt, counted in the order of their ids
    lengths: np.ndarray  # (2, P) tokens of better and worse
    style: np.ndarray | None  # (2, P, S) counts of better and worse; None where some are not known

    @classmethod
    def of(cls, comparisons: Sequence[ScoredComparison]) -> "Pairs":
        """All of their preferences, comparison by comparison."""
        probability = np.array([p for c in comparisons for p in c.probability], dtype=float)
        turned = probability < 0.5
        strength = np.array([s for c in comparisons for s in c.strength], dtype=float)
        better, worse = sides(comparisons, [c.rewards for c in comparisons])
        prompts = [c.prompt_id for c in comparisons for _ in c.better]
        styled = all(c.style for c in comparisons)
        return cls(
            gap=np.where(turned, worse - better, better - worse),
            probability=np.where(turned, 1 - probability, probability),
            strength=np.where(turned, -strength, strength),
            prompt=np.unique(np.array(prompts, dtype=str), return_inverse=True)[1],
            lengths=likelier_first(np.array(sides(comparisons, [c.lengths for c in comparisons])), turned),
            style=likelier_first(style_of(comparisons), turned) if styled else None,
        )

    @property
    def decided(self) -> np.ndarray:
        """(P,) bool: no tie of the labels."""
        return self.probability != 0.5

    @property
    def right(self) -> np.ndarray:
        """(P,) 1 where the better one has more reward, 0.5 where the rewards tie, else 0."""
        return np.where(np.abs(self.gap) <= TIE, 0.5, self.gap > 0)

    def accuracy(self, those: np.ndarray) -> Number:
        """Of the decided preferences among `those` (P,) bool."""
        those = those & self.decided
        return share(self.right[those], self.prompt[those])


@dataclass(frozen=True)
class Responses:
    """R responses, each in the comparison that it is from."""

    reward: np.ndarray  # (R,)
    length: np.ndarray  # (R,) tokens
    prompt: np.ndarray  # (R,) which prompt
    style: np.ndarray | None  # (R, S) counts; None where some are not known

    @classmethod
    def of(cls, comparisons: Sequence[ScoredComparison]) -> "Responses":
        """All of their responses, comparison by comparison."""
        prompts = [c.prompt_id for c in comparisons for _ in c.rewards]
        return cls(
            reward=np.concatenate([np.asarray(c.rewards, dtype=float) for c in comparisons]),
            length=np.concatenate([np.asarray(c.lengths, dtype=float) for c in comparisons]),
            prompt=np.unique(prompts, return_inverse=True)[1],
            style=np.concatenate([np.asarray(c.style, dtype=float) for c in comparisons])
            if all(c.style for c in comparisons)
            else None,
        )


def style_of(comparisons: Sequence[ScoredComparison]) -> np.ndarray:
    """(2, P, S) counts of the better and the worse response of each preference."""
    better = [c.style[k] for c in comparisons for k in c.better]
    worse = [c.style[k] for c in comparisons for k in c.worse]
    return np.array([better, worse], dtype=float).reshape(2, len(better), len(STYLE))


def likelier_first(values: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """(2, P, ...) values of better and worse, exchanged where `turned` (P,)."""
    return np.where(turned.reshape(1, -1, *[1] * (values.ndim - 2)), values[::-1], values)


def share(values: np.ndarray, prompts: np.ndarray) -> Number:
    """{value, low, high, n} of the mean of N >= 1 values in [0, 1], 95%, prompts drawn whole; {n: 0} of none."""
    if not len(values):
        return {"n": 0}
    low, high = share_interval(values, prompts)
    return {"value": float(values.mean()), "low": low, "high": high, "n": len(values)}


def mean(values: np.ndarray, prompts: np.ndarray) -> Number:
    """The same of any values; without an interval where there is one prompt."""
    interval = mean_interval(values, prompts)
    known = {} if interval is None else {"low": interval[0], "high": interval[1]}
    return {"value": float(values.mean()), **known, "n": len(values)}
