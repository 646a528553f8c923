"""Never silently wrong: what flat rows cannot honour is found before it counts, and a model is left as it was."""

import copy

import pytest
import torch
from conftest import (
    assert_equal,
    forest,
    kwise_rows,
    make_model,
    model_for,
    rewards_and_gradients,
    trainer_for,
    tree_of,
)
from transformers import AutoConfig, AutoModelForSequenceClassification

from rmlab import UserError
from rmlab.scoring import pad, score
from rmlab.scoring.attention import NAME
from rmlab.scoring.collator import PreferenceCollator
from rmlab.scoring.layout import choose, padded_batch, prove, to_compare

SHARED = PreferenceCollator(0, layout="shared_prefix")


def test_a_window_that_is_only_in_the_mask_is_refused():
    """phimoe does not pass its window on; on a batch shorter than it nothing would differ."""
    model = model_for("phimoe").eval()
    _, wrong = prove(model, SHARED([tree_of([[5, 6, 7], [5, 8]])]), 0)
    assert wrong == "its sliding window is in its mask alone"


def test_the_proof_looks_at_the_longest_comparison_and_its_last_branch():
    """Rewards that are wrong only beyond 60 tokens, in the third comparison; and only in a second branch."""
    model = model_for("gpt2").eval()
    trees = [tree_of([[5], [6]]), tree_of([[7, 8], [7, 9]]), tree_of([[5] * 70 + [6], [5] * 70 + [7, 8]])]
    batch = SHARED(trees)
    assert to_compare(batch)[:2] == [5, 4]
    assert prove(model, batch, 0)[1] is None
    late = {**batch, "position_ids": batch["position_ids"].clamp(max=60)}
    assert "rewards differ" in prove(model, late, 0)[1]
    branch = {**batch, "position_ids": batch["position_ids"].clone()}
    branch["position_ids"][0, -1] += 1
    assert "rewards differ" in prove(model, branch, 0)[1]


def test_the_proof_is_not_blind_under_a_small_head():
    """bf16 is compared to 5% of rewards of about 1, whatever the head that was initialised."""
    model = model_for("gpt2").to(torch.bfloat16).eval()
    model.score.float().weight.data.mul_(1e-3)
    before = model.score.weight.clone()
    batch = SHARED(forest(longest=20))
    assert prove(model, batch, 0)[1] is None
    assert "rewards differ" in prove(model, {**batch, "position_ids": batch["position_ids"] * 0}, 0)[1]
    assert torch.equal(model.score.weight, before)


def test_noise_by_row_layers_by_chance_and_router_noise_are_not_shared(tokenizer, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, neftune_noise_alpha=5.0)
    assert (trainer.layout, trainer.scorer.why) == ("padded", "NEFTune scales its noise by the length of a row")
    with pytest.raises(UserError, match="layout=packed does not go with NEFTune"):
        trainer_for(make_model(), tokenizer, tmp_path, neftune_noise_alpha=5.0, layout="packed")
    opt = trainer_for(
        make_model("opt", layerdrop=0.5), tokenizer, tmp_path, kwise_rows(6), disable_dropout=False, max_steps=2
    )
    assert opt.scorer.why == "LayerDrop leaves layers out at random"
    opt.train()
    jitter = make_model("phimoe", sliding_window=None, router_jitter_noise=0.1)
    assert choose(jitter, "auto")[0] == "packed"


def test_evaluation_in_16_bits_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="would round the rewards"):
        trainer_for(make_model(), tokenizer, tmp_path, bf16_full_eval=True)


def test_a_padding_token_inside_a_text_has_roberta_count_as_it_does_padded():
    model = model_for("roberta")
    trees = [tree_of([[5, 0, 6, 7], [8, 9]]), tree_of([[0, 3], [4]])]
    batch = PreferenceCollator(0, layout="packed", causal=False)(trees)
    ours, padded = (rewards_and_gradients(model, b)[0] for b in (batch, padded_batch(batch, 0)))
    assert torch.allclose(ours, padded, atol=1e-5)


def test_a_models_attention_is_its_own_again_after_a_flat_forward():
    """Also in its config, which others may hold, and after its attention is changed."""
    model = model_for("qwen3 sliding").eval()
    rows = pad([[5, 70, 71, 72, 6], [5, 80, 6]], 0)
    expected = score(model, rows)
    flat = SHARED(forest(longest=20))
    score(model, flat)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(score(model, rows), expected)
    assert model.model(**rows).last_hidden_state.isfinite().all()
    other = AutoModelForSequenceClassification.from_config(model.config)
    assert other(**rows).logits.isfinite().all()
    model.set_attn_implementation("eager")
    assert torch.allclose(score(model, rows), expected, atol=1e-5)
    assert score(model, flat).isfinite().all()
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "bert"])
def test_a_padded_forward_between_a_flat_one_and_its_backward_changes_nothing(kind, reentrant):
    """Checkpointing computes the flat layers again when the padded ones have been computed."""
    model = model_for(kind)
    batch = PreferenceCollator(0, layout="packed", causal=kind != "bert")(forest(longest=20))
    expected = rewards_and_gradients(model, padded_batch(batch, 0))  # by the model itself, nothing computed again
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    rewards = score(model, batch)
    weights = torch.linspace(-1, 1, len(rewards)) + 0.3
    with torch.no_grad():
        score(model, padded_batch(batch, 0))
    (rewards * weights).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_equal((rewards.detach(), found), expected)


def test_an_attention_that_could_not_be_told_of_a_plan_again_is_refused():
    """Checkpointing would compute its layers with the model's own attention, without an error."""
    model = model_for("llama")
    for layer in model.model.layers:
        layer.self_attn.__class__ = type("Mixer", (type(layer.self_attn),), {})
    _, wrong = prove(model, SHARED(forest(longest=20)), 0)
    assert wrong == "0 of its 2 layers call the attention function"


def test_nothing_of_ours_is_saved(tokenizer, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, kwise_rows(6), max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    assert NAME not in str(AutoConfig.from_pretrained(tmp_path / "saved").to_dict())
    twin = copy.deepcopy(trainer.model)
    assert twin.config._attn_implementation == trainer.model.config._attn_implementation == "sdpa"
