"""Terms of a whole comparison: K responses that are ranked, or of which some are best.

A preference orders its two responses where its probability is not 0.5; how sure it is does not enter. A tie orders
nothing.
"""

import torch
from torch import Tensor

from rmlab.losses import LOSSES, Preferences
from rmlab.losses.parts import per_comparison, positive


@LOSSES.register
def plackett_luce(preferences: Preferences) -> Tensor:  # (N,)
    """-sum over k of log(e^r_k / sum over j >= k of e^r_j), r_1 the best: Plackett-Luce, as in Starling and 2301.11270.

    Each response is the choice among itself and all that are known to be worse, directly or through others; so a
    ranking may be given by all its pairs or by neighbours. Of a partial order the product of the choices that are
    known is taken: tied responses are not compared, each is chosen before those below both. Two responses:
    Bradley-Terry.
    """
    place = places(preferences)
    worse = below(preferences, place)[preferences.prompt, place]
    return per_comparison(preferences, choices(preferences, preferences.rewards, place, worse))


@LOSSES.register
def top_one(preferences: Preferences, *, temperature: float) -> Tensor:  # (N,)
    """-log(e^(r_best / temperature) / sum over k of e^(r_k / temperature)): InfoNCE (1807.03748), InfoNCA (2402.05369).

    The best are those that nothing beats. Several best ones are each compared with the beaten alone, and their mean is
    taken; where nothing is decided it is 0. Two responses: Bradley-Terry. Published with temperature 1.
    """
    positive("top_one.temperature", temperature)
    place = places(preferences)
    beaten = stated(preferences, place).any(1)  # (N, K)
    best = ~beaten[preferences.prompt, place]
    losses = choices(preferences, preferences.rewards / temperature, place, beaten[preferences.prompt]) * best
    return per_comparison(preferences, losses) / per_comparison(preferences, best.to(losses)).clamp_min(1)


def choices(preferences: Preferences, scores: Tensor, place: Tensor, rivals: Tensor) -> Tensor:
    """(R,) -log of the chance that each response is chosen among itself and its rivals (R, K), by their scores (R,)."""
    table = scores.new_full((preferences.comparisons, rivals.shape[1]), -torch.inf)
    table = table.index_put((preferences.prompt, place), scores)[preferences.prompt]
    itself = torch.arange(rivals.shape[1], device=place.device) == place[:, None]
    return torch.where(rivals | itself, table, -torch.inf).logsumexp(1) - scores


def places(preferences: Preferences) -> Tensor:
    """(R,) which of the K responses of its comparison each is, in the order of the batch."""
    prompt = preferences.prompt
    order = prompt.argsort(stable=True)
    counts = prompt.bincount()
    first = counts.cumsum(0) - counts
    return torch.empty_like(prompt).index_put(
        (order,), torch.arange(len(prompt), device=prompt.device) - first[prompt[order]]
    )


def stated(preferences: Preferences, place: Tensor) -> Tensor:
    """(N, K, K) whether a preference says that response i of a comparison is better than j."""
    prompt, p, most = preferences.pair_prompt, preferences.probability, int(place.max()) + 1
    one, other = place[preferences.better], place[preferences.worse]
    above = torch.zeros(preferences.comparisons, most, most, dtype=torch.bool, device=place.device)
    for sure, i, j in ((p > 0.5, one, other), (p < 0.5, other, one)):
        above[prompt[sure], i[sure], j[sure]] = True
    return above


def below(preferences: Preferences, place: Tensor) -> Tensor:
    """(N, K, K) whether i is better than j, directly or through others. In a cycle all are better than all."""
    above = stated(preferences, place)
    for _ in range(above.shape[1].bit_length()):  # each time through paths of twice the length
        step = above.to(preferences.rewards.dtype)
        above = above | (step @ step > 0)
    return above
