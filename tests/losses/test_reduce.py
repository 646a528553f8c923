"""The exact mean of an optimizer step, however it is split."""

import pytest
import torch

from rmlab.losses import Preferences, build_loss
from rmlab.losses.reduce import Weights, term_means, weighted_sum

TERMS = build_loss({"bradley_terry": {"margin": 0.0}, "center": {"weight": 0.1}})


def step(*counts):
    """Comparisons of so many responses each, every one better than the next."""
    torch.manual_seed(sum(counts))
    better = [sum(counts[:c]) + k for c, n in enumerate(counts) for k in range(n - 1)]
    pairs = len(better)
    preferences = Preferences(
        torch.randn(sum(counts)),
        torch.tensor(better),
        torch.tensor(better) + 1,
        torch.ones(pairs),
        torch.ones(pairs),
        torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
    )
    weights = Weights(torch.rand(pairs), torch.rand(sum(counts)), torch.rand(len(counts)))
    return preferences, weights


def test_the_shares_of_the_parts_of_a_step_add_up_to_its_mean():
    parts = [step(2, 3), step(4), step(2)]
    totals = sum(weights.totals() for _, weights in parts)
    shares = [term_means(TERMS, preferences, weights, totals) for preferences, weights in parts]
    for n, term in enumerate(TERMS):
        values = torch.cat([term.function(preferences) for preferences, _ in parts])
        weight = torch.cat([w.pair if term.per == "pair" else w.response for _, w in parts])
        expected = (values * weight).sum() / weight.sum()
        assert sum(share[n] for share in shares).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_is_the_weighted_sum_of_its_terms():
    assert weighted_sum(TERMS, [torch.tensor(2.0), torch.tensor(30.0)]).item() == pytest.approx(2.0 + 0.1 * 30.0)
