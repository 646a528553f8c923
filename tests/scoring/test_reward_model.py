"""Rows of any format, scored: the same rewards as in training and plain transformers, whatever the batches."""

import itertools
import random

import numpy as np
import pytest
import torch
from conftest import kwise_rows, make_model, make_pairs, rewards_of, trainer_for
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rmlab import RewardModel, UserError
from rmlab.scoring import windows
from rmlab.scoring.scorer import Scorer

KINDS = ("llama", "qwen3", "gemma2", "bert", "modernbert", "gpt2")


def saved(kind, tokenizer, place, **options):
    """The folder of a random model with its tokenizer."""
    make_model(kind, **options).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


def by_transformers(folder, texts):
    """Rewards of whole texts, one by one, as a user of plain transformers computes them; no padding at all."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return [model(**tokenizer(text, return_tensors="pt")).logits.item() for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_are_those_of_training_of_plain_transformers_and_of_the_adapter(kind, tokenizer, tmp_path):
    """One set of weights, four ways to its rewards."""
    rows = make_pairs(9, seed=4)
    attention = {"attn_implementation": "eager"} if kind == "gemma2" else {}
    base = saved(kind, tokenizer, tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(base, **attention)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, lora_dropout=0.1)
    if kind == "gpt2":
        config.fan_in_fan_out = True
    trainer = trainer_for(model, tokenizer, tmp_path, train=rows, peft_config=config)
    expected = rewards_of(trainer, rows).numpy()
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    trainer.model.save_pretrained(str(adapter), save_embedding_layers=False)
    tokenizer.save_pretrained(str(adapter))
    trainer.model.merge_and_unload().save_pretrained(str(merged))
    tokenizer.save_pretrained(str(merged))
    plain = [f"{r['prompt']}{r[side]}{tokenizer.eos_token}" for r in rows for side in ("chosen", "rejected")]
    found = {
        "adapter": RewardModel(str(adapter)).score(rows),
        "merged": RewardModel(str(merged)).score(rows),
        "transformers": np.array(by_transformers(str(merged), plain)).reshape(-1, 2),
    }
    for name, rewards in found.items():
        assert rewards == pytest.approx(expected, abs=1e-5 * max(1.0, float(np.abs(expected).max()))), name


# ---- the same whatever the batches ----

ROWS = [*kwise_rows(9), *make_pairs(9), {"prompt": "alone ", "response": "once"}]


@pytest.mark.parametrize("kind", ["qwen3", "bert", "bloom"])
@pytest.mark.parametrize(("tokens", "rows", "characters"), [(1, 512, 10**6), (150, 3, 100), (10**6, 1, 10**6)])
def test_rewards_do_not_depend_on_batches_or_windows(kind, tokens, rows, characters, tokenizer, tmp_path, monkeypatch):
    """bloom is scored in padded rows, bert packed; with one token per forward every response has its own."""
    folder = saved(kind, tokenizer, tmp_path)
    expected = RewardModel(folder).score(ROWS)
    monkeypatch.setattr(windows, "WINDOW", rows)
    monkeypatch.setattr(windows, "CHARACTERS", characters)
    found = RewardModel(folder, tokens_per_batch=tokens).score(ROWS)
    assert found.shape == (len(ROWS), 5)
    assert (
        np.isnan(found).sum() == np.isnan(expected).sum() == sum(5 - k for k in [2, 3, 4, 5, 2, 3, 4, 5, 2]) + 9 * 3 + 4
    )
    assert np.allclose(found, expected, atol=1e-5, rtol=0, equal_nan=True)


def test_answers_cost_their_prompt_once_and_too_many_are_cut_into_forwards(tokenizer, tmp_path, monkeypatch):
    """No forward computes more than it was told to, however many answers a prompt has."""
    model = RewardModel(saved("qwen3", tokenizer, tmp_path), tokens_per_batch=200)
    row = {"prompt": "a long question " * 10, "responses": [f"answer {n}" for n in range(60)]}
    (tree,) = trees_of(model, row)
    sizes = []
    monkeypatch.setattr(model.collator, "batch", lambda trees, batch=model.collator.batch: seen(batch(trees), sizes))
    rewards = model.score([row])[0]
    assert len(rewards) == 60
    assert max(sizes) <= 200 < sum(sizes)
    assert sum(sizes) < 4 * tree.tokens < len(tree.prefix) * 60  # with the proof
    alone = [model.score([{**row, "responses": [r]}])[0] for r in row["responses"][:3]]
    assert rewards[:3] == pytest.approx(alone, abs=1e-5)


def trees_of(model, row):
    (comparisons,) = windows.blocks([row], "data", 0)
    return model._window(comparisons, texts=False).trees


def seen(batch, sizes):
    sizes.append(batch.tokens.input_ids.numel())
    return batch


def test_dropout_of_a_model_in_memory_is_off_and_the_model_is_left_as_it_was(tokenizer):
    model = make_model("gpt2")
    model.train()
    model.transformer.h[0].eval()  # a part that somebody froze
    modes = [module.training for module in model.modules()]
    scorer = RewardModel.of(model, tokenizer)
    assert scorer.scorer.layout == "shared_prefix"
    one, other = scorer.score(ROWS), scorer.score(ROWS)
    assert np.array_equal(one, other, equal_nan=True)
    assert [module.training for module in model.modules()] == modes
    assert any(module.p > 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))


def test_a_stream_is_read_a_window_ahead_and_no_further(tokenizer, monkeypatch):
    monkeypatch.setattr(windows, "WINDOW", 4)
    read = itertools.count()
    rows = ({"prompt": "q ", "response": f"a {next(read)}"} for _ in range(10**9))
    first = next(RewardModel.of(make_model(), tokenizer).scored(rows, "a stream"))
    assert first.id == "0"
    assert len(first.rewards) == 1
    assert next(read) <= 12


def test_loading_a_model_changes_nothing_of_what_a_script_draws(tokenizer, tmp_path):
    folder = saved("qwen3", tokenizer, tmp_path)

    def draws(load):
        random.seed(5), np.random.seed(5), torch.manual_seed(5)
        if load:
            RewardModel(folder)
        return random.random(), np.random.random(), torch.rand(1).item()

    assert draws(load=True) == draws(load=False)


# ---- rows that are too long, and others that cannot be ----


@pytest.mark.parametrize("kind", ["gpt2", "roberta", "qwen3"])
def test_long_rows_lose_the_beginning_of_their_prompt_and_are_counted(kind, tokenizer, tmp_path, capsys):
    """auto: 512 positions, of RoBERTa too, which counts from 1."""
    model = RewardModel(saved(kind, tokenizer, tmp_path))
    limit = model.max_length
    assert limit == (513 if kind == "roberta" else 512)
    short = {"prompt": "w " * 20, "response": "yes"}
    long = {"prompt": "x y z " * 400, "response": "yes"}
    (tree,) = trees_of(model, long)
    (ids,) = tree.responses
    assert len(ids) == limit
    end = tokenizer(long["prompt"] + "yes", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    assert ids == [tokenizer.bos_token_id, *end[1 - limit :]]
    assert np.isfinite(model.score([short, long])).all()
    assert f"1 of 2 rows are longer than {limit} tokens and were cut" in capsys.readouterr().out
    strict = RewardModel(str(tmp_path), overlong="error")
    with pytest.raises(UserError, match=r"the data row 1 \(counting from 0\): \d+ tokens, \d+ are read"):
        strict.score([short, long])


def test_an_answer_alone_that_is_too_long_loses_its_end_as_beside_a_short_one(tokenizer):
    """What it is worth does not depend on whether its prompt has other answers."""
    model = RewardModel.of(make_model(), tokenizer, max_length=24)
    row = {"prompt": "tell me a story:", "responses": [" a b c d" * 20, " no"]}
    together = model.score([row])[0]
    assert model.score([{**row, "responses": row["responses"][:1]}]) == pytest.approx(together[:1], abs=1e-5)
    assert model.score([{**row, "responses": row["responses"][:1] * 2}])[0] == pytest.approx(together[[0, 0]], abs=1e-5)


def test_rewards_that_are_no_numbers_are_refused(tokenizer):
    model = make_model()
    model.score.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"the data row 0 .*: the reward is \[nan.* no finite number"):
        RewardModel.of(model, tokenizer).score(make_pairs(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 600}, "max_length=600 is beyond the 512 positions of"),
        ({"max_length": 0}, "max_length is 0; it must be at least 1"),
        ({"overlong": "drop"}, "overlong is 'drop'"),
        ({"tokens_per_batch": 0}, "tokens_per_batch is 0"),
        ({"normalise": True}, "holds no rmlab_reward.json, by which rewards are normalised"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message, tokenizer, tmp_path):
    folder = saved("gpt2", tokenizer, tmp_path)
    with pytest.raises(UserError, match=message):
        RewardModel(folder, **options)


def test_long_rows_make_small_windows(monkeypatch):
    """So that memory holds few of them, whatever they are; and the same ones when they are begun in between."""
    monkeypatch.setattr(windows, "CHARACTERS", 100)
    monkeypatch.setattr(windows, "WINDOW", 4)
    rows = [{"prompt": "p" * 10, "responses": ["r" * 5] * n} for n in (1, 2, 3, 9, 1, 1, 1, 1, 2)]
    found = [[n for _, n, _ in block] for block in windows.blocks(rows, "data", 0)]
    assert found == [[0, 1, 2], [3], [4, 5, 6, 7], [8]]
    again = [[n for _, n, _ in block] for block in windows.blocks(rows[4:], "data", 4)]
    assert again == found[2:]


def test_scored_rows_know_their_texts(tokenizer):
    """What metrics and the report want; token ids have none."""
    rows = [{"prompt": "Name a river.", "responses": ["# The Danube", "no"], "scores": [1, 0]}, {"input_ids": [5, 6]}]
    texts, ids = RewardModel.of(make_model(), tokenizer).scored(rows, "data")
    assert texts.excerpts == ["Name a river.", "# The Danube", "no"]
    assert len(texts.style) == 2
    assert texts.style[0] != texts.style[1]
    assert (ids.excerpts, ids.style) == ([], [])
    assert (texts.better, texts.worse, texts.gold) == ([0], [1], [1.0, 0.0])


@pytest.mark.parametrize("where", ["prove", "__call__"])
def test_a_forward_that_has_no_room_is_a_sentence(where, tokenizer, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Scorer, where, full)
    with pytest.raises(UserError, match="has no memory for 4096 tokens in one forward; lower tokens_per_batch"):
        RewardModel.of(make_model(), tokenizer).score(make_pairs(2))
