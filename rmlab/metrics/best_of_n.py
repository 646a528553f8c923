"""What picking the best of n responses by reward brings in true reward: K responses to a prompt, all of them scored.

Unbiased for every n: the mean over all C(K, n) choices of n responses of the one with the most reward (Nakano et al.
2021). Gao et al. 2022 (the curves, their KL), 2603.12520 (recovery), 2503.15477 (variance), 2605.27996 (bias).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmlab.data.style import STYLE
from rmlab.metrics.correlation import within_prompts
from rmlab.metrics.evaluate import TIE
from rmlab.metrics.pairs import Number, mean
from rmlab.metrics.scored import ScoredComparison

LEAST = 3  # responses: of two, best-of-n is accuracy


@dataclass(frozen=True)
class Curves:
    """For each n in 1 ... N and comparison (C): expected values of what is picked of n. N is the smallest K."""

    picked: np.ndarray  # (N, C) gold of the response with the most reward
    reward: np.ndarray  # (N, C) its reward
    best: np.ndarray  # (N, C) the most gold
    top: list[np.ndarray]  # (C) of (K,) how likely each response is picked of N
    prompt: np.ndarray  # (C,) which prompt

    @classmethod
    def of(cls, comparisons: Sequence[ScoredComparison]) -> "Curves":
        """Of comparisons of at least two responses with gold, see `auditable`."""
        largest = min(len(c.rewards) for c in comparisons)
        picked, reward, best, top = [], [], [], []
        for c in comparisons:
            rewards, gold = np.asarray(c.rewards, dtype=float), np.asarray(c.gold, dtype=float)
            by_reward, by_gold = (chances(values, tie, largest) for values, tie in ((rewards, TIE), (gold, 0.0)))
            picked.append(by_reward @ gold)
            reward.append(by_reward @ rewards)
            best.append(by_gold @ gold)
            top.append(by_reward[-1])
        prompt = np.unique([c.prompt_id for c in comparisons], return_inverse=True)[1]
        return cls(np.transpose(picked), np.transpose(reward), np.transpose(best), top, prompt)

    @property
    def largest(self) -> int:
        """N."""
        return len(self.picked)

    def recovery(self, n: int) -> Number | None:
        """The share of what choosing by gold would bring that choosing by reward brings: {value, low, high, n}.

        A ratio of means over prompts, with its interval (delta method). None where gold does not vary.
        """
        gained, possible = self.picked[n - 1] - self.picked[0], self.best[n - 1] - self.best[0]
        if n == 1 or not possible.mean() > 0:
            return None
        value = gained.mean() / possible.mean()
        around = mean((gained - value * possible) / possible.mean(), self.prompt)
        return {k: v if k == "n" else v + float(value) for k, v in around.items()}


def best_of_n(comparisons: Sequence[ScoredComparison]) -> dict[str, Any]:
    """The audit of a set; nothing where no comparison has at least three responses whose gold rewards differ.

    curve: by n, see `one_n`. correlation: of reward and gold within prompts. reward_variance: within a prompt, on
    average. ties: share of pairs of responses whose rewards tie. bias: what best-of-N picks beside a random pick.
    """
    those = auditable(comparisons)
    if not those:
        return {}
    curves = Curves.of(those)
    rewards, gold = (np.concatenate([getattr(c, name) for c in those]) for name in ("rewards", "gold"))
    prompt = np.repeat(curves.prompt, [len(c.rewards) for c in those])
    found = {
        "comparisons": len(those),
        "left_out": len(comparisons) - len(those),
        "largest_n": curves.largest,
        "curve": [one_n(curves, n) for n in range(1, curves.largest + 1)],
        "correlation": within_prompts(rewards, gold, prompt),
        "reward_variance": float(np.mean([np.var(c.rewards) for c in those])),
        "ties": ties(those),
        "bias": bias(those, curves),
    }
    return {k: v for k, v in found.items() if v is not None}


def auditable(comparisons: Sequence[ScoredComparison]) -> list[ScoredComparison]:
    """Those of at least three responses with gold rewards; none where gold is the same within each of them."""
    those = [c for c in comparisons if len(c.rewards) >= LEAST and len(c.gold) == len(c.rewards)]
    return those if any(np.ptp(c.gold) > 0 for c in those) else []


def one_n(curves: Curves, n: int) -> dict[str, Any]:
    """kl: log n - (n - 1) / n. gold and reward of what is picked of n, best: the most gold of n; recovery."""
    recovery = curves.recovery(n)
    return {
        "n": n,
        "kl": kl(n),
        "gold": mean(curves.picked[n - 1], curves.prompt),
        "reward": mean(curves.reward[n - 1], curves.prompt),
        "best": mean(curves.best[n - 1], curves.prompt),
        **({"recovery": recovery} if recovery else {}),
    }


def kl(n: int) -> float:
    """How far best-of-n moves from the policy that it picks from, in nats, at most."""
    return float(np.log(n) - (n - 1) / n)


def chances(values: np.ndarray, tie: float, largest: int) -> np.ndarray:
    """(N, K) how likely each of K responses is the one with the largest value of n drawn without replacement.

    The k-th smallest is it in C(k - 1, n - 1) of C(K, n) draws. Values that differ by no more than `tie` from their
    neighbour share what they have together.
    """
    order = np.argsort(values, kind="stable")
    block = np.cumsum(np.append(0, np.diff(values[order]) > tie))
    found = np.empty((largest, len(values)))
    for n, alone in enumerate(highest(len(values), largest)):
        found[n, order] = (np.bincount(block, weights=alone) / np.bincount(block))[block]
    return found


def highest(count: int, largest: int) -> np.ndarray:
    """(N, K) C(k - 1, n - 1) / C(K, n) for k = 1 ... K, n = 1 ... N."""
    rank, n = np.arange(1.0, count + 1), np.arange(1.0, largest)[:, None]
    # From n to n + 1: C(k-1, n) / C(k-1, n-1) = (k - n) / n, and C(K, n) / C(K, n+1) = (n + 1) / (K - n).
    steps = np.maximum(rank - n, 0) / n * (n + 1) / (count - n)
    return np.cumprod(np.vstack([np.full(count, 1 / count), steps]), axis=0)


def ties(comparisons: Sequence[ScoredComparison]) -> float:
    """Share of all pairs of responses to a prompt whose rewards tie."""
    tied = total = 0
    for c in comparisons:
        rewards = np.sort(c.rewards)
        pairs = np.triu(np.abs(rewards[:, None] - rewards) <= TIE, 1)
        tied, total = tied + int(pairs.sum()), total + len(rewards) * (len(rewards) - 1) // 2
    return tied / total


def bias(comparisons: Sequence[ScoredComparison], curves: Curves) -> dict[str, dict[str, Any]]:
    """Of tokens and each kind of style: its mean in what best-of-N picks, in a random pick, and the difference."""
    traits = {"length": [np.asarray(c.lengths, dtype=float) for c in comparisons]}
    if all(c.style for c in comparisons):
        traits |= {name: [np.array(c.style, dtype=float)[:, s] for c in comparisons] for s, name in enumerate(STYLE)}
    found = {}
    for name, values in traits.items():
        picked = np.array([top @ each for top, each in zip(curves.top, values, strict=True)])
        random = np.array([each.mean() for each in values])
        told = {"picked": float(picked.mean()), "random": float(random.mean())}
        found[name] = {**told, "difference": mean(picked - random, curves.prompt)}
    return found
