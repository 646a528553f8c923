"""What picking the best of n by a proxy gains in gold and in the proxy, for single models and ensembles of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from rmlab.metrics.best_of_n import highest, kl
from rmlab.metrics.ensemble import together
from rmlab.metrics.evaluate import TIE
from rmlab.metrics.scored import ScoredComparison

POINTS = 40  # values of n at most, as far apart on a logarithmic axis as whole numbers allow
SINGLE = "single"
Comparisons = Sequence[ScoredComparison]


@dataclass(frozen=True)
class Gains:
    """Expected gains over a random answer, in standard deviations of an answer within its prompt.

    gold, proxy: (S, C, G) of what S proxies pick of n. best: (C, G) of the most gold. n: (G,). prompts: (C,).
    """

    gold: np.ndarray
    proxy: np.ndarray
    best: np.ndarray
    n: np.ndarray
    prompts: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[Comparisons]) -> "Gains":
        """Of what each proxy has scored: the same comparisons, with gold."""
        first = runs[0]
        n = grid(min(len(c.rewards) for c in first))
        golds = [np.asarray(c.gold, dtype=float) for c in first]
        gold, proxy = [], []
        for run in runs:
            rewards = [np.asarray(c.rewards, dtype=float) for c in run]
            gold.append(curves(golds, rewards, TIE, n))
            proxy.append(curves(rewards, rewards, TIE, n))
        best = curves(golds, golds, 0.0, n)
        prompts = np.unique([c.prompt_id for c in first], return_inverse=True)[1]
        return cls(np.array(gold), np.array(proxy), best, n, prompts)

    @property
    def kl(self) -> np.ndarray:
        """(G,) log n - (n - 1) / n."""
        return np.array([kl(n) for n in self.n])

    @property
    def d(self) -> np.ndarray:
        """(G,) its square root; of n = 1 rounding may make it less than nothing."""
        return np.sqrt(np.maximum(self.kl, 0.0))


def grid(largest: int) -> np.ndarray:
    """(G,) from 1 to the largest n."""
    return np.unique(np.round(np.geomspace(1, largest, POINTS)).astype(int))


def picked(values: np.ndarray, by: np.ndarray, tie: float, n: np.ndarray) -> np.ndarray:
    """(G,) expected value (K,) of the one with the most `by` (K,) of n drawn without replacement, over all choices.

    Those whose `by` differ by no more than `tie` from their neighbour share what they have together.
    """
    order = np.argsort(by, kind="stable")
    block = np.cumsum(np.append(0, np.diff(by[order]) > tie))
    alike = np.bincount(block, weights=values[order]) / np.bincount(block)
    return chances(len(values), int(n[-1]))[n - 1] @ alike[block]


@lru_cache
def chances(count: int, largest: int) -> np.ndarray:
    """(N, K) how likely the k-th smallest of K is the largest of n."""
    return highest(count, largest)


def spread(values: Sequence[np.ndarray]) -> float:
    """The standard deviation within prompts; 1 where there is none, and nothing to gain."""
    return float(np.sqrt(np.mean([of.var() for of in values]))) or 1.0


def curves(values: Sequence[np.ndarray], by: Sequence[np.ndarray], tie: float, n: np.ndarray) -> np.ndarray:
    """(C, G) what the values gain over n = 1, in their standard deviations within prompts."""
    found = np.array([picked(value, one, tie, n) for value, one in zip(values, by, strict=True)])
    return (found - found[:, :1]) / spread(values)


def words(c: float) -> dict[str, str]:
    """What members become one by, of `metrics.ensemble` -> what it is called. c: what their variance costs."""
    return {"mean": "mean", "min": "min (WCO)", "mean-var": f"mean - {c:g} var (UWO)", "median": "median"}


def ensemble(runs: Sequence[Comparisons], reduce: str, c: float) -> Comparisons:
    """The members as one. Each has one standard deviation within prompts, and one mean on every prompt.

    Without that, the least of several rewards says which model's constant is the lowest: preferences fix a reward only
    up to a constant per prompt (Eisenstein et al. 2023).
    """
    scales = [spread([np.asarray(one.rewards) for one in run]) for run in runs]
    scaled = [
        [replace(one, rewards=(np.asarray(one.rewards) / scale).tolist()) for one in run]
        for run, scale in zip(runs, scales, strict=True)
    ]
    return [together(each, reduce, c, align="prompt") for each in zip(*scaled, strict=True)]
