"""Reward-model metrics, computed from scored comparisons: never a mean of batch means, the same whatever the loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rmlab.metrics.intervals import mean_interval, share_interval
from rmlab.metrics.scored import ScoredComparison

TIE = 1e-5  # two rewards this close are equal: fp32 rewards move this much with batch size and padding
BINS = 15  # of the expected calibration error


def evaluate(comparisons: Sequence[ScoredComparison], subsets: bool = True) -> dict[str, Any]:
    """All metrics of a set: the whole, and each subset if several.

    `bayes_accuracy` where gold rewards are known and say something else than the labels.
    """
    better, worse = sides(comparisons, [c.rewards for c in comparisons])
    probability = np.array([p for c in comparisons for p in c.probability])
    rewards = np.concatenate([c.rewards for c in comparisons])
    lengths = np.concatenate([c.lengths for c in comparisons])
    longer = np.subtract(*sides(comparisons, [c.lengths for c in comparisons]))
    prompts = np.unique([c.prompt_id for c in comparisons for _ in c.better], return_inverse=True)[1]
    metrics: dict[str, Any] = {
        **preference_metrics(better - worse, probability),
        **uncertainty(better - worse, probability, prompts),
        **longer_wins(longer, probability, prompts),
        **gap_metrics(better, worse, probability),
        **reward_metrics(rewards, lengths),
        "comparisons": len(comparisons),
        "preferences": len(probability),
        "label_ties": int((probability == 0.5).sum()),
    }
    metrics.update(bayes_metrics(comparisons, probability, prompts))
    names = sorted({c.subset for c in comparisons})
    if subsets and len(names) > 1:
        for name in names:
            part = evaluate([c for c in comparisons if c.subset == name], subsets=False)
            metrics.setdefault("subsets", {})[name or "none"] = part
    return metrics


def bayes_metrics(
    comparisons: Sequence[ScoredComparison], probability: np.ndarray, prompts: np.ndarray
) -> dict[str, float]:
    """`bayes_accuracy` and its interval: that of the gold rewards on the labels (P,) of prompts (P,).

    Nothing where gold is not known, or is what the labels were read off (ratings): it would be 1.
    """
    if not all(len(c.gold) for c in comparisons):
        return {}
    gap = np.subtract(*sides(comparisons, [c.gold for c in comparisons]))
    strength = np.array([s for c in comparisons for s in c.strength])
    if np.allclose(gap, np.where(probability == 0.5, 0.0, strength)):
        return {}
    best = {**preference_metrics(gap, probability), **uncertainty(gap, probability, prompts)}
    return {f"bayes_{key}": value for key, value in best.items() if key.startswith("accuracy")}


def sides(comparisons: Sequence[ScoredComparison], values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """(values of the better responses, values of the worse ones), one entry per preference; values: (K,) of each."""
    pairs = [
        (v[b], v[w]) for c, v in zip(comparisons, values, strict=True) for b, w in zip(c.better, c.worse, strict=True)
    ]
    better, worse = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return better, worse


def preference_metrics(gap: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Means of `per_preference` over the preferences (P,) that count, and two measures of the whole.

    ties: share of decided preferences whose rewards tie.
    ece: expected calibration error of the more likely side, 15 equal bins on confidence in [0.5, 1]; a tie in the
    rewards claims 0.5 and is right half the time.
    """
    each, decided = per_preference(gap, probability), probability != 0.5
    metrics: dict[str, float] = {}
    if decided.any():
        metrics["accuracy"] = float(each["accuracy"][decided].mean())
        metrics["ties"] = float((np.abs(gap[decided]) <= TIE).mean())
    metrics["nll"], metrics["brier"] = float(each["nll"].mean()), float(each["brier"].mean())
    metrics["ece"] = calibration_error(*confidence_and_outcome(gap, probability))
    return metrics


def per_preference(gap: np.ndarray, probability: np.ndarray) -> dict[str, np.ndarray]:
    """What each preference contributes, for reward gaps and probabilities of one shape.

    accuracy: 1 for a decided preference (probability != 0.5) with gap > 0, 0.5 where the rewards tie (|gap| <= 1e-5),
    as a coin would; NaN for an undecided one. For a probability below 0.5 the sign is turned.
    nll: plain Bradley-Terry cross-entropy, -p log sigma(gap) - (1 - p) log sigma(-gap).
    brier: (sigma(gap) - p)^2.
    """
    side = np.sign(probability - 0.5) * gap
    right = np.where(np.abs(side) <= TIE, 0.5, side > 0)
    return {
        "accuracy": np.where(probability != 0.5, right, np.nan),
        "nll": probability * np.logaddexp(0, -gap) + (1 - probability) * np.logaddexp(0, gap),
        "brier": (sigmoid(gap) - probability) ** 2,
    }


def decisions(gap: np.ndarray) -> np.ndarray:
    """1 where the better response has more reward, -1 where the worse one has, 0 where they tie; NaN stays."""
    return np.where(np.abs(gap) <= TIE, 0.0, np.sign(gap))


def uncertainty(gap: np.ndarray, probability: np.ndarray, prompts: np.ndarray) -> dict[str, float]:
    """`accuracy_low`, `accuracy_high`, `nll_low` and `nll_high`: 95% intervals, with prompts (P,) drawn whole."""
    each, decided = per_preference(gap, probability), probability != 0.5
    metrics: dict[str, float] = {}
    if decided.any():
        low, high = share_interval(each["accuracy"][decided], prompts[decided])
        metrics.update(accuracy_low=low, accuracy_high=high)
    if (interval := mean_interval(each["nll"], prompts)) is not None:
        metrics.update(nll_low=max(interval[0], 0.0), nll_high=interval[1])
    return metrics


def longer_wins(longer: np.ndarray, probability: np.ndarray, prompts: np.ndarray) -> dict[str, float]:
    """`longer_wins`, the accuracy of always preferring the longer response, and its 95% interval.

    longer: (P,) by how many tokens the better response is longer; equal lengths count half.
    """
    decided = probability != 0.5
    if not decided.any():
        return {}
    right = per_preference(longer, probability)["accuracy"][decided]
    low, high = share_interval(right, prompts[decided])
    return {"longer_wins": float(right.mean()), "longer_wins_low": low, "longer_wins_high": high}


def confidence_and_outcome(gap: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(what the model claims of the side it prefers, in [0.5, 1]; how often that side was preferred)."""
    win = sigmoid(gap)
    outcome = np.where(np.abs(gap) <= TIE, 0.5, np.where(gap > 0, probability, 1 - probability))
    return np.maximum(win, 1 - win), outcome


def calibration_error(confidence: np.ndarray, outcome: np.ndarray) -> float:
    """sum_b |B_b| / N * |mean outcome - mean confidence|, confidence in [0.5, 1] (Naeini et al. 2015)."""
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    error = np.bincount(bins, weights=outcome - confidence, minlength=BINS)
    return float(np.abs(error).sum() / len(confidence))


def gap_metrics(better: np.ndarray, worse: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Mean and spread over decided preferences: of a tie neither response is chosen. Likelier sides are chosen."""
    decided = probability != 0.5
    chosen = np.where(probability > 0.5, better, worse)[decided]
    rejected = np.where(probability > 0.5, worse, better)[decided]
    if not decided.any():
        return {}
    return {
        "chosen_mean": float(chosen.mean()),
        "chosen_std": float(chosen.std()),
        "rejected_mean": float(rejected.mean()),
        "rejected_std": float(rejected.std()),
        "gap_mean": float((chosen - rejected).mean()),
        "gap_std": float((chosen - rejected).std()),
    }


def reward_metrics(rewards: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """Level and spread of the rewards of all responses.

    length_correlation: Spearman's, of reward with the response's tokens; left out where either is constant.
    """
    metrics = {
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "reward_min": float(rewards.min()),
        "reward_max": float(rewards.max()),
    }
    if np.ptp(rewards) > 0 and np.ptp(lengths) > 0:
        metrics["length_correlation"] = rank_correlation(rewards, lengths)
    return metrics


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's, tied values sharing their mean rank. As scipy.stats has it, which takes a second to import."""
    import pandas as pd

    ranks = pd.DataFrame({"x": x, "y": y}).rank().to_numpy()
    return float(np.corrcoef(ranks, rowvar=False)[0, 1])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) of every element, written as a tanh."""
    return 0.5 * (1 + np.tanh(0.5 * x))  # never overflows


def flatten(metrics: Mapping[str, Any]) -> dict[str, float]:
    """One level: `accuracy`, and `SUBSET_accuracy` for each subset, as Trainer logs them."""
    flat = {k: v for k, v in metrics.items() if k != "subsets"}
    for name, part in metrics.get("subsets", {}).items():
        flat.update({f"{name}_{k}": v for k, v in part.items()})
    return flat


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
