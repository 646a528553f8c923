"""Training metrics between two logs: those that evaluation has, under its names."""

from types import SimpleNamespace

import pytest
import torch

from rmlab.losses import Preferences, Term
from rmlab.metrics.running import RunningMetrics

ALONE = SimpleNamespace(reduce=lambda sums, how: sums, num_processes=1)


def test_gaps_of_training_are_of_decided_preferences_and_their_likelier_side():
    """A tie, whose order means nothing, and a preference that the votes turn; test_evaluate.py has the same."""
    rewards, better, worse, probability = [1.0, 3.0, 7.0], [0, 1, 2], [1, 2, 0], [0.5, 0.2, 0.9]
    expected = {"chosen_mean": 7.0, "rejected_mean": 2.0, "gap_mean": 5.0, "accuracy": 1.0}
    running = RunningMetrics([])
    for a, b in ((0, 2), (2, 3)):  # a micro-batch with the tie, one without
        columns = [torch.tensor(x) for x in (rewards, better[a:b], worse[a:b], [1.0] * (b - a), probability[a:b])]
        running.add(Preferences(*columns, torch.zeros(3, dtype=torch.long)), [])
    read = running.read(ALONE)
    assert {k: read[k] for k in expected} == pytest.approx(expected)
    running.add(Preferences(*(torch.tensor(x) for x in ([0.0, 1.0], [0], [1], [0.0], [0.5], [0, 0]))), [])
    assert running.read(ALONE).keys() == {"reward_mean", "reward_std"}


def test_terms_are_means_over_steps_and_ranks_and_a_read_starts_anew():
    """Two steps of two micro-batches, on two ranks that see the same; each share was multiplied by the ranks."""
    terms = [Term(name, 1.0, lambda p: p.gap, "pair") for name in ("one", "two")]
    running, ranks = RunningMetrics(terms), SimpleNamespace(reduce=lambda sums, how: 2 * sums, num_processes=2)
    assert running.read(ranks) == {}
    for _ in range(2):
        preferences = Preferences(*(torch.tensor(x) for x in ([2.0, 1.0], [0], [1], [1.0], [1.0], [0, 0])))
        for _ in range(2):
            running.add(preferences, [torch.tensor(0.25), torch.tensor(1.5)])
        running.steps += 1
    read = running.read(ranks)
    assert (read["loss_one"], read["loss_two"]) == (0.5, 3.0)
    assert (read["accuracy"], read["gap_mean"], read["reward_mean"]) == (1.0, 1.0, 1.5)
    assert (running.read(ranks), running.steps) == ({}, 0)
