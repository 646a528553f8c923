"""The proof of a layout: what is wrong is found, wherever in the batch it is."""

from dataclasses import replace

import pytest
import torch
from conftest import flat_batch, forest, kwise_rows, make_model, model_for, trainer_for, tree_of

from rmlab.scoring.proof import EXACT, prove, to_compare


def at(batch, position_ids):
    """The batch with other positions."""
    return replace(batch, tokens=replace(batch.tokens, position_ids=position_ids))


def test_a_model_that_computes_something_else_flat_is_found_on_the_first_batch(
    tokenizer, tmp_path, capsys, monkeypatch
):
    """Positions off by one from the second response on: no error anywhere, only other rewards."""
    from rmlab.scoring import plan

    right = plan.Plan.position_ids
    monkeypatch.setattr(plan.Plan, "position_ids", lambda self: right(self) + (torch.arange(self.tokens) > 40).long())
    rows = kwise_rows(6)
    trainer = trainer_for(make_model("gpt2"), tokenizer, tmp_path)
    got = trainer.predict(rows).predictions
    assert (
        "layout padded: shared_prefix is not exact here: rewards differ from padded ones by" in capsys.readouterr().out
    )
    monkeypatch.undo()
    expected = trainer_for(make_model("gpt2"), tokenizer, tmp_path, layout="padded").predict(rows).predictions
    assert torch.allclose(torch.tensor(got), torch.tensor(expected), atol=1e-5, equal_nan=True)


def test_the_proof_is_not_fooled_by_a_head_of_zeros(monkeypatch):
    from rmlab.scoring import plan

    model = model_for("gpt2")
    model.score.weight.data.zero_()
    right = plan.Plan.position_ids
    monkeypatch.setattr(plan.Plan, "position_ids", lambda self: right(self) * 0)
    batch = flat_batch(forest(longest=20))
    assert "rewards differ" in prove(model, batch, 0).wrong
    assert not model.score.weight.any()


def test_a_window_that_is_only_in_the_mask_is_refused():
    """phimoe does not pass its window on; on a batch shorter than it nothing would differ."""
    model = model_for("phimoe").eval()
    assert (
        prove(model, flat_batch([tree_of([[5, 6, 7], [5, 8]])]), 0).wrong == "its sliding window is in its mask alone"
    )


def test_the_proof_looks_at_the_longest_comparison_and_its_last_branch():
    """Rewards that are wrong only beyond 60 tokens, in the third comparison; and only in a second branch."""
    model = model_for("gpt2").eval()
    trees = [tree_of([[5], [6]]), tree_of([[7, 8], [7, 9]]), tree_of([[5] * 70 + [6], [5] * 70 + [7, 8]])]
    batch = flat_batch(trees)
    positions = batch.tokens.position_ids
    assert to_compare(batch)[:2] == [5, 4]
    assert prove(model, batch, 0).wrong is None
    assert "rewards differ" in prove(model, at(batch, positions.clamp(max=60)), 0).wrong
    branch = positions.clone()
    branch[0, -1] += 1
    assert "rewards differ" in prove(model, at(batch, branch), 0).wrong


def test_the_proof_is_not_blind_under_a_small_head():
    """bf16 is compared to 5% of rewards of about 1, whatever the head that was initialised."""
    model = model_for("gpt2").to(torch.bfloat16).eval()
    model.score.float().weight.data.mul_(1e-3)
    before = model.score.weight.clone()
    batch = flat_batch(forest(longest=20))
    assert prove(model, batch, 0).wrong is None
    assert "rewards differ" in prove(model, at(batch, batch.tokens.position_ids * 0), 0).wrong
    assert torch.equal(model.score.weight, before)


def test_an_attention_that_could_not_be_told_of_a_plan_again_is_refused():
    """Checkpointing would compute its layers with the model's own attention, without an error."""
    model = model_for("llama")
    for layer in model.model.layers:
        layer.self_attn.__class__ = type("Mixer", (type(layer.self_attn),), {})
    assert prove(model, flat_batch(forest(longest=20)), 0).wrong == "0 of its 2 layers call the attention function"


@pytest.mark.parametrize(("moves", "exact"), [(True, True), (False, False)])
def test_a_layout_may_move_rewards_as_much_as_a_batch_does(moves, exact):
    """Of 4 bits, say: a row alone has other rewards than in a batch, and nobody calls one of them wrong."""
    model = model_for("llama").eval()

    def rounded(layer, args, output):
        """By more in a batch of many rows than in one; or only in a row that is flat."""
        hidden = output[0] if isinstance(output, tuple) else output
        many = hidden.shape[0] > 1
        changed = hidden * (1 + 1e-2 * (many if moves else not many and hidden.shape[1] > 60))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    model.model.layers[0].register_forward_hook(rounded)
    proof = prove(model, flat_batch(forest(longest=20)), 0)
    assert proof.difference > EXACT
    assert (proof.wrong is None) == exact
