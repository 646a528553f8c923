"""Several rewards of the same response as one. Of the members of an ensemble, each a model of its own; no torch.

Coste et al. 2310.02743: min is their worst-case optimisation (WCO), mean-var their uncertainty-weighted one (UWO).
Eisenstein et al. 2312.09244: median, mean-std, and why the members' own levels must go before min or median.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from rmlab.messages import UserError, check_at_least, check_one_of
from rmlab.metrics.scored import ScoredComparison

# (M, ...) values of M members -> (...). `c`: how much their disagreement costs. Variances divide by M, as in Coste's
# equation 4; torch.var divides by M - 1, so that a `c` of its own is worth c * M / (M - 1) here.
REDUCE: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "mean": lambda values, c: values.mean(0),
    "min": lambda values, c: values.min(0),
    "median": lambda values, c: np.median(values, axis=0),
    "mean-std": lambda values, c: values.mean(0) - c * values.std(0),
    "mean-var": lambda values, c: values.mean(0) - c * values.var(0),
}
ALIGN = ("none", "prompt")


def check_reduce(reduce: str, c: float, align: str = "none") -> None:
    """UserError for an unknown word, and a negative `c`."""
    check_one_of("reduce", reduce, REDUCE)
    check_at_least("c", c, 0)
    check_one_of("align", align, ALIGN)


def together(members: Sequence[ScoredComparison], reduce: str, c: float = 1.0, align: str = "none") -> ScoredComparison:
    """What M members say of a comparison as one; its `outputs` (K, M) are their rewards. One member stays as it is.

    align: `prompt` takes each member's mean over the responses off its rewards, and puts the mean of all members on:
    preferences on one prompt fix rewards up to a constant of that prompt, which each member has its own of. UserError
    where that is asked for of one response.
    """
    if len(members) == 1:
        return members[0]
    rewards = np.array([one.rewards for one in members], dtype=np.float64)
    if align == "prompt":
        rewards = on_one_level(rewards, members[0].id)
    one = REDUCE[reduce](rewards, c).astype(np.float32)
    return replace(members[0], rewards=one.tolist(), outputs=rewards.T.astype(np.float32).tolist())


def on_one_level(rewards: np.ndarray, name: str) -> np.ndarray:
    """(M, K) rewards of a comparison with the same mean for every member. UserError naming it for K = 1."""
    if rewards.shape[1] == 1:
        raise UserError(f"row {name} has one response, whose rewards align=prompt would make the same; use align=none")
    return rewards - rewards.mean(1, keepdims=True) + rewards.mean()
