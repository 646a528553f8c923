"""Best-of-n against every choice of n responses."""

import itertools
import json

import numpy as np
import pytest
from comparisons import random_set, scored

from rmlab.metrics.best_of_n import Curves, best_of_n, chances, highest, kl

FIVE = random_set(count=30, responses=5, seed=2)


def brute(c, n):
    """Mean over all choices of n: (gold of the one with the most reward, its reward, the most gold), ties shared."""
    picked, reward, best = [], [], []
    for those in itertools.combinations(range(len(c.rewards)), n):
        top = max(c.rewards[k] for k in those)
        tied = [c.gold[k] for k in those if c.rewards[k] == top]
        picked.append(np.mean(tied))
        reward.append(top)
        best.append(max(c.gold[k] for k in those))
    return [np.mean(values) for values in (picked, reward, best)]


def test_the_curve_is_the_mean_over_every_choice_of_n():
    assert any(len(set(c.rewards)) < 5 for c in FIVE), "some rewards tie"
    found = best_of_n(FIVE)
    assert [point["n"] for point in found["curve"]] == [1, 2, 3, 4, 5]
    for point in found["curve"]:
        wanted = np.mean([brute(c, point["n"]) for c in FIVE], axis=0)
        assert [point[name]["value"] for name in ("gold", "reward", "best")] == pytest.approx(wanted)


def test_ties_share_what_they_have_together():
    """Of 3 tied and 1 above: of two, the one above is drawn half the time."""
    assert chances(np.zeros(4), 1e-5, 4) == pytest.approx(np.full((4, 4), 0.25))
    assert chances(np.array([1.0, 3.0, 1.0, 1.0]), 1e-5, 2)[1] == pytest.approx([1 / 6, 1 / 2, 1 / 6, 1 / 6])


def test_chances_sum_to_one_for_many_responses():
    assert highest(1000, 1000).sum(axis=1) == pytest.approx(np.ones(1000))


def test_recovery_is_the_gain_of_rewards_over_that_of_gold():
    found = best_of_n(FIVE)
    first, third = found["curve"][0], found["curve"][2]
    gained, possible = (third[name]["value"] - first["gold"]["value"] for name in ("gold", "best"))
    assert third["recovery"]["value"] == pytest.approx(gained / possible)
    assert "recovery" not in first
    assert third["recovery"]["low"] < third["recovery"]["value"] < third["recovery"]["high"]


@pytest.mark.parametrize(("sign", "recovered"), [(1.0, 1.0), (0.0, 0.0)])
def test_gold_itself_recovers_all_and_equal_rewards_nothing(sign, recovered):
    rng = np.random.default_rng(0)
    golds = [rng.normal(size=4).tolist() for _ in range(9)]
    rated = [scored([sign * g for g in gold], [0], [1], gold=gold, prompt=str(n)) for n, gold in enumerate(golds)]
    found = best_of_n(rated)
    assert [point["recovery"]["value"] for point in found["curve"][1:]] == pytest.approx([recovered] * 3)
    assert found["ties"] == (0.0 if sign else 1.0)


def test_right_or_wrong_is_gold_too():
    """Of one right answer in four that has the second most reward: right 1/4, then if drawn without the one above."""
    found = best_of_n([scored([0.4, 0.3, 0.2, 0.1], [1], [0], gold=[0, 1, 0, 0])])
    assert [point["gold"]["value"] for point in found["curve"]] == pytest.approx([1 / 4, 2 / 6, 1 / 4, 0])
    assert [point["best"]["value"] for point in found["curve"]] == pytest.approx([1 / 4, 3 / 6, 3 / 4, 1])


def test_with_other_numbers_of_responses_it_goes_to_the_smallest():
    found = best_of_n([*random_set(3, 6), *random_set(2, 4, seed=1), *random_set(5, 2, seed=2)])
    assert (found["largest_n"], found["comparisons"], found["left_out"]) == (4, 5, 5)


def test_nothing_is_told_where_gold_is_unknown_or_all_the_same():
    assert best_of_n([scored([1.0, 2.0, 3.0], [2], [0])]) == {}
    assert best_of_n([scored([1.0, 2.0, 3.0], [2], [0], gold=[1, 1, 1])]) == {}
    assert best_of_n(random_set(5, 2)) == {}


def test_the_kl_is_gaos():
    assert [kl(n) for n in (1, 64, 256, 12_500)] == pytest.approx([0, 3.18, 4.55, 8.43], abs=0.01)


def test_what_is_picked_is_told_beside_a_random_pick():
    """The reward is the length, so best-of-3 picks the longest."""
    made = [
        scored([3.0, 1.0, 2.0], [0], [1], gold=[0, 1, 0], lengths=[30, 10, 20], style=[[n] * 6 for n in (5, 1, 0)])
        for _ in range(2)
    ]
    found = best_of_n(made)["bias"]
    assert found["length"]["picked"] == 30
    assert found["length"]["random"] == pytest.approx(20)
    assert found["length"]["difference"]["value"] == pytest.approx(10)
    assert found["bold"]["difference"]["value"] == pytest.approx(3)


def test_the_interval_of_recovery_is_as_wide_as_recovery_varies():
    """Over sets drawn anew: its half width is near 2 standard deviations."""
    found = [Curves.of(random_set(60, 4, seed=seed)).recovery(4) for seed in range(60)]
    spread = np.std([f["value"] for f in found])
    half = np.mean([f["high"] - f["low"] for f in found]) / 2
    assert half == pytest.approx(2 * spread, rel=0.25)


def test_it_is_json():
    assert json.loads(json.dumps(best_of_n(FIVE), allow_nan=False)) == best_of_n(FIVE)
