"""Two models on the same items."""

from dataclasses import replace

import numpy as np
import pytest
from comparisons import random_set, scored
from sklearn.metrics import cohen_kappa_score

from rmlab.messages import UserError
from rmlab.metrics.agreement import Flip, agreement

A = random_set(50, 3, seed=0, noise=1.0)


def rescored(comparisons, seed, noise):
    """The same comparisons with rewards of another model."""
    rng = np.random.default_rng(seed)

    def noisy(rewards):
        return np.round(np.array(rewards) + noise * rng.normal(size=3), 1).tolist()

    return [
        replace(c, rewards=np.round(np.array(c.rewards) + noise * rng.normal(size=3), 1).tolist()) for c in comparisons
    ]


def decisions(comparisons):
    gaps = [
        c.rewards[i] - c.rewards[j]
        for c in comparisons
        for i, j, p in zip(c.better, c.worse, c.probability, strict=True)
        if p != 0.5
    ]
    return np.sign(gaps).astype(int)


def test_kappa_is_scikit_learns():
    b = rescored(A, 1, 1.0)
    found = agreement(A, b)
    assert found.kappa == pytest.approx(cohen_kappa_score(decisions(A), decisions(b)))
    assert 0 < found.kappa < found.alike["value"] < 1
    assert 0 < found.correlation["value"] < 1


def test_a_model_agrees_with_itself_in_any_order_and_scale():
    found = agreement(A, rescored(A[::-1], 0, 0.0))
    assert (found.alike["value"], found.kappa, found.flips) == (1.0, 1.0, [])
    assert found.correlation["value"] == pytest.approx(1.0)


def test_flips_are_listed_surest_first():
    """A tie of one is a flip of nobody's certainty; the likelier side is the better one."""
    a = [scored([3.0, 0.0], [0], [1], index=0), scored([1.0, 0.0], [0], [1], index=1)]
    a += [scored([0.0, 2.0], [1], [0], index=2), scored([2.0, 0.0], [1], [0], [0.2], index=3)]
    b = [scored([0.0, 0.0], [0], [1], index=0), scored([0.0, 1.0], [0], [1], index=1)]
    b += [scored([0.0, 1.0], [1], [0], index=2), scored([0.0, 2.0], [1], [0], [0.2], index=3)]
    assert agreement(a, b).flips == [Flip(3, 0, 1, 2.0, -2.0), Flip(1, 0, 1, 1.0, -1.0), Flip(0, 0, 1, 3.0, 0.0)]
    assert agreement(a, b).alike["value"] == 1 / 4


def test_two_models_that_are_always_right_have_no_kappa():
    right = [scored([1.0, 0.0], [0], [1], prompt=str(n), index=n) for n in range(3)]
    assert agreement(right, right).kappa is None


def test_other_comparisons_are_refused():
    with pytest.raises(UserError, match="score the same rows with both"):
        agreement(A, A[:-1])
