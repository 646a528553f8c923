"""Flat rows with shared prefixes give the rewards and gradients of padded ones."""

import copy
import itertools

import pytest
import torch
from conftest import (
    assert_equal,
    flat_batch,
    forest,
    kwise_rows,
    make_model,
    model_for,
    rewards_and_gradients,
    trainer_for,
    tree_of,
)
from datasets import Dataset
from transformers import AutoModelForSequenceClassification

from rmlab.model.dropout import disable_dropout
from rmlab.model.layers import Refused
from rmlab.scoring.batch import Padded
from rmlab.scoring.heads import prepare_for_scoring, score
from rmlab.scoring.layout import choose
from rmlab.scoring.proof import padded_tokens

SHARED = [
    "llama", "qwen2", "qwen3", "qwen3 sliding", "mistral", "gemma2", "gemma2 sliding", "gemma3_text", "phi3", "olmo2",
    "mixtral", "gpt2", "gpt_neox", "opt",
]  # fmt: skip


PACKED = ["bert", "roberta", "distilbert", "modernbert", "modernbert mean"]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("lora", [False, True], ids=["", "lora"])
@pytest.mark.parametrize("kind", SHARED + PACKED)
def test_rewards_and_gradients_equal_padded_ones(kind, lora, checkpointing):
    model = model_for(kind, lora, checkpointing)
    layout = choose(model, "auto").layout
    assert layout == ("packed" if kind in PACKED else "shared_prefix")
    batch = flat_batch(forest(), layout, causal=kind in SHARED)
    assert batch.tokens.input_ids.shape[1] < sum(batch.tokens.plan.lengths) or layout == "packed"
    expected = rewards_and_gradients(model, padded_tokens(batch, 0))
    assert_equal(rewards_and_gradients(model, batch.tokens), expected)


@pytest.mark.parametrize("kind", SHARED + PACKED)
def test_responses_as_long_as_the_model_allows(kind):
    """All 512 positions; beside them responses of one token, and one that is the other's prefix."""
    model = model_for(kind)
    whole = torch.randint(3, 768, (512,), generator=torch.Generator().manual_seed(0)).tolist()
    trees = [tree_of([whole, whole[:-1]]), tree_of([[5], [6]]), tree_of([[*whole[:300], 7], whole[:300] + [8] * 212])]
    layout, causal = ("packed", False) if kind in PACKED else ("shared_prefix", True)
    batch = flat_batch(trees, layout, causal)
    assert max(batch.tokens.plan.lengths) == 512
    assert_equal(rewards_and_gradients(model, batch.tokens), rewards_and_gradients(model, padded_tokens(batch, 0)))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3 sliding", "gemma2 sliding"])
def test_decoders_can_be_packed_without_sharing(kind):
    model = model_for(kind)
    batch = flat_batch(forest(), "packed")
    assert batch.tokens.input_ids.shape[1] == sum(batch.tokens.plan.lengths)
    assert_equal(rewards_and_gradients(model, batch.tokens), rewards_and_gradients(model, padded_tokens(batch, 0)))


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_padded_batches_of_a_plan_are_the_collators_own(kind):
    trees = forest()
    flat = flat_batch(trees, "packed", causal=kind == "llama")
    padded = Padded.of([response for tree in trees for response in tree.responses], 0)
    rebuilt = padded_tokens(flat, 0)
    assert torch.equal(rebuilt.input_ids, padded.input_ids)
    assert torch.equal(rebuilt.attention_mask, padded.attention_mask)


@pytest.mark.slow
def test_a_real_encoder_is_packed_exactly(minilm):
    model = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=1)
    disable_dropout(model)
    prepare_for_scoring(model)
    batch = flat_batch(forest(), "packed", causal=False)
    assert_equal(rewards_and_gradients(model, batch.tokens), rewards_and_gradients(model, padded_tokens(batch, 0)))


def test_bf16_autocast_stays_within_its_rounding(tokenizer, tmp_path):
    """Flat and padded differ by no more than bf16 does from fp32."""
    rows, runs = kwise_rows(8), {}
    for layout, bf16 in itertools.product(("padded", "auto"), (False, True)):
        trainer = trainer_for(make_model(), tokenizer, tmp_path, layout=layout, bf16=bf16)
        runs[layout, bf16] = torch.tensor(trainer.predict(rows).predictions).nan_to_num()
    rounding = (runs["padded", True] - runs["padded", False]).abs().max()
    assert 0 < rounding < 0.1
    assert (runs["auto", True] - runs["auto", False]).abs().max() < 2 * rounding


def test_dropout_drops_differently_in_every_copy_of_a_prompt(tokenizer, tmp_path):
    """Packed in training mode: with dropout on, two equal responses get different rewards (a shared one would not)."""
    trainer = trainer_for(make_model("gpt2", resid_pdrop=0.5), tokenizer, tmp_path, disable_dropout=False)
    batch = trainer.data_collator.batch([tree_of([[5, 6, 7, 8], [5, 6, 7, 8]])]).tokens
    rewards = score(trainer.model.train(), batch)
    assert rewards[0] != rewards[1]
    assert torch.equal(*score(trainer.model.eval(), batch).split(1))


def test_a_layer_that_does_not_call_the_attention_function_is_noticed():
    model = model_for("llama")
    batch = flat_batch(forest(longest=20)).tokens
    layer = model.model.layers[0].self_attn
    layer.forward = lambda hidden_states, **kwargs: (hidden_states, None)
    with pytest.raises(Refused, match="1 of its 2 layers call the attention function"):
        score(model, batch)


def test_calls_without_a_plan_are_the_models_own(tokenizer, tmp_path):
    """After flat training the same object scores padded rows, also on its own and as a copy."""
    trainer = trainer_for(make_model("qwen3 sliding"), tokenizer, tmp_path, kwise_rows(8), max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    rows = vars(Padded.of([[1, 70, 71, 72, 2], [1, 80, 2]], tokenizer.pad_token_id))
    expected = saved(**rows).logits
    twin = copy.deepcopy(trainer.model)
    assert torch.allclose(trainer.model.eval()(**rows).logits, expected, atol=1e-5)
    for parameter in trainer.model.parameters():
        parameter.data.zero_()
    assert torch.allclose(twin.eval()(**rows).logits, expected, atol=1e-5)
    batch = flat_batch(forest(longest=20)).tokens
    assert score(twin, batch).abs().max() > 0.1  # nothing of the copy runs on the original's weights


def test_best_of_n_prompts_are_scored_once_per_response(tokenizer, tmp_path):
    """Sixteen answers to one prompt: rewards as padded, the prompt's tokens computed once."""
    rows = Dataset.from_list(
        [{"prompt": "a long question " * 9, "responses": [f"answer {n}" for n in range(16)], "scores": list(range(16))}]
    )
    flat, padded = (trainer_for(make_model(), tokenizer, tmp_path, layout=x) for x in ("auto", "padded"))
    got, expected = flat.predict(rows).predictions, padded.predict(rows).predictions
    assert torch.allclose(torch.tensor(got), torch.tensor(expected), atol=1e-5)
    computed = [next(iter(t.get_test_dataloader(rows))).tokens.input_ids.numel() for t in (flat, padded)]
    assert computed[0] < computed[1] / 5


def test_a_padding_token_inside_a_text_has_roberta_count_as_it_does_padded():
    model = model_for("roberta")
    trees = [tree_of([[5, 0, 6, 7], [8, 9]]), tree_of([[0, 3], [4]])]
    batch = flat_batch(trees, "packed", causal=False)
    ours, padded = (rewards_and_gradients(model, tokens)[0] for tokens in (batch.tokens, padded_tokens(batch, 0)))
    assert torch.allclose(ours, padded, atol=1e-5)
