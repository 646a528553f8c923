"""A preference of weight 2 counts as that preference twice, however the step is split."""

import pytest
import torch
from conftest import kwise_rows, make_model, make_pairs, trainer_for
from datasets import Dataset, concatenate_datasets

LOSS = {"bradley_terry": {"margin": 0.0}, "center": {"weight": 0.1}, "l2": {"weight": 0.05}}


def trained(tokenizer, tmp_path, rows, loss=LOSS, **options):
    """(what a step over all rows moves the weights to, its logged loss)."""
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, rows, loss=loss, max_steps=1, optim="sgd", learning_rate=0.01,
        max_grad_norm=0.0, logging_steps=1, train_sampling_strategy="sequential", **options,
    )  # fmt: skip
    trainer.train()
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    return weights, trainer.state.log_history[0]["loss"]


def weighed(rows, weights):
    return Dataset.from_list([{**row, "weight": weight} for row, weight in zip(rows, weights, strict=True)])


@pytest.mark.parametrize(
    ("kind", "weighting", "loss"),
    [
        ("pairs", "pair", LOSS),
        ("k-wise", "pair", LOSS),
        ("k-wise", "prompt", LOSS),
        ("k-wise", "pair", {"tied_dropped": {}, "plackett_luce": {}}),  # a number of the step, and of comparisons
    ],
)
def test_weight_two_is_the_preference_twice_under_any_split(tokenizer, tmp_path, kind, weighting, loss):
    rows = make_pairs(4) if kind == "pairs" else kwise_rows(4)
    twice = concatenate_datasets([rows, rows.select([1, 2])])
    options = {"pair_weighting": weighting, "duplicates": "keep", "loss": loss}
    expected, mean = trained(tokenizer, tmp_path, twice, per_device_train_batch_size=6, **options)
    plain, _ = trained(tokenizer, tmp_path, rows, per_device_train_batch_size=4, **options)
    assert not torch.allclose(expected, plain, atol=1e-6)
    given = weighed(rows, [1, 2, 2.0, 1])
    for split in (
        {"per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 4, "tokens_per_batch": 60},
    ):
        found, said = trained(tokenizer, tmp_path, given, **split, **options)
        assert torch.allclose(found, expected, atol=1e-6)
        assert said == pytest.approx(mean, rel=1e-5)


def test_weight_zero_is_no_preference(tokenizer, tmp_path):
    rows = make_pairs(4)
    found, _ = trained(tokenizer, tmp_path, weighed(rows, [1, 0, 1, 0]), per_device_train_batch_size=4)
    expected, _ = trained(tokenizer, tmp_path, rows.select([0, 2]), per_device_train_batch_size=2)
    assert torch.allclose(found, expected, atol=1e-6)
