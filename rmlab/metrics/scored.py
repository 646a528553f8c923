"""A comparison with the rewards of its responses: what metrics, scores files and the report share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScoredComparison:
    """K responses with their rewards, and P preferences between them. `index` is its place in the evaluation set."""

    index: int
    id: str
    prompt_id: str
    subset: str
    rewards: list[float]  # (K,)
    lengths: list[int]  # (K,) tokens of each response without its prompt
    gold: list[float]  # (K,) the true rewards, or empty
    better: list[int]  # (P,)
    worse: list[int]  # (P,)
    strength: list[float]  # (P,)
    probability: list[float]  # (P,)


def as_arrays(comparisons: Sequence[ScoredComparison]) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) rewards padded with NaN, and (N,) the response that wins most preferences."""
    most = max(len(c.rewards) for c in comparisons)
    rewards = np.full((len(comparisons), most), np.nan, dtype=np.float32)
    best = np.zeros(len(comparisons), dtype=np.int64)
    for n, c in enumerate(comparisons):
        rewards[n, : len(c.rewards)] = c.rewards
        wins = np.zeros(most)
        np.add.at(wins, c.better, c.probability)
        np.add.at(wins, c.worse, 1 - np.array(c.probability))
        best[n] = wins.argmax()
    return rewards, best
