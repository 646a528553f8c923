"""TRL's RewardTrainer as the oracle: the same batches give the same rewards, losses and gradients."""

import pytest
import torch
from conftest import make_model, make_pairs
from datasets import Dataset

from rmlab import RewardConfig, RewardTrainer

trl = pytest.importorskip("trl", reason="TRL is a development dependency, the parity oracle")

SHARED = {
    "report_to": "none",
    "per_device_train_batch_size": 4,
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "max_length": None,
    "train_sampling_strategy": "sequential",
    "lr_scheduler_type": "constant",
}
CASES = {
    "plain": ({}, {"bradley_terry": {"margin": 0.0}}, False),
    "margin": ({}, {"bradley_terry": {"margin": 1.0}}, True),
    "centered": (
        {"center_rewards_coefficient": 0.01},
        {"bradley_terry": {"margin": 0.0}, "center": {"weight": 0.01}},
        False,
    ),
    "margin+centered": (
        {"center_rewards_coefficient": 0.01},
        {"bradley_terry": {"margin": 1.0}, "center": {"weight": 0.01}},
        True,
    ),
}


def rows(tokenizer, margin: bool) -> Dataset:
    """Pairs as tokenised rows, so that both trainers see the same ids; both accept chosen_ids and rejected_ids."""
    pairs = make_pairs(12)
    data = {
        f"{side}_ids": [tokenizer(r["prompt"] + r[side] + "<|eos|>")["input_ids"] for r in pairs]
        for side in ("chosen", "rejected")
    }
    if margin:
        data["margin"] = [0.1 * n for n in range(12)]
    return Dataset.from_dict(data)


def in_trls_order(rewards, batch):
    """All chosen, then all rejected; a flat row has the two of a pair side by side."""
    return torch.cat([rewards[batch.better], rewards[batch.worse]])


def both(tokenizer, tmp_path, case, kind="qwen3", layout="auto", **options):
    trl_options, loss, margin = CASES[case]
    data = rows(tokenizer, margin)
    theirs = trl.RewardTrainer(
        model=make_model(kind),
        args=trl.RewardConfig(
            output_dir=str(tmp_path), bf16=False, gradient_checkpointing=False, **{**SHARED, **trl_options, **options}
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )
    ours = RewardTrainer(
        model=make_model(kind),
        args=RewardConfig(output_dir=str(tmp_path), layout=layout, **{**SHARED, **options}),
        train_dataset=data,
        processing_class=tokenizer,
        loss=loss,
    )
    return theirs, ours


@pytest.mark.parametrize(("layout", "tolerance"), [("padded", 1e-6), ("auto", 1e-5)])
@pytest.mark.parametrize("kind", ["qwen3", "gpt2", "llama"])
@pytest.mark.parametrize("case", CASES)
def test_loss_gradients_and_rewards_equal_trls(case, kind, layout, tolerance, tokenizer, tmp_path):
    theirs, ours = both(tokenizer, tmp_path, case, kind, layout)
    for their_batch, our_batch in zip(theirs.get_train_dataloader(), ours.get_train_dataloader(), strict=True):
        assert layout != "padded" or torch.equal(their_batch["input_ids"], our_batch["input_ids"])
        results = []
        for trainer, batch in ((theirs, their_batch), (ours, our_batch)):
            trainer.model.train()
            trainer.model.zero_grad()
            loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
            loss.backward()
            rewards = outputs.logits.squeeze(-1) if trainer is theirs else in_trls_order(outputs["rewards"], batch)
            gradients = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
            results.append((loss.detach(), rewards.detach(), gradients))
        (their_loss, their_rewards, their_grads), (our_loss, our_rewards, our_grads) = results
        assert torch.allclose(their_loss, our_loss, atol=tolerance, rtol=0)
        assert torch.allclose(their_rewards, our_rewards, atol=tolerance, rtol=0)
        assert their_grads.keys() == our_grads.keys()
        largest = max(g.abs().max() for g in their_grads.values())
        for name, gradient in their_grads.items():
            assert torch.allclose(gradient, our_grads[name], atol=tolerance * max(1.0, largest.item()), rtol=0), name


@pytest.mark.parametrize("case", CASES)
def test_the_default_loss_is_trls(case, tokenizer, tmp_path):
    """Without `loss`, a margin column and center_rewards_coefficient mean what they mean in TRL."""
    options, loss, margin = CASES[case]
    trainer = RewardTrainer(
        model=make_model(),
        args=RewardConfig(output_dir=str(tmp_path), **SHARED, **options),
        train_dataset=rows(tokenizer, margin),
        processing_class=tokenizer,
    )
    got = {t.name: {"weight": t.weight, **t.function.keywords} for t in trainer.loss_terms}
    assert got == {name: {"weight": 1.0, **values} for name, values in loss.items()}


def test_whole_training_runs_agree(tokenizer, tmp_path):
    """Three epochs of optimizer steps: the loss curves and the weights stay together."""
    theirs, ours = both(tokenizer, tmp_path, "margin+centered", num_train_epochs=3)
    theirs.train()
    ours.train()
    curves = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (theirs, ours)]
    assert len(curves[0]) == 9
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)
    for (name, a), b in zip(theirs.model.named_parameters(), ours.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4), name


def test_the_collator_lays_pairs_out_as_trls(tokenizer):
    from trl.trainer.reward_trainer import DataCollatorForPreference

    from rmlab.data.config import Options
    from rmlab.data.prepare import tokenize
    from rmlab.scoring.collator import PreferenceCollator

    data = Dataset.from_dict({"chosen_ids": [[1, 2, 3], [6, 7]], "rejected_ids": [[4, 5], [8]], "margin": [0.1, 0.2]})
    theirs = DataCollatorForPreference(pad_token_id=0)(list(data))
    ours = PreferenceCollator(0)(list(tokenize(data, tokenizer, Options())))
    assert torch.equal(theirs["input_ids"], ours["input_ids"])
    assert torch.equal(theirs["attention_mask"], ours.tokens.attention_mask)
    assert torch.equal(theirs["margin"], ours.strength)
