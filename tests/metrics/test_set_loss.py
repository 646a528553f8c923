"""The training loss of a whole set: the mean over its pairs, or first within each prompt."""

import math

import pytest
from comparisons import scored

from rmlab.losses import build_loss
from rmlab.metrics.set_loss import set_loss


@pytest.mark.parametrize("weighting", ["pair", "prompt"])
def test_the_loss_of_a_set_is_written_out_from_its_rewards(weighting):
    """A pair and a triple: margins by strength, a tie, and a term of all responses beside one of pairs."""
    comparisons = [
        scored([1.0, 0.5], [0], [1], strength=[2.0]),
        scored([0.0, 3.0, 1.0], [1, 2], [0, 1], [1.0, 0.5], strength=[1.0, 0.0]),
    ]
    terms = build_loss({"bradley_terry": {"margin": 0.5}, "center": {"weight": 0.1}})

    def soft(z):
        return math.log1p(math.exp(-z))

    pairs = [[soft(0.5 - 1.0)], [soft(3.0 - 0.5), 0.5 * soft(-2.0) + 0.5 * soft(2.0)]]
    sums = [[1.5**2], [3.0**2, 4.0**2]]
    expected = 0.0
    for weight, values in ((1.0, pairs), (0.1, sums)):
        flat = [x for part in values for x in part]
        by_prompt = sum(sum(part) / len(part) for part in values) / 2
        expected += weight * (by_prompt if weighting == "prompt" else sum(flat) / len(flat))
    assert set_loss(terms, comparisons, weighting) == pytest.approx(expected, rel=1e-6)
