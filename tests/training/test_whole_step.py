"""Terms that are one number of an optimizer step: the same however it is split into parts."""

from dataclasses import replace

import pytest
import torch
from conftest import kwise_rows, make_model, trainer_for
from transformers import TrainerCallback

from rmlab.losses import Preferences, Term, build_loss
from rmlab.losses.reduce import Weights, term_means
from rmlab.losses.whole import joined, shares


def step(*counts):
    """Comparisons of so many responses each, every one better than the next."""
    torch.manual_seed(sum(counts))
    better = torch.tensor([sum(counts[:c]) + k for c, n in enumerate(counts) for k in range(n - 1)])
    prompt = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    one = torch.ones(len(better))
    return Preferences(torch.randn(sum(counts)), better, better + 1, one, one, prompt)


def drift(preferences):
    """The square of the mean reward."""
    return preferences.rewards.mean().square()


def likes_length(preferences):
    """The correlation of rewards and lengths."""
    return torch.corrcoef(torch.stack([preferences.rewards, preferences.columns["lengths"]]))[0, 1]


TERMS = [
    *build_loss({"bradley_terry": {"margin": 0.0}}),
    Term("drift", 0.5, drift, "step"),
    Term("likes_length", 0.3, likes_length, "step"),
]


def trained(tokenizer, tmp_path, loss=TERMS, **options):
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, kwise_rows(12), loss=loss, max_steps=2, optim="sgd", learning_rate=0.003,
        lr_scheduler_type="constant", max_grad_norm=0.0, train_sampling_strategy="sequential", logging_steps=1,
        **options,
    )  # fmt: skip
    trainer.train()
    logs = [{k: v for k, v in e.items() if k.startswith("loss")} for e in trainer.state.log_history if "loss" in e]
    return logs, torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_a_step_is_the_same_whole_in_micro_batches_and_in_parts(tokenizer, tmp_path):
    """Fails if a correlation is taken within each part, or its gradient lost, scaled or counted twice."""
    logs, weights = trained(tokenizer, tmp_path, per_device_train_batch_size=6)
    _, plain = trained(tokenizer, tmp_path, TERMS[:1], per_device_train_batch_size=6)
    assert not torch.allclose(weights, plain, atol=1e-4)
    for options in (
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
        {"per_device_train_batch_size": 6, "tokens_per_batch": 60},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "layout": "padded"},
    ):
        said, moved = trained(tokenizer, tmp_path, **options)
        assert torch.allclose(moved, weights, atol=2e-6)
        assert [{k: pytest.approx(v, abs=2e-5) for k, v in step.items()} for step in logs] == said


def test_the_first_pass_computes_as_training_does_after_an_evaluation_too(tokenizer, tmp_path):
    """Without the noise of training, each part would have the gradient of another step."""
    model, modes = make_model(), []

    class Marks(TrainerCallback):
        def on_evaluate(self, *arguments, **options):
            modes.append("evaluated")

    trainer = trainer_for(
        model, tokenizer, tmp_path, kwise_rows(8), kwise_rows(2, seed=3), loss=TERMS[:2], max_steps=2,
        per_device_train_batch_size=2, gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=1,
        prompt_overlap="allow", callbacks=[Marks()],
    )  # fmt: skip
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    trainer.train()
    assert modes[-7:-1] == ["evaluated", *[True] * 4, False]


def test_the_evaluation_loss_of_such_a_term_is_that_of_the_whole_set(tokenizer, tmp_path):
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, kwise_rows(4), kwise_rows(7, seed=3), loss=TERMS[1:2],
        prompt_overlap="allow", per_device_eval_batch_size=2,
    )  # fmt: skip
    metrics = trainer.evaluate()
    rewards = [r for c in trainer.evaluations["eval"].comparisons for r in c.rewards]
    assert metrics["eval_loss"] == pytest.approx(0.5 * (sum(rewards) / len(rewards)) ** 2, rel=1e-5)


def test_parts_are_joined_with_their_places():
    """Responses and prompts of the second part are counted on from those of the first."""
    parts = [step(2, 3), step(4)]
    whole = joined(parts)
    assert whole.gap.tolist() == [*parts[0].gap.tolist(), *parts[1].gap.tolist()]
    assert whole.prompt.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert whole.comparisons == 3


def test_shares_add_up_to_the_term_and_its_gradient():
    """(sum r / 11)^2 has the gradient 2 sum r / 121 in every reward."""
    parts = [step(2, 3), step(4), step(2)]
    outputs = [part.rewards[:, None].clone().requires_grad_() for part in parts]
    none = Weights(*[torch.zeros(0)] * 3)
    told = shares(TERMS[1:2], parts, lambda o, prompt: o[:, 0])
    values = [
        term_means(TERMS[1:2], replace(part, rewards=o[:, 0], outputs=o), none, torch.zeros(3), share)[0]
        for part, o, share in zip(parts, outputs, told, strict=True)
    ]
    sum(values).backward()
    total = sum(part.rewards.sum().item() for part in parts)
    assert sum(values).item() == pytest.approx((total / 11) ** 2, rel=1e-5)
    assert torch.cat(outputs).numel() == 11
    for o in outputs:
        assert o.grad.flatten().tolist() == pytest.approx([2 * total / 121] * len(o), rel=1e-5)
