"""Where rewards lie and how far apart, between prompts and within them."""

import numpy as np

from rmlab.metrics.correlation import mean_by
from rmlab.metrics.pairs import Pairs, Responses


def scale(pairs: Pairs, responses: Responses, reference: tuple[float, float] | None = None) -> dict[str, float]:
    """mean and sd of all rewards, within_sd and between_share of prompts, gap_sd of decided preferences.

    reference: (mean, sd) of the rewards that were seen before; then shift is how many of its sds the mean has moved,
    and stretch the sd in its sds.
    """
    reward = responses.reward
    found = {"mean": float(reward.mean()), "sd": float(reward.std()), **between(reward, responses.prompt)}
    if pairs.decided.any():
        found["gap_sd"] = float(pairs.gap[pairs.decided].std())
    if reference is not None and reference[1] > 0:
        found["shift"] = (found["mean"] - reference[0]) / reference[1]
        found["stretch"] = found["sd"] / reference[1]
    return found


def between(reward: np.ndarray, prompt: np.ndarray) -> dict[str, float]:
    """within_sd: of rewards (R,) on one prompt. between_share: how much of the variance is of prompts, in [0, 1].

    A random-effects analysis of variance, for groups of any size (Searle 1971): with the mean squares MB between and MW
    within prompts, vb = (MB - MW) / k, and the share vb / (vb + MW), 0 where that is negative.
    """
    group = np.unique(prompt, return_inverse=True)[1]
    sizes, total = np.bincount(group), len(reward)
    inside = ((reward - mean_by(reward, group)) ** 2).sum()
    if total == len(sizes):
        return {}
    within = inside / (total - len(sizes))
    found = {"within_sd": float(np.sqrt(within))}
    if len(sizes) > 1:
        outside = (((reward - reward.mean()) ** 2).sum() - inside) / (len(sizes) - 1)
        k = (total - (sizes**2).sum() / total) / (len(sizes) - 1)
        variance = max(0.0, (outside - within) / k)
        if variance + within > 0:
            found["between_share"] = float(variance / (variance + within))
    return found
