"""Mixtures, evaluation sets, splits by prompt."""

from functools import partial

import pytest
from conftest import make_pairs
from datafiles import write
from datasets import Dataset

from rmlab import UserError
from rmlab.data.config import DataConfig, Options
from rmlab.data.prepare import tokenize
from rmlab.data.sets import at_most, build_sets, load_rows, split_by_prompt, weighted, without_overlap


def sets_of(tokenizer, train, evaluation=None, **options):
    config = DataConfig(train=train, eval=evaluation or {}, **{"eval_fraction": 0.25, **options})
    return build_sets(load_rows(config), config, tokenizer)


def test_mixtures_follow_their_weights_and_name_their_subsets(tokenizer, tmp_path):
    for name, start in (("a", 0), ("b", 100)):
        rows = make_pairs(start + 40, seed=start).select(range(start, start + 40)).to_list()
        write(tmp_path / f"{name}.jsonl", rows, "jsonl")
    spec = {n: {"source": "load", "path": str(tmp_path / f"{n}.jsonl")} for n in "ab"}
    spec["a"]["weight"], spec["b"]["weight"] = 0.5, 2.0
    sets = sets_of(tokenizer, spec)
    counts = {n: sum(s == n for s in sets.train["subset"]) for n in "ab"}
    held_out = {n: sum(s == n for s in sets.eval["eval"]["subset"]) for n in "ab"}
    assert counts["a"] == round(0.5 * (40 - held_out["a"]))
    assert counts["b"] == 2 * (40 - held_out["b"])
    assert min(held_out.values()) > 0


def test_fractions_are_parts_of_whole_copies(tokenizer):
    trees = tokenize(make_pairs(10), tokenizer, Options())
    assert sorted(weighted(trees, 2.0, 0)["id"]) == sorted([*trees["id"], *trees["id"]])
    assert len(weighted(trees, 1.3, 0)) == 13
    small, large = at_most(trees, 3, 0), at_most(trees, 6, 0)
    assert large["id"][:3] == small["id"]


def test_named_evaluation_sets_must_not_share_prompts_with_training(tokenizer, tmp_path):
    write(tmp_path / "train.jsonl", make_pairs(12).to_list(), "jsonl")
    write(tmp_path / "same.jsonl", make_pairs(12).select(range(4)).to_list(), "jsonl")
    spec = {"t": {"source": "load", "path": str(tmp_path / "train.jsonl")}}
    evaluation = {"seen": {"source": "load", "path": str(tmp_path / "same.jsonl")}}
    sets = sets_of(tokenizer, spec, evaluation)
    of_seen = partial(without_overlap, sets.train, sets.eval["seen"], "seen")
    with pytest.raises(UserError, match="seen: 4 of 4 comparisons are on prompts of the training set"):
        of_seen(DataConfig.prompt_overlap)
    with pytest.raises(UserError, match="seen: every prompt is also in the training set"):
        of_seen("drop")
    assert len(of_seen("allow")) == 4


def test_implicit_prompts_are_warned_of_before_a_split(tokenizer, tmp_path, capsys):
    write(tmp_path / "t.jsonl", [{"chosen": f"q{n} yes", "rejected": f"q{n} no"} for n in range(30)], "jsonl")
    sets_of(tokenizer, {"t": {"source": "load", "path": str(tmp_path / "t.jsonl")}})
    assert "no row has a prompt of its own" in capsys.readouterr().out


def test_a_weight_that_leaves_nothing_is_refused(tokenizer, tmp_path):
    write(tmp_path / "t.jsonl", make_pairs(40).to_list(), "jsonl")
    with pytest.raises(UserError, match=r"data.train.t.weight=0.001 leaves none of \d+ comparisons"):
        sets_of(tokenizer, {"t": {"source": "load", "path": str(tmp_path / "t.jsonl"), "weight": 0.001}})


@pytest.mark.parametrize("weight", [0, -0.5, "high", True, float("inf"), float("nan")])
def test_a_weight_must_be_positive(weight, tokenizer, tmp_path):
    write(tmp_path / "t.jsonl", make_pairs(9).to_list(), "jsonl")
    with pytest.raises(UserError, match=r"data.train.t.weight must be a number above 0"):
        sets_of(tokenizer, {"t": {"source": "load", "path": str(tmp_path / "t.jsonl"), "weight": weight}})


def test_rule_9_splits_are_by_prompt(tokenizer):
    """Fails if rows of one prompt can fall on both sides."""
    rows = Dataset.from_dict(
        {
            "prompt": [f"prompt {n % 40} " for n in range(200)],
            "chosen": [f"good {n}" for n in range(200)],
            "rejected": [f"bad {n}" for n in range(200)],
        }
    )
    train, test = split_by_prompt(tokenize(rows, tokenizer, Options()), 0.25, seed=0)
    assert not set(train["prompt_id"]) & set(test["prompt_id"])
    assert len(train) + len(test) == 200
    again = split_by_prompt(tokenize(rows.shuffle(seed=1), tokenizer, Options()), 0.25, seed=0)[1]
    assert set(again["prompt_id"]) == set(test["prompt_id"])
