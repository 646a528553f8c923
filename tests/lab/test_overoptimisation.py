"""Over-optimisation: exact best-of-n, the fit, gamma and ensembles, against what is known of them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from comparisons import random_set, scored

from rmlab.lab.fits import best_n, fit, gamma
from rmlab.lab.gains import Gains, ensemble, grid, picked

N = grid(64)
KL = np.log(N) - (N - 1) / N
D = np.sqrt(np.maximum(KL, 0))


def brute(values, by, n):
    """Mean over every choice of n; equal ones share."""
    found = []
    for those in itertools.combinations(range(len(values)), n):
        top = max(by[k] for k in those)
        found.append(np.mean([values[k] for k in those if by[k] == top]))
    return np.mean(found)


@pytest.mark.parametrize("by", [[3, 1, 4, 1, 5, 9, 2, 6], [1, 1, 1, 2, 2, 3, 3, 3]])
def test_what_is_picked_of_n_is_the_mean_over_every_choice(by):
    gold, by = np.random.default_rng(0).normal(size=8), np.array(by, dtype=float)
    found = picked(gold, by, 1e-5, np.arange(1, 9))
    assert found == pytest.approx([brute(gold, by, n) for n in range(1, 9)])


def test_gains_are_over_a_random_answer_in_sds_within_prompts():
    golds = [[0.0, 2.0], [10.0, 16.0]]  # sds within prompts: 1 and 3, together sqrt(5)
    run = [scored(g, [0], [1], gold=g, prompt=str(n)) for n, g in enumerate(golds)]
    found = Gains.of([run])
    assert found.gold[0, :, -1] * 5**0.5 == pytest.approx([1.0, 3.0])
    assert found.gold[0] == pytest.approx(found.proxy[0])
    assert found.gold[0] == pytest.approx(found.best)
    assert (found.gold[..., 0] == 0).all()


def test_the_scale_of_a_proxy_changes_nothing():
    runs = random_set(count=20, responses=5, seed=2)
    larger = [replace(c, rewards=[7.0 * r + 3 for r in c.rewards]) for c in runs]
    one, other = Gains.of([runs]), Gains.of([larger])
    assert other.gold == pytest.approx(one.gold)
    assert other.proxy == pytest.approx(one.proxy)


def noisy(curve, seeds=5, prompts=40, sd=0.3):
    """(S, C, G) curves around one, each with its own slope."""
    rng = np.random.default_rng(1)
    slopes = rng.normal(size=(seeds, 1)) * 0.1 + rng.normal(size=(seeds, prompts)) * sd
    return curve + slopes[..., None] * D


def test_the_fit_recovers_alpha_beta_and_peak():
    curve = D * (1.2 - 0.4 * D)
    exact = fit(np.broadcast_to(curve, (3, 9, len(D))), D, np.arange(9))
    assert (exact.alpha.value, exact.beta.value, exact.peak.value) == pytest.approx((1.2, 0.4, 1.5))
    assert exact.at(D) == pytest.approx(curve)
    assert exact.r2 == pytest.approx(1)
    found = fit(noisy(curve), D, np.arange(40))
    assert found.alpha.low < 1.2 < found.alpha.high
    assert found.beta.value == pytest.approx(0.4), "slopes alone differ"
    assert found.peak.low < 1.5 < found.peak.high
    assert found.peak.high - found.peak.low < 1


def test_a_straight_line_has_no_peak():
    assert np.isnan(fit(np.broadcast_to(0.5 * D + 0.1 * D**2, (1, 4, len(D))), D, np.arange(4)).peak.value)


def test_gamma_by_hand():
    """f = x and g = 3 x on [0, 2]: int 2 x / int x = 2; f = x (2 - x), g = 0: 1."""
    x = np.linspace(0, 2, 401)
    f, g = (np.broadcast_to(curve, (2, 3, 401)) for curve in (x, 3 * x))
    assert gamma(f, g, x, np.arange(3)).value == pytest.approx(2)
    assert gamma(f, f, x, np.arange(3)).value == 0
    assert gamma(f * (2 - f), 0 * f, x, np.arange(3)).value == pytest.approx(1)


def test_the_best_n_is_where_the_curve_is_highest():
    curve = D * (1.2 - 0.4 * D)
    found = best_n(np.broadcast_to(curve, (2, 5, len(D))), N)
    assert found == (N[curve.argmax()],) * 3
    wide = best_n(noisy(curve), N)
    assert wide.low < wide.value < wide.high


def test_ensembles_reduce_rewards_that_are_centred_and_scaled():
    """Of two members, one is 10 times as large and 100 higher: in their own units they say (-1, 1) and (1, -1)."""
    one = [scored([0.0, 2.0, 1.0], [0], [1], gold=[0.0, 1.0, 2.0])]
    other = [replace(one[0], rewards=[120.0, 100.0, 110.0])]
    unit = 1.5**0.5  # of (-1, 1, 0): 1 / sd
    (least,), (most,) = ensemble([one, other], "min", 0.5), ensemble([one, one], "min", 0.5)
    assert np.subtract(least.rewards, least.rewards[2]) == pytest.approx([-unit, -unit, 0.0])
    assert np.subtract(most.rewards, most.rewards[2]) == pytest.approx([-unit, unit, 0.0])
    (uncertain,) = ensemble([one, other], "mean-var", 0.5)
    assert np.subtract(uncertain.rewards, uncertain.rewards[2]) == pytest.approx(
        [-0.5 * unit**2, -0.5 * unit**2, 0.0], abs=1e-5
    )
    (mean,) = ensemble([one, other], "mean", 0.5)
    assert np.ptp(mean.rewards) == pytest.approx(0.0, abs=1e-5)
