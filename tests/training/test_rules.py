"""Rules that peers break, as far as only a trainer can keep them. Each docstring says which change makes it fail."""

import pytest
import torch
from conftest import ARCHITECTURES, make_model, make_pairs, rewards_of, trainer_for
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

TOLERANCE = 1e-5


def test_rule_1_pad_equal_to_eos_is_safe_in_training_and_in_what_is_saved(tokenizer, pairs, tmp_path):
    """Fails if ensure_pad_token leaves pad == eos: plain transformers then scores the token before EOS."""
    tokenizer.pad_token = tokenizer.eos_token
    trainer = trainer_for(make_model(), tokenizer, tmp_path)
    expected = rewards_of(trainer, pairs)[:, 0]
    trainer.save_model(str(tmp_path / "model"))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    saved = AutoTokenizer.from_pretrained(tmp_path / "model")
    texts = [r["prompt"] + r["chosen"] + "<|eos|>" for r in pairs]
    batch = saved(texts, padding=True, return_tensors="pt")
    assert torch.allclose(plain(**batch).logits.squeeze(-1), expected, atol=TOLERANCE)


def test_rule_2_the_loss_is_fp32_under_bf16(tokenizer, tmp_path):
    """Fails if Preferences carry bf16 rewards: the loss of a gap of 2^-9 would be exactly log 2."""
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(), bf16=True)
    batch = next(iter(trainer.get_train_dataloader()))
    with trainer.compute_loss_context_manager():
        loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert loss.dtype == outputs["rewards"].dtype == torch.float32


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_rule_6_scores_do_not_change_with_batch_size_or_padding(kind, tokenizer, tmp_path):
    """Fails if padding leaks into attention, positions or pooling."""
    pairs = make_pairs(13)
    model = make_model(kind)
    alone = rewards_of(trainer_for(model, tokenizer, tmp_path, per_device_eval_batch_size=1), pairs)
    together = rewards_of(trainer_for(model, tokenizer, tmp_path, per_device_eval_batch_size=13), pairs)
    wide = rewards_of(trainer_for(model, tokenizer, tmp_path, pad_to_multiple_of=64), pairs)
    assert alone.std() > 100 * TOLERANCE
    assert torch.allclose(alone, together, atol=TOLERANCE)
    assert torch.allclose(alone, wide, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_rule_6_scores_survive_save_and_reload(kind, tokenizer, tmp_path):
    """Fails if anything that the score depends on is not in the saved folder."""
    pairs = make_pairs(9)
    trainer = trainer_for(make_model(kind), tokenizer, tmp_path, make_pairs(8, seed=3), learning_rate=1e-3)
    trainer.train()
    before = rewards_of(trainer, pairs)
    trainer.save_model(str(tmp_path / "model"))
    again = trainer_for(str(tmp_path / "model"), None, tmp_path)
    assert torch.allclose(rewards_of(again, pairs), before, atol=TOLERANCE)


def test_rule_11_a_pipeline_on_the_saved_model_returns_the_raw_reward(tokenizer, pairs, tmp_path):
    """Fails if problem_type is not "regression": pipelines then print the sigmoid."""
    trainer = trainer_for(make_model(), tokenizer, tmp_path)
    expected = rewards_of(trainer, pairs)[:, 0]
    trainer.save_model(str(tmp_path / "model"))
    serve = pipeline("text-classification", str(tmp_path / "model"))
    got = [serve(r["prompt"] + r["chosen"] + "<|eos|>")[0]["score"] for r in pairs]
    assert got == pytest.approx(expected.tolist(), abs=TOLERANCE)
    assert min(got) < 0 or max(got) > 1, "the test needs a reward that no sigmoid can print"
