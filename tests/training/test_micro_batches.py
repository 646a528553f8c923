"""Micro-batches change memory and nothing else; layouts change speed and nothing else."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import gradients, kwise_rows, make_model, make_pairs, trainer_for

from rmlab.losses import LOSSES, Preferences
from rmlab.scoring.batch import parts_of

TERMS = {"bradley_terry": {"margin": 0.5}, "center": {"weight": 0.1}}


@pytest.mark.parametrize("weighting", ["pair", "prompt"])
@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_gradients_are_exact_under_any_split_into_micro_batches(size, weighting, tokenizer, tmp_path):
    """K-wise rows, so that micro-batches hold different numbers of pairs; the whole step is the reference."""
    rows = kwise_rows()
    options = {"train_sampling_strategy": "sequential", "pair_weighting": weighting, "loss": TERMS}
    whole = trainer_for(make_model(), tokenizer, tmp_path, rows, per_device_train_batch_size=9, **options)
    split = trainer_for(
        make_model(),
        tokenizer,
        tmp_path,
        rows,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=math.ceil(9 / size),
        **options,
    )
    (whole_loss, whole_grads), (split_loss, split_grads) = gradients(whole), gradients(split)
    assert split_loss.item() == pytest.approx(whole_loss.item(), rel=1e-5)
    scale = max(g.abs().max().item() for g in whole_grads.values())
    for name, gradient in whole_grads.items():
        assert torch.allclose(gradient, split_grads[name], atol=2e-6 * scale, rtol=0), name


def test_the_step_loss_is_the_mean_over_pairs_or_over_prompts(tokenizer, tmp_path):
    """InstructGPT's 1 / C(K, 2): written out from the rewards."""
    rows = kwise_rows(4)
    for weighting in ("pair", "prompt"):
        trainer = trainer_for(
            make_model(),
            tokenizer,
            tmp_path,
            rows,
            per_device_train_batch_size=4,
            pair_weighting=weighting,
            prompt_overlap="allow",
        )
        rewards = trainer.predict(rows).predictions
        per_prompt = []
        for row, r in zip(rows, rewards, strict=True):
            losses = []
            for i, j in itertools.combinations(range(len(row["scores"])), 2):
                gap, difference = float(r[i] - r[j]), row["scores"][i] - row["scores"][j]
                p = 0.5 if difference == 0 else float(difference > 0)
                losses.append(p * math.log1p(math.exp(-gap)) + (1 - p) * math.log1p(math.exp(gap)))
            per_prompt.append(losses)
        means = [sum(x) / len(x) for x in per_prompt]
        pooled = [x for losses in per_prompt for x in losses]
        expected = sum(means) / len(means) if weighting == "prompt" else sum(pooled) / len(pooled)
        loss, _ = gradients(trainer)
        assert loss.item() == pytest.approx(expected, abs=1e-5)
        assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(expected, abs=1e-5)


def test_a_term_of_one_value_per_response_is_averaged_over_responses(tokenizer, tmp_path):
    @LOSSES.register
    def squares(preferences: Preferences) -> torch.Tensor:
        """r^2 per response."""
        return preferences.rewards.square()

    try:
        rows = kwise_rows(6)
        trainer = trainer_for(
            make_model(), tokenizer, tmp_path, rows, per_device_train_batch_size=4, gradient_accumulation_steps=2,
            loss={"squares": {"weight": 2.0}},
        )  # fmt: skip
        rewards = trainer.predict(rows).predictions
        loss, _ = gradients(trainer)
        assert loss.item() == pytest.approx(2 * np.nanmean(rewards**2), rel=1e-5)
    finally:
        LOSSES._functions.pop("squares")


@pytest.mark.parametrize("kind", ["qwen3", "bert"])
@pytest.mark.slow
def test_two_hundred_steps_padded_and_flat_stay_together(kind, tokenizer, tmp_path):
    curves = {}
    for layout in ("padded", "auto"):
        options = {"max_steps": 200, "logging_steps": 1, "learning_rate": 1e-4, "layout": layout}
        trainer = trainer_for(make_model(kind), tokenizer, tmp_path, kwise_rows(60), **options)
        trainer.train()
        curves[layout] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(curves["auto"]) == 200
    assert curves["auto"] == pytest.approx(curves["padded"], abs=1e-4)
    assert sum(curves["auto"][-15:]) < sum(curves["auto"][:15])


@pytest.mark.parametrize("layout", ["padded", "auto"])
@pytest.mark.parametrize("budget", [1, 60, 200, 10**6])
def test_a_token_budget_changes_memory_and_nothing_else(budget, layout, tokenizer, tmp_path):
    rows = kwise_rows(9)
    options = {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 9, "layout": layout}
    whole = trainer_for(make_model(), tokenizer, tmp_path, rows, **options)
    cut = trainer_for(make_model(), tokenizer, tmp_path, rows, tokens_per_batch=budget, **options)
    (whole_loss, whole_grads), (cut_loss, cut_grads) = gradients(whole), gradients(cut)
    assert cut_loss.item() == pytest.approx(whole_loss.item(), rel=1e-5)
    scale = max(g.abs().max().item() for g in whole_grads.values())
    for name, gradient in whole_grads.items():
        assert torch.allclose(gradient, cut_grads[name], atol=2e-6 * scale, rtol=0), name
    parts = parts_of(next(iter(cut.get_train_dataloader())))
    assert sum(map(len, parts)) == 9
    for part in parts:
        assert part.tokens.input_ids.numel() <= budget or len(part) == 1
    assert len(parts) == {1: 9, 10**6: 1}.get(budget, len(parts))
    assert cut.evaluate(rows.map(lambda r: {"prompt": f"other {r['prompt']}"}))["eval_comparisons"] == 9


def test_a_resumed_run_under_a_budget_takes_the_same_steps(tokenizer, tmp_path):
    options = {"max_steps": 6, "logging_steps": 1, "tokens_per_batch": 60, "learning_rate": 1e-3}
    whole = trainer_for(make_model(), tokenizer, tmp_path / "a", kwise_rows(12), **options)
    whole.train()
    saving = {**options, "save_strategy": "steps", "save_steps": 3}
    trainer_for(make_model(), tokenizer, tmp_path / "b", kwise_rows(12), **saving).train()
    again = trainer_for(make_model(), tokenizer, tmp_path / "b", kwise_rows(12), **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-3"))
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (whole, again)]
    assert losses[0] == losses[1]


def test_training_metrics_are_over_the_preferences_since_the_last_log(tokenizer, tmp_path):
    """Zero learning rate: what is logged must equal what the rewards give, with a short last micro-batch."""
    rows = make_pairs(10)
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, rows, per_device_train_batch_size=4, gradient_accumulation_steps=3,
        learning_rate=0.0, logging_steps=1, loss=TERMS,
    )  # fmt: skip
    trainer.train()
    log = trainer.state.log_history[0]
    rewards = trainer.predict(rows).predictions
    gap = rewards[:, 0] - rewards[:, 1]
    assert log["accuracy"] == pytest.approx((gap > 0).mean())
    assert log["gap_mean"] == pytest.approx(gap.mean(), abs=1e-5)
    assert log["reward_std"] == pytest.approx(rewards.std(), abs=1e-5)
    assert log["chosen_mean"] == pytest.approx(rewards[:, 0].mean(), abs=1e-5)
    bt, center = np.log1p(np.exp(-(gap - 0.5))).mean(), (rewards.sum(1) ** 2).mean()
    assert log["loss_bradley_terry"] == pytest.approx(bt, abs=1e-5)
    assert log["loss_center"] == pytest.approx(center, abs=1e-5)
    assert log["loss"] == pytest.approx(bt + 0.1 * center, abs=1e-5)


def test_logged_terms_add_up_to_the_loss_after_a_short_step(tokenizer, tmp_path):
    """10 rows in micro-batches of 4, two a step: the second step of an epoch has one micro-batch."""
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, make_pairs(10), gradient_accumulation_steps=2, learning_rate=0.0,
        logging_steps=2, loss=TERMS,
    )  # fmt: skip
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(log["loss_bradley_terry"] + 0.1 * log["loss_center"], rel=1e-5)
