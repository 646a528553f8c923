"""A batch: it moves as one, and gives rewards back to the comparisons that they belong to."""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from conftest import forest, tree_of

from rmlab import UserError
from rmlab.losses.reduce import Weights
from rmlab.scoring.batch import Flat, Padded, parts_of
from rmlab.scoring.collator import PreferenceCollator
from rmlab.scoring.plan import Plan

LAYOUTS = ["padded", "packed", "shared_prefix"]


def batch_of(layout, trees=None):
    return PreferenceCollator(0, layout=layout).batch(trees or forest(longest=20))


def tensors(value, name=""):
    """{where: tensor} of all that a batch holds, at any depth."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    if not is_dataclass(value) or isinstance(value, Plan):
        return {}
    values = {f.name: getattr(value, f.name) for f in fields(value)}
    parts = [tensors(part, f"{name}.{key}") for key, part in {**values, **values.get("columns", {})}.items()]
    return {k: v for part in parts for k, v in part.items()}


@pytest.mark.parametrize(("layout", "count"), [("padded", 2), ("packed", 3), ("shared_prefix", 3)])
def test_a_batch_moves_as_one_and_stays_as_it_was(layout, count):
    batch = batch_of(layout)
    there = batch.to("meta", non_blocking=True)
    assert len(tensors(there)) == count + 5 + 3 + 1  # of tokens, of the batch, of weights, lengths
    assert {t.device.type for t in tensors(there).values()} == {"meta"}
    assert {t.device.type for t in tensors(batch).values()} == {"cpu"}
    assert tensors(there).keys() == tensors(batch).keys()
    assert there.comparisons is batch.comparisons
    if layout != "padded":
        assert (there.tokens.plan.device.type, batch.tokens.plan.device.type) == ("meta", "cpu")
        assert there.tokens.plan.chains == batch.tokens.plan.chains


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_of_a_batch_is_pinned_but_its_plan(layout, monkeypatch):
    batch, pinned = batch_of(layout), []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.clone()) or pinned[-1])
    there = batch.pin_memory()
    assert {id(t) for t in tensors(there).values()} == set(map(id, pinned))
    assert all(torch.equal(t.nan_to_num(-1), tensors(batch)[name].nan_to_num(-1)) for name, t in tensors(there).items())
    assert getattr(there.tokens, "plan", None) is getattr(batch.tokens, "plan", None)


def test_vectors_of_frozen_layers_move_with_a_batch():
    there = replace(batch_of("packed"), tokens=Flat(features=torch.ones(3, 2))).to("meta")
    assert there.tokens.features.device.type == "meta"
    assert there.tokens.input_ids is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_trainer_finds_the_tokens_of_a_batch_by_name_and_nothing_that_is_no_token(layout):
    batch = batch_of(layout)
    assert "input_ids" in batch
    assert batch["input_ids"] is batch.tokens.input_ids
    for name in ("labels", "better", "plan", "comparisons", "input_id", 0):
        assert name not in batch
        with pytest.raises(KeyError):
            batch[name]
    assert "input_ids" not in replace(batch, tokens=Flat(features=torch.ones(3, 2)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rewards_go_back_to_their_comparisons_in_the_order_of_their_responses(layout):
    """As many comparisons as there are, of 2 to 9 responses; the reward says which comparison and which response."""
    trees = forest(longest=20)
    batch = batch_of(layout, trees)
    assert len(batch) == len(trees)
    known = {tuple(r): 100.0 * c + k for c, tree in enumerate(trees) for k, r in enumerate(tree.responses)}
    rewards = torch.tensor([known[tuple(r)] for r in spelled(batch)])
    for c, (comparison, tree) in enumerate(zip(batch.scored(rewards[:, None]), trees, strict=True)):
        assert comparison.rewards == [known[tuple(r)] for r in tree.responses]
        assert (comparison.better, comparison.worse) == (tree.better, tree.worse)
        assert batch.comparisons[c].rewards == []
    preferences = batch.preferences(rewards[:, None])
    pairs = [
        (known[tuple(tree.responses[b])], known[tuple(tree.responses[w])])
        for tree in trees
        for b, w in zip(tree.better, tree.worse, strict=True)
    ]
    assert list(zip(rewards[batch.better].tolist(), rewards[batch.worse].tolist(), strict=True)) == pairs
    assert preferences.gap.tolist() == [a - b for a, b in pairs]


def spelled(batch):
    """The token ids of every response of a batch, in its own order."""
    if isinstance(batch.tokens, Padded):
        ids, mask = batch.tokens.input_ids, batch.tokens.attention_mask.bool()
        return [row[here].tolist() for row, here in zip(ids, mask, strict=True)]
    ids = batch.tokens.input_ids[0]
    return [ids[places[places >= 0]].tolist() for places in batch.tokens.plan.index()]


def test_rows_are_padded_on_the_right_and_to_a_multiple():
    padded = Padded.of([[5, 6, 7], [8]], pad_token_id=9, multiple_of=4)
    assert padded.input_ids.tolist() == [[5, 6, 7, 9], [8, 9, 9, 9]]
    assert padded.attention_mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert Padded.of([[5, 6, 7], [8]], 9).input_ids.shape == (2, 3)
    assert Padded.of([[5, 6, 7, 8]], 9, 4).input_ids.shape == (1, 4)


def test_the_parts_of_inputs_are_batches_or_the_collator_is_named():
    batch = batch_of("padded", [tree_of([[5], [6]])])
    assert parts_of(batch) == [batch]
    assert parts_of([batch, batch]) == [batch, batch]
    for wrong, kind in (({"input_ids": torch.ones(1, 1)}, "dict"), ([{}, batch], "dict"), (torch.ones(1), "Tensor")):
        with pytest.raises(UserError, match=rf"the data_collator made a {kind}, no rmlab.scoring.batch.Batch"):
            parts_of(wrong)


def test_totals_are_the_weights_of_all_pairs_responses_and_comparisons():
    weights = Weights(torch.tensor([1.0, 0.5]), torch.tensor([0.25] * 4), torch.tensor([3.0]))
    assert weights.totals().tolist() == [1.5, 1.0, 3.0]
