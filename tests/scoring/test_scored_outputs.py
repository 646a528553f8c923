"""Rewards and outputs of heads that return several numbers: from a saved model, in files, and from features."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import make_model, make_pairs, trainer_for

from rmlab import RewardModel, UserError
from rmlab.commands.score import main
from rmlab.model.export import export
from rmlab.model.head_files import take
from rmlab.scoring.windows import pieces_of

HEADS = {
    "gaussian": {"gaussian": {}},
    "preference": {"preference": {"blocks": 2, "temperature": 0.1, "normalised": True}},
    "ordinal": {"ordinal": {"grades": [0, 1, 2]}},
}
POOLS = [
    {"prompt": f"question {n} ", "responses": [f"answer {i} {' more' * i}" for i in range(2 + n)]} for n in range(4)
]


def saved(kind, tokenizer, place, architecture="qwen3"):
    model = make_model(architecture)
    take(model, HEADS[kind], 0.5)
    export(model, tokenizer, place)
    return str(place)


def rewards_by_hand(kind, rows):
    """Of the outputs (K, D) of a comparison, in numpy, as docs/heads.md has them."""
    rows = np.asarray(rows, dtype=np.float64)
    if kind == "gaussian":
        return rows[:, 0]
    if kind == "ordinal":
        p = np.exp(rows - rows.max(1, keepdims=True))
        return p @ [0, 1, 2] / p.sum(1)
    a, b = rows[:, 0::2], rows[:, 1::2]
    return (a @ b.T - b @ a.T).sum(1) / 0.1 / len(rows)


@pytest.mark.parametrize("kind", HEADS)
def test_rewards_are_the_reduction_of_the_outputs_whatever_is_computed_together(kind, tokenizer, tmp_path):
    place = saved(kind, tokenizer, tmp_path / "model")
    model = RewardModel(place)
    scored = list(model.scored(POOLS, "pools"))
    assert [np.shape(one.outputs) for one in scored] == [(k, len(model.names)) for k in (2, 3, 4, 5)]
    for one in scored:
        assert one.rewards == pytest.approx(rewards_by_hand(kind, one.outputs), abs=1e-5)
    few = list(RewardModel(place, tokens_per_batch=16).scored(POOLS, "pools"))
    for one, other in zip(scored, few, strict=True):
        assert np.allclose(one.outputs, other.outputs, atol=1e-5)
        assert np.allclose(one.rewards, other.rewards, atol=1e-4)


def test_a_head_that_compares_is_given_whole_comparisons_and_refuses_a_response_alone(tokenizer, tmp_path):
    model = RewardModel(saved("preference", tokenizer, tmp_path / "model"), tokens_per_batch=8)
    (window,) = [model._window(some, False) for some in [[(c, n, "") for n, c in enumerate(comparisons())]]]
    assert len(window.pieces) == len(window.trees)
    assert len(pieces_of(window.trees[-1], model.collator)) > 1  # that it would be cut into
    with pytest.raises(UserError, match="the head `preference` compares responses, and has no reward for one alone"):
        list(model.scored([{"prompt": "a", "response": "b"}], "alone"))


def comparisons():
    from rmlab.data.candidates import to_candidates

    return [to_candidates(row, "") for row in POOLS]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_of_rewards_has_a_column_for_each_output(suffix, tokenizer, tmp_path):
    place = saved("gaussian", tokenizer, tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in POOLS))
    main([place, str(rows), "-o", str(tmp_path / f"out.{suffix}")])
    file = tmp_path / f"out.{suffix}"
    table = pq.read_table(file).to_pylist() if suffix == "parquet" else list(map(json.loads, file.open()))
    right = list(RewardModel(place).scored(POOLS, "rows"))
    assert [[*row] for row in table] == [["id", "rewards", "output_mean", "output_log_variance"]] * 4
    for row, one in zip(table, right, strict=True):
        assert np.allclose(np.transpose([row["output_mean"], row["output_log_variance"]]), one.outputs, atol=1e-6)


@pytest.mark.parametrize("architecture", ["qwen3", "bert"])
def test_a_frozen_body_trains_a_head_of_several_outputs_on_features(architecture, tokenizer, tmp_path, capsys):
    """The same weights as without the cache."""

    def trained(cache):
        model = make_model(architecture)
        torch.manual_seed(0)
        take(model, {"ensemble": {"members": 3, "width": 4, "reduce": "min", "c": 0.0, "anchor": True}}, 0.5)
        options = {"train_last_layers": 0, "learning_rate": 1e-2, "cache_dir": cache, "max_steps": 3}
        trainer = trainer_for(model, tokenizer, tmp_path, make_pairs(8), **options)
        trainer.train()
        assert trainer.layout != "padded"
        return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    with_cache = trained(str(tmp_path / "cache"))
    assert "computed once for the responses of 8 comparisons" in capsys.readouterr().out
    without = trained(None)
    assert with_cache.keys() == without.keys() == {name for name in without if name.startswith(("score", "classifier"))}
    assert all(torch.allclose(with_cache[name], without[name], atol=1e-5) for name in without)
