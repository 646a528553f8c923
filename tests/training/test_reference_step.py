"""Optimizer steps against a reference that shares no code with rmlab: each response alone, the formulas of the papers.

-log sigma(r_w - r_l - margin * strength), InstructGPT eq. 1 (2203.02155) and Llama 2 eq. 2 (2307.09288); with a
probability p the cross-entropy -p log sigma(z) - (1 - p) log sigma(-z); w (r_w + r_l)^2, Eisenstein et al. eq. 2
(2312.09244). The mean is over pairs, or over prompts of the mean within each (InstructGPT's 1 / C(K, 2)).
"""

import itertools
import math

import pytest
import torch
from conftest import make_model, trainer_for
from datasets import Dataset

RATE = 0.05


def rows(kind):
    """Seven comparisons of K = 2, 3 and 5; preferences as (better, worse, strength, probability)."""
    made = []
    for n, k in enumerate([2, 3, 5, 2, 5, 3, 2]):
        preferences = []
        for i, j in itertools.combinations(range(k), 2):
            strength, probability = 1.0, 1.0
            if kind in ("strengths", "all"):
                strength = 0.25 * ((i + 2 * j + n) % 5) - 0.25
            if kind in ("soft", "all"):
                probability = [1.0, 0.9, 0.7][(i + j + n) % 3]
            if kind in ("ties", "all") and (i + j + n) % 4 == 0:
                strength, probability = 0.0, 0.5
            preferences.append((*((i, j) if (i + n) % 2 else (j, i)), strength, probability))
        responses = [f"answer {'more ' * ((3 * i + n) % 7)}{i} of {n}" for i in range(k)]
        made.append((f"question {n} {'so ' * (n % 4)}: ", responses, preferences))
    return made


def dataset(made):
    names = ("better", "worse", "strength", "probability")
    return Dataset.from_list(
        [
            {"prompt": p, "responses": r, "preferences": [dict(zip(names, q, strict=True)) for q in preferences]}
            for p, r, preferences in made
        ]
    )


def reward(model, tokenizer, prompt, response):
    """Of one response alone, at its last token, by the model's own forward."""
    ids = [tokenizer.bos_token_id, *tokenizer(prompt + response, add_special_tokens=False)["input_ids"]]
    ids.append(tokenizer.eos_token_id)
    return model(input_ids=torch.tensor([ids])).logits[0, 0]


def log_sigma(x):
    return -torch.log1p(torch.exp(-x))


def reference(model, tokenizer, made, margin, center, weighting):
    """The loss of one optimizer step over these comparisons."""
    per_prompt = []
    for prompt, responses, preferences in made:
        r = [reward(model, tokenizer, prompt, response) for response in responses]
        losses = []
        for better, worse, strength, p in preferences:
            z = r[better] - r[worse] - margin * strength
            loss = -p * log_sigma(z) - (1 - p) * log_sigma(-z)
            losses.append(loss + center * (r[better] + r[worse]) ** 2)
        per_prompt.append(torch.stack(losses))
    if weighting == "prompt":
        return torch.stack([losses.mean() for losses in per_prompt]).mean()
    return torch.cat(per_prompt).mean()


def descended(tokenizer, steps, margin, center, weighting):
    """(losses, weights) after plain gradient descent, a step per list of comparisons."""
    model, losses = make_model().eval(), []
    for made in steps:
        model.zero_grad()
        loss = reference(model, tokenizer, made, margin, center, weighting)
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= RATE * parameter.grad
    return losses, dict(model.named_parameters())


def assert_trains_like_the_reference(
    tokenizer, tmp_path, data, steps, margin=0.0, center=0.0, weighting="pair", **options
):
    loss = {"bradley_terry": {"margin": margin}, **({"center": {"weight": center}} if center else {})}
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, data, loss=loss, pair_weighting=weighting, optim="sgd", learning_rate=RATE,
        lr_scheduler_type="constant", max_grad_norm=0.0, logging_steps=1, max_steps=len(steps),
        train_sampling_strategy="sequential", **options,
    )  # fmt: skip
    trainer.train()
    expected, weights = descended(tokenizer, steps, margin, center, weighting)
    found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert found == pytest.approx(expected, abs=1e-5)
    assert all(math.isfinite(loss) for loss in expected)
    for name, parameter in trainer.model.named_parameters():
        assert torch.allclose(parameter, weights[name], atol=1e-5), name
    return trainer


TERMS = {
    "plain": ("all", {}),
    "margin": ("strengths", {"margin": 1.0}),
    "half a margin, ties": ("ties", {"margin": 0.5}),
    "soft labels, centered": ("soft", {"center": 0.05}),
    "all of it": ("all", {"margin": 1.5, "center": 0.05}),
}
SPLITS = {
    "one batch": {"per_device_train_batch_size": 7},
    "4 + 3": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "3 + 3 + 1": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3},
    "by tokens": {"per_device_train_batch_size": 7, "tokens_per_batch": 150},
    "3 + 3 + 1, by tokens": {
        "per_device_train_batch_size": 3, "gradient_accumulation_steps": 3, "tokens_per_batch": 60,
    },
}  # fmt: skip
LAYOUTS = ["padded", "packed", "shared_prefix"]
WEIGHTINGS = ["pair", "prompt"]


def check(terms, split, layout, weighting, tokenizer, tmp_path):
    kind, loss = TERMS[terms]
    made = rows(kind)
    trainer = assert_trains_like_the_reference(
        tokenizer, tmp_path, dataset(made), [made], weighting=weighting, layout=layout, **loss, **SPLITS[split]
    )
    assert trainer.layout == layout


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_of_everything_at_once(layout, weighting, tokenizer, tmp_path):
    check("all of it", "3 + 3 + 1, by tokens", layout, weighting, tokenizer, tmp_path)


@pytest.mark.parametrize(("terms", "split"), zip(TERMS, SPLITS, strict=True))
def test_a_step_of_each_loss_however_it_is_split(terms, split, tokenizer, tmp_path):
    check(terms, split, "shared_prefix", "pair", tokenizer, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("terms", TERMS)
def test_every_combination(terms, split, layout, weighting, tokenizer, tmp_path):
    check(terms, split, layout, weighting, tokenizer, tmp_path)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_step_of_one_k_alone(k, tokenizer, tmp_path):
    made = [row for row in rows("all") if len(row[1]) == k]
    assert_trains_like_the_reference(
        tokenizer, tmp_path, dataset(made), [made], margin=1.0, center=0.05, per_device_train_batch_size=len(made)
    )


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("batch", "accumulation", "budget"), [(2, 2, None), (3, 1, None), (7, 1, 100), (4, 2, 60)])
def test_steps_of_a_stream_are_of_the_rows_that_come_next_also_over_its_end(
    batch, accumulation, budget, weighting, tokenizer, tmp_path
):
    made = rows("all")
    size = batch * accumulation
    steps = [[made[(n * size + i) % len(made)] for i in range(size)] for n in range(4)]
    assert_trains_like_the_reference(
        tokenizer, tmp_path, dataset(made).to_iterable_dataset(), steps, margin=1.0, center=0.05,
        per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, weighting=weighting,
        tokens_per_batch=budget,
    )  # fmt: skip


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("batch", "accumulation"), [(2, 2), (3, 1)])
def test_steps_of_a_set_end_with_its_last_rows(batch, accumulation, weighting, tokenizer, tmp_path):
    made = rows("all")
    size = batch * accumulation
    epoch = [made[start : start + size] for start in range(0, len(made), size)]
    assert_trains_like_the_reference(
        tokenizer, tmp_path, dataset(made), 2 * epoch, margin=1.0, center=0.05, per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation, weighting=weighting,
    )  # fmt: skip
