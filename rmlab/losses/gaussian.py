"""Terms of a head with a mean and a log variance per response. Log variances count within +-limit."""

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rmlab.losses import LOSSES, PerResponse, Preferences
from rmlab.losses.parts import either_way, known, reads_outputs, within
from rmlab.messages import check_at_least

GAUSSIAN = ("mean", "log_variance")


@LOSSES.register
def gaussian_nll(preferences: Preferences, outputs: Tensor, ratings: PerResponse, *, limit: float) -> Tensor:  # (R,)
    """0.5 log v + (rating - mean)^2 / (2 v), Nix and Weigend (1994), for rewards URM (2410.00847); unknown ratings 0.

    Reads the `gaussian` head. No limit of log v is published.
    """
    reads_outputs("gaussian_nll", preferences, GAUSSIAN, "gaussian")
    check_at_least("loss.gaussian_nll.limit", limit, 0)
    there, target = known(ratings)
    log_v = within(outputs[:, 1], limit)
    return torch.where(there, 0.5 * (log_v + (target - outputs[:, 0]).square() * (-log_v).exp()), 0.0)


@LOSSES.register
def gaussian_preference(preferences: Preferences, outputs: Tensor, *, limit: float) -> Tensor:  # (P,)
    """-log Phi(gap of means / sqrt(v_better + v_worse)), Thurstone (1927), as mean-variance rewards (2605.11865).

    Reads the `gaussian` head. Probabilities are soft labels: -p log Phi(z) - (1 - p) log Phi(-z). No limit of log v is
    published.
    """
    mean, log_v = gap_of("gaussian_preference", preferences, outputs, limit)
    return either_way(preferences, mean * (-0.5 * log_v).exp(), lambda z: -torch.special.log_ndtr(z))


@LOSSES.register
def purm(preferences: Preferences, outputs: Tensor, *, limit: float, points: int) -> Tensor:  # (P,)
    """-log E[sigma(g)], g normal with the gap of means and variance v_better + v_worse: PURM (2503.22480).

    Reads the `gaussian` head. The paper draws samples; the expectation is taken here by Gauss-Hermite quadrature at
    `points` places, without noise. With variance 0 it is Bradley-Terry. Probabilities are soft labels.
    """
    check_at_least("loss.purm.points", points, 1)
    mean, log_v = gap_of("purm", preferences, outputs, limit)
    places, log_weights = (mean.new_tensor(values) for values in quadrature(int(points)))
    spread = (0.5 * log_v).exp()[:, None] * places

    def loss(z: Tensor) -> Tensor:
        return -(log_weights + logsigmoid(z[:, None] + spread)).logsumexp(1)

    return either_way(preferences, mean, loss)


def gap_of(term: str, preferences: Preferences, outputs: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """(P,) mean and log variance of the difference of two rewards."""
    reads_outputs(term, preferences, GAUSSIAN, "gaussian")
    check_at_least(f"loss.{term}.limit", limit, 0)
    better, worse, log_v = preferences.better, preferences.worse, within(outputs[:, 1], limit)
    return outputs[better, 0] - outputs[worse, 0], torch.logaddexp(log_v[better], log_v[worse])


@functools.cache
def quadrature(points: int) -> tuple[list[float], list[float]]:
    """Places and log weights that average a function over the standard normal."""
    places, weights = np.polynomial.hermite.hermgauss(points)
    return (math.sqrt(2) * places).tolist(), np.log(weights / math.sqrt(math.pi)).tolist()
