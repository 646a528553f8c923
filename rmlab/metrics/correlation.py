"""Rank correlations within prompts: what a property of responses does to their rewards, whatever the prompt does."""

import numpy as np

from rmlab.metrics.intervals import student_quantile
from rmlab.metrics.pairs import Number


def within_prompts(x: np.ndarray, y: np.ndarray, prompt: np.ndarray) -> Number | None:
    """Spearman's correlation of x and y (N,) within prompts (N,), pooled: {value, low, high, n}, n the prompts.

    Both are ranked within each prompt, and the ranks centred there: Pearson's correlation of all of them. None where
    either is constant within every prompt.
    """
    a, b = centred_ranks(x, prompt), centred_ranks(y, prompt)
    return correlation(a, b, prompt)


def of_differences(x: np.ndarray, y: np.ndarray, prompt: np.ndarray) -> Number | None:
    """Spearman's correlation of two differences (P,) whose sign is that of a preference, whichever way it is read.

    Each is counted both ways round, so that it is no matter which side is called the better one.
    """
    both_x, both_y, both = np.concatenate([x, -x]), np.concatenate([y, -y]), np.concatenate([prompt, prompt])
    same = np.zeros(len(both), dtype=int)
    return correlation(centred_ranks(both_x, same), centred_ranks(both_y, same), both)


def correlation(a: np.ndarray, b: np.ndarray, prompt: np.ndarray) -> Number | None:
    """Pearson's of centred values (N,), with its 95% interval (delta method), prompts drawn whole."""
    _, group = np.unique(prompt, return_inverse=True)
    xy, xx, yy = (np.bincount(group, weights=values) for values in (a * b, a * a, b * b))
    if not xx.sum() or not yy.sum():
        return None
    value = float(xy.sum() / np.sqrt(xx.sum() * yy.sum()))
    influence = xy / np.sqrt(xx.sum() * yy.sum()) - value / 2 * (xx / xx.sum() + yy / yy.sum())
    found: Number = {"value": value}
    if len(xy) > 1:
        half = student_quantile(len(xy) - 1) * float(np.sqrt(len(xy) / (len(xy) - 1) * (influence**2).sum()))
        found |= {"low": max(-1.0, value - half), "high": min(1.0, value + half)}
    return {**found, "n": int(np.count_nonzero(xx * yy))}  # prompts in which both vary


def centred_ranks(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(N,) ranks within each group minus their mean there; equal values share their mean rank."""
    order = np.lexsort((values, group))
    new_group = changes(group[order])
    new_value = new_group | changes(values[order])
    place = np.arange(len(values), dtype=float)
    ranks = np.empty(len(values))
    ranks[order] = mean_by(place, np.cumsum(new_value) - 1) - mean_by(place, np.cumsum(new_group) - 1)
    return ranks


def changes(values: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a value is another than the one before it."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def mean_by(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(N,) the mean of the group of each value; groups are counted from 0."""
    return (np.bincount(group, weights=values) / np.bincount(group))[group]
