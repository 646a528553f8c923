"""Correlations within prompts against scipy's, one prompt at a time."""

import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr

from rmlab.metrics.correlation import centred_ranks, of_differences, within_prompts


def drawn(prompts=40, seed=0, slope=0.8):
    rng = np.random.default_rng(seed)
    prompt = rng.permutation(np.repeat(np.arange(prompts), 5))
    x = rng.integers(0, 6, len(prompt)).astype(float)
    y = slope * x + 2 * rng.normal(size=len(x)) - 10.0 * prompt  # what a prompt does to y is no matter
    return x, y, prompt


def test_ranks_are_those_of_each_prompt():
    x, _, prompt = drawn()
    wanted = np.empty(len(x))
    for p in np.unique(prompt):
        ranks = rankdata(x[prompt == p])
        wanted[prompt == p] = ranks - ranks.mean()
    assert centred_ranks(x, prompt) == pytest.approx(wanted)


def test_of_one_prompt_it_is_spearmans():
    x, y, _ = drawn()
    assert within_prompts(x, y, np.zeros(len(x)))["value"] == pytest.approx(spearmanr(x, y).statistic)


def test_what_differs_between_prompts_is_no_matter():
    x, y, prompt = drawn()
    found = within_prompts(x, y, prompt)
    assert found["value"] == pytest.approx(within_prompts(x, y + 99 * prompt, prompt)["value"])
    assert abs(spearmanr(x, y).statistic) < 0.2 < 0.4 < found["low"] < found["value"] < found["high"]
    assert found["n"] == 40


def test_the_interval_covers_the_truth_as_often_as_it_says():
    values = [within_prompts(*drawn(seed=seed)) for seed in range(300)]
    truth = np.mean([v["value"] for v in values])
    assert 0.9 < np.mean([v["low"] <= truth <= v["high"] for v in values]) < 0.99


def test_of_differences_it_is_no_matter_which_side_is_called_better():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 60))
    flip = rng.choice([-1, 1], 60)
    one, other = of_differences(x, y, np.arange(60)), of_differences(flip * x, flip * y, np.arange(60))
    assert one == pytest.approx(other)
    assert one["value"] == pytest.approx(spearmanr(np.append(x, -x), np.append(y, -y)).statistic)


def test_what_does_not_vary_within_a_prompt_has_no_correlation():
    prompt = np.repeat([0, 1], 3)
    assert within_prompts(prompt.astype(float), np.arange(6.0), prompt) is None


def test_pairs_are_a_correlation_of_signs():
    x, y = np.array([1.0, 2, 3, 1, 5, 5]), np.array([0.0, 9, 4, 8, 1, 2])
    found = within_prompts(x, y, np.repeat([0, 1, 2], 2))
    signs = np.array([1, -1, 0]), np.array([1, 1, 1])  # of the second minus the first, of x and y
    both = [np.append(s, -s) for s in signs]
    assert found["value"] == pytest.approx(pearsonr(*both).statistic)
    assert found["n"] == 2
