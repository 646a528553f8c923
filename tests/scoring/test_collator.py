"""Token trees -> batches: order, weights, and micro-batches under a budget of tokens."""

import itertools
from dataclasses import replace

import pytest
import torch
from conftest import forest, tree_of

from rmlab.scoring.batch import Flat
from rmlab.scoring.collator import PreferenceCollator

LAYOUTS = ["padded", "packed", "shared_prefix"]


def test_rows_of_a_data_set_and_their_trees_make_the_same_batch():
    trees = [replace(tree, index=n) for n, tree in enumerate(forest(longest=20))]
    rows = [{**tree.row(), "index": tree.index} for tree in trees]
    ours, theirs = PreferenceCollator(0)(rows), PreferenceCollator(0).batch(trees)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert ours.comparisons == theirs.comparisons
    assert [c.index for c in ours.comparisons] == list(range(len(trees)))


def test_padded_rows_are_in_the_order_of_ranks_and_flat_ones_in_that_of_comparisons():
    trees = [tree_of([[5, 6], [5, 7, 8]]), tree_of([[9], [10], [11]])]
    padded = PreferenceCollator(0).batch(trees)
    assert padded.tokens.input_ids.tolist() == [[5, 6, 0], [9, 0, 0], [5, 7, 8], [10, 0, 0], [11, 0, 0]]
    assert padded.prompt.tolist() == [0, 1, 0, 1, 1]
    assert (padded.better.tolist(), padded.worse.tolist()) == ([0, 1, 1, 3], [2, 3, 4, 4])
    flat = PreferenceCollator(0, layout="shared_prefix").batch(trees)
    assert flat.tokens.input_ids.tolist() == [[5, 6, 7, 8, 9, 10, 11]]
    assert flat.tokens.position_ids.tolist() == [[0, 1, 1, 2, 0, 0, 0]]
    assert flat.tokens.read.tolist() == [1, 3, 4, 5, 6]
    assert (flat.better.tolist(), flat.worse.tolist()) == ([0, 2, 2, 3], [1, 3, 4, 4])


def test_encoders_are_read_at_the_first_token():
    batch = PreferenceCollator(0, layout="packed", causal=False).batch([tree_of([[5, 6], [5, 7, 8]])])
    assert batch.tokens.read.tolist() == [0, 2]


def test_pairs_and_responses_weigh_one_or_their_share_of_the_comparison():
    trees = [tree_of([[5, 6], [5, 7, 8]]), tree_of([[9], [10], [11], [12]])]
    for weighting, pair, response in (("pair", 1, 1), ("prompt", 1 / 6, 1 / 4)):
        weights = PreferenceCollator(0, pair_weighting=weighting, layout="packed").batch(trees).weights
        one = 1.0 if weighting == "pair" else 0.5
        assert weights.pair.tolist() == pytest.approx([1.0, *[pair] * 6])
        assert weights.response.tolist() == pytest.approx([one, one, *[response] * 4])


@pytest.mark.parametrize("budget", [1, 40, 150, 10**6])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_budget_cuts_a_batch_into_parts_longest_first(layout, budget):
    trees = [replace(tree, id=str(n)) for n, tree in enumerate(forest(longest=40))]
    collator = PreferenceCollator(0, layout=layout, tokens_per_batch=budget)
    parts = collator([tree.row() for tree in trees])
    assert sorted(c.id for part in parts for c in part.comparisons) == sorted(tree.id for tree in trees)
    longest = [tree.longest for part in parts for tree in trees if tree.id in {c.id for c in part.comparisons}]
    lengths = {tree.id: tree.longest for tree in trees}
    order = [lengths[c.id] for part in parts for c in part.comparisons]
    assert order == sorted(longest, reverse=True)
    for part in parts:
        assert part.tokens.input_ids.numel() <= budget or len(part) == 1
        computed = collator.computed([tree for tree in trees if tree.id in {c.id for c in part.comparisons}])
        # Less where responses branch late.
        assert part.tokens.input_ids.numel() <= computed
        assert part.tokens.input_ids.numel() == computed or layout == "shared_prefix"
    for part, following in itertools.pairwise(parts):  # no part had room for the next comparison
        first = next(tree for tree in trees if tree.id == following.comparisons[0].id)
        inside = [tree for tree in trees if tree.id in {c.id for c in part.comparisons}]
        assert collator.computed([*inside, first]) > budget
    assert len(parts) == {1: len(trees), 10**6: 1}.get(budget, len(parts))


def test_vectors_of_frozen_layers_take_the_place_of_tokens():
    trees = [tree_of([[5, 6], [5, 7, 8]]), tree_of([[9], [10], [11]])]
    of_responses = [
        replace(t, response_vectors=torch.full((len(t.suffixes), 4), float(n))) for n, t in enumerate(trees)
    ]
    tokens = PreferenceCollator(0, layout="shared_prefix").batch(of_responses).tokens
    assert isinstance(tokens, Flat)
    assert tokens.features[:, 0].tolist() == [0, 0, 1, 1, 1]
    assert tokens.input_ids is tokens.plan is None
    of_tokens = [replace(t, token_vectors=torch.full((t.tokens, 4), float(n))) for n, t in enumerate(trees)]
    tokens = PreferenceCollator(0, layout="shared_prefix").batch(of_tokens).tokens
    assert tokens.features[:, 0].tolist() == [0] * 4 + [1] * 3
    assert tokens.input_ids.shape == (1, 7)


@pytest.mark.parametrize("column", ["response_vectors", "token_vectors"])
def test_vectors_of_only_some_comparisons_are_an_error(column):
    """Those of the others would be read in their place."""
    first, *others = forest(longest=20)
    with pytest.raises(TypeError):
        PreferenceCollator(0, layout="packed").batch([replace(first, **{column: torch.ones(2, 4)}), *others])
