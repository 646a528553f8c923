"""RewardTrainer: what users of Trainer and of TRL's RewardTrainer expect to work, works."""

import numpy as np
import pytest
import torch
from conftest import gradients, make_model, make_pairs, trainer_for
from datasets import Dataset

CHAT = {
    "prompt": [{"role": "user", "content": "hi"}],
    "chosen": [{"role": "assistant", "content": "hello"}],
    "rejected": [{"role": "assistant", "content": "go away"}],
}


FORMATS = {
    "text with prompt": {"prompt": "hi ", "chosen": "hello", "rejected": "go away"},
    "text without prompt": {"chosen": "hi hello", "rejected": "hi go away"},
    "messages with prompt": CHAT,
    "messages without prompt": {k: CHAT["prompt"] + CHAT[k] for k in ("chosen", "rejected")},
    "text prompt and messages": {"prompt": "hi", "chosen": CHAT["chosen"], "rejected": CHAT["rejected"]},
    "margin": {"prompt": "hi ", "chosen": "hello", "rejected": "go away", "margin": 2},
    "two scores": {"chosen": "hi hello", "rejected": "hi go", "score_chosen": 4.0, "score_rejected": 1.5},
    "chosen_ids": {"chosen_ids": [1, 70, 2], "rejected_ids": [1, 71, 2]},
    "chosen_input_ids": {"chosen_input_ids": [1, 70, 2], "rejected_input_ids": [1, 71, 2]},
    "graded": {"prompt": "hi ", "responses": ["a", "b", "c"], "scores": [1.0, 3.0, 3.0]},
    "ranked": {"prompt": "hi ", "responses": ["a", "b", "c"], "ranks": [1, 2, 3]},
    "labelled": {"prompt": "hi ", "responses": ["a", "b"], "label": 2},
    "voted": {"prompt": "hi ", "responses": ["a", "b"], "votes": [1, 1, 2]},
}


@pytest.mark.parametrize("name", FORMATS)
def test_trains_on_every_row_format_and_changes_every_weight(name, tokenizer, tmp_path):
    rows = Dataset.from_list([FORMATS[name]] * 6)
    trainer = trainer_for(make_model(), tokenizer, tmp_path, rows, learning_rate=1e-2, max_steps=2)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.state.log_history[-1]["train_loss"] > 0
    unchanged = [n for n, p in trainer.model.named_parameters() if torch.equal(before[n], p)]
    assert unchanged == []


def test_streams(tokenizer, tmp_path):
    stream = make_pairs(12).to_iterable_dataset()
    trainer = trainer_for(make_model(), tokenizer, tmp_path, stream, stream, max_steps=3)
    trainer.train()
    assert trainer.evaluate()["eval_preferences"] == 12


def test_tools_and_template_variables_reach_the_template(tokenizer, tmp_path):
    tokenizer.chat_template = "{{ tools | tojson }}{{ mood }}" + tokenizer.chat_template
    tool = {"type": "function", "function": {"name": "look_up", "description": "d", "parameters": {}}}
    rows = Dataset.from_list([{**CHAT, "tools": [tool], "chat_template_kwargs": {"mood": "bright"}}])
    trainer = trainer_for(make_model(), tokenizer, tmp_path, rows)
    text = tokenizer.decode(trainer.train_dataset[0]["prefix"])
    assert "look_up" in text
    assert "bright" in text


def test_gradient_checkpointing_and_offloading_change_nothing(tokenizer, tmp_path):
    rows = make_pairs(8)
    plain = gradients(trainer_for(make_model(), tokenizer, tmp_path, rows, per_device_train_batch_size=8))
    for option in ("gradient_checkpointing", "activation_offloading"):
        trainer = trainer_for(make_model(), tokenizer, tmp_path, rows, per_device_train_batch_size=8, **{option: True})
        if option == "gradient_checkpointing":
            trainer.model.gradient_checkpointing_enable()
        loss, grads = gradients(trainer)
        assert loss.item() == pytest.approx(plain[0].item())
        assert all(torch.allclose(g, plain[1][n], atol=1e-6) for n, g in grads.items())


def test_resume_gives_the_same_model(tokenizer, tmp_path):
    rows, options = make_pairs(16), {"save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}
    whole = trainer_for(make_model(), tokenizer, tmp_path / "a", rows, num_train_epochs=2, **options)
    whole.train()
    resumed = trainer_for(make_model(), tokenizer, tmp_path / "a", rows, num_train_epochs=2, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    for (name, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_padded_rows_are_scored_by_their_attention_mask(tokenizer, tmp_path):
    """Older scripts tokenise with padding="max_length": the pads are not part of the response."""
    bare = {"input_ids_chosen": [1, 70, 71, 2], "input_ids_rejected": [1, 80, 2]}
    padded = {k: v + [0] * 5 for k, v in bare.items()}
    padded |= {k.replace("input_ids", "attention_mask"): [1] * len(v) + [0] * 5 for k, v in bare.items()}
    trainer = trainer_for(make_model(), tokenizer, tmp_path)
    rewards = [trainer.predict(Dataset.from_list([row])).predictions for row in (bare, padded)]
    assert np.array_equal(*rewards)


# ---- the proof of the layout ----


@pytest.mark.parametrize("budget", [None, 60])
def test_the_layout_is_proved_once_before_training_with_the_longest_comparison(budget, tokenizer, tmp_path, capsys):
    rows = make_pairs(12).to_list()
    rows[9]["chosen"] += " a lot" * 40
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, Dataset.from_list(rows), make_pairs(24).select(range(18, 24)),
        tokens_per_batch=budget, max_steps=4, eval_strategy="steps", eval_steps=2,
    )  # fmt: skip
    proved, prove = [], trainer.scorer.prove
    trainer.scorer.prove = lambda model, batch, *rest: (
        proved.append((trainer.state.global_step, batch)) or prove(model, batch, *rest)
    )
    trainer.train()
    trainer.predict(make_pairs(3))
    ((step, batch),) = proved
    assert step == 0
    assert "9" in {c.id for c in batch.comparisons}
    assert len(batch) > 1 or budget
    printed = capsys.readouterr().out
    assert printed.count("layout shared_prefix: qwen3 is causal") == 1
    assert "in one batch, rewards within" in printed


def test_a_stream_is_proved_on_its_first_rows(tokenizer, tmp_path, capsys):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(12).to_iterable_dataset(), max_steps=2)
    trainer.train()
    assert capsys.readouterr().out.count("in one batch, rewards within") == 1
    assert trainer.scorer.is_proved
