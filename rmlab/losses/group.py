"""Terms of a whole comparison: K responses that are ranked, or of which some are best.

A preference orders its two responses where its probability is not 0.5; how sure it is does not enter. A tie orders
nothing.
"""

import torch
from torch import Tensor

from rmlab.losses import LOSSES, Preferences
from rmlab.losses.parts import per_comparison, same_comparison
from rmlab.messages import UserError


@LOSSES.register
def plackett_luce(preferences: Preferences) -> Tensor:  # (N,)
    """-sum over k of log(e^r_k / sum over j >= k of e^r_j), r_1 the best: Plackett-Luce, as in Starling and 2301.11270.

    Each response is the choice among itself and all that are known to be worse, directly or through others; so a
    ranking may be given by all its pairs or by neighbours. Of a partial order the product of the choices that are
    known is taken: tied responses are not compared, each is chosen before those below both. Two responses:
    Bradley-Terry.
    """
    rewards = preferences.rewards
    rivals = is_above(preferences) | torch.eye(len(rewards), dtype=torch.bool, device=rewards.device)
    return per_comparison(preferences, log_sum(rewards, rivals) - rewards)


@LOSSES.register
def top_one(preferences: Preferences, *, temperature: float) -> Tensor:  # (N,)
    """-log(e^(r_best / temperature) / sum over k of e^(r_k / temperature)): InfoNCE (1807.03748), InfoNCA (2402.05369).

    The best are those that nothing beats. Several best ones are each compared with the beaten alone, and their mean is
    taken; where nothing is decided it is 0. Two responses: Bradley-Terry. Published with temperature 1.
    """
    if not temperature > 0:
        raise UserError(f"loss.top_one.temperature is {temperature}; it must be above 0")
    scaled = preferences.rewards / temperature
    best = ~ordered(preferences).any(0)
    rivals = same_comparison(preferences) & (~best | torch.eye(len(best), dtype=torch.bool, device=best.device))
    losses = (log_sum(scaled, rivals) - scaled) * best
    return per_comparison(preferences, losses) / per_comparison(preferences, best.to(losses)).clamp_min(1)


def ordered(preferences: Preferences) -> Tensor:
    """(R, R) whether response i is stated to be better than response j."""
    better, worse, p = preferences.better, preferences.worse, preferences.probability
    above = torch.zeros(len(preferences.rewards), len(preferences.rewards), dtype=torch.bool, device=better.device)
    above[better[p > 0.5], worse[p > 0.5]] = True
    above[worse[p < 0.5], better[p < 0.5]] = True
    return above


def is_above(preferences: Preferences) -> Tensor:
    """(R, R) whether i is better than j, directly or through others. In a cycle all are above each other."""
    above = ordered(preferences)
    for _ in range((len(above) - 1).bit_length()):  # paths of twice the length each time
        step = above.to(preferences.rewards.dtype)
        above = above | (step @ step > 0)
    return above


def log_sum(rewards: Tensor, chosen: Tensor) -> Tensor:
    """(R,) log of the sum of e^r over the responses chosen in each row of (R, R)."""
    return torch.where(chosen, rewards, -torch.inf).logsumexp(1)
