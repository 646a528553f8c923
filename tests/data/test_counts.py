"""The line of counts, duplicates and empty responses: what is said of a set, and what is left out of it."""

import copy

import pytest
from conftest import make_pairs
from datafiles import write
from datasets import Dataset

from rmlab import UserError
from rmlab.data import counts
from rmlab.data.config import DataConfig, Options
from rmlab.data.prepare import check_rows, tokenize
from rmlab.data.rows import is_empty, to_comparison
from rmlab.data.sets import build_sets, load_rows
from rmlab.data.trees import content_hash

PAIR = {"prompt": "p ", "chosen": "a", "rejected": "b"}
MANY = {"prompt": "p ", "responses": ["a", "b", "c"], "scores": [3, 2, 2]}


def turn(text, role="assistant", **more):
    return [{"role": role, "content": text, **more}]


CHAT = {"chosen": turn("a"), "rejected": turn("b")}


def test_what_is_counted_in_batches_is_what_the_rows_hold(tokenizer, capsys, monkeypatch):
    rows = make_pairs(50, score_chosen=[n % 4 for n in range(50)], score_rejected=[1] * 50).to_list()
    rows[7]["probability"] = 0.5
    rows = [{"probability": 1.0, **row} for row in rows]
    rows[9]["rejected"] = rows[9]["chosen"]
    printed = []
    for size in (1000, 3):
        monkeypatch.setattr(counts, "BATCH", size)
        trees = tokenize(Dataset.from_list(rows), tokenizer, Options(max_length=45, overlong="drop"))
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    whole = [[*t["prefix"], *s] for t in trees for s in t["suffixes"]]
    strengths = [s for t in trees for s in t["strength"]]
    ties = sum(p == 0.5 for t in trees for p in t["probability"])
    assert 20 < len(trees) < 49
    assert (
        f"train: {len(trees)} comparisons of 50 rows; {2 * len(trees)} responses, {len(trees)} preferences, {ties} ties"
        in printed[0]
    )
    assert f"dropped {49 - len(trees)} overlong, 1 identical; truncated 0" in printed[0]
    assert f"{sum(map(len, whole)):,} tokens, longest {max(map(len, whole))}" in printed[0]
    assert f"{sum(s < 0 for s in strengths)} preferences have a negative strength" in printed[0]


# ---- duplicates ----


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (PAIR, PAIR, True),
        (PAIR, {**PAIR, "id": "x", "subset": "s"}, True),
        (PAIR, {**PAIR, "chosen": "b", "rejected": "a"}, False),
        (PAIR, {**PAIR, "prompt": "q "}, False),
        (PAIR, {**PAIR, "rejected": "b "}, False),
        (PAIR, {**PAIR, "margin": 2.0}, False),
        (PAIR, {"prompt": "p ", "responses": ["b", "a"], "ranks": [2, 1]}, True),
        ({**PAIR, "probability": 0.5}, {**PAIR, "chosen": "b", "rejected": "a", "probability": 0.5}, True),
        (MANY, {"prompt": "p ", "responses": ["c", "a", "b"], "scores": [2, 3, 2]}, True),
        (MANY, {"prompt": "p ", "responses": ["c", "a", "b"], "scores": [2, 2, 3]}, False),
        (MANY, {"prompt": "p ", "responses": ["a", "b"], "scores": [3, 2]}, False),
        (CHAT, {**CHAT, "tools": [{"f": 1}]}, False),
        (CHAT, {**CHAT, "chosen": turn("a", name="x")}, False),
        ({"chosen_ids": [1, 2], "rejected_ids": [3]}, {"chosen_ids": [1, 2], "rejected_ids": [3]}, True),
        ({"chosen_ids": [1, 2], "rejected_ids": [3]}, {"chosen_ids": [1], "rejected_ids": [2, 3]}, False),
        ({"chosen": "1", "rejected": "b"}, {"chosen": "[1]", "rejected": "b"}, False),
    ],
)  # fmt: skip
def test_a_duplicate_has_the_same_prompt_responses_and_preferences_in_any_order(one, other, same):
    hashes = [content_hash(to_comparison(copy.deepcopy(row), "row")) for row in (one, other)]
    assert (hashes[0] == hashes[1]) == same


ROWS = [PAIR, {**PAIR, "prompt": "q "}, PAIR, {**PAIR, "prompt": "r "}, {**PAIR, "id": "other"}]


def test_duplicates_are_kept_and_counted(tokenizer, capsys):
    assert len(tokenize(Dataset.from_list(ROWS), tokenizer, Options())) == 5
    assert "2 rows are duplicates" in capsys.readouterr().out


def test_of_duplicates_the_first_stays(tokenizer, capsys):
    trees = tokenize(Dataset.from_list(ROWS), tokenizer, Options(duplicates="drop"))
    assert trees["id"][:] == ["0", "1", "3"]
    assert "3 comparisons of 5 rows" in (line := capsys.readouterr().out)
    assert "dropped 0 overlong, 0 identical, 2 duplicate; truncated 0" in line


def test_a_duplicate_that_may_not_be_is_named_with_the_row_that_it_repeats(tokenizer):
    with pytest.raises(UserError, match=r"t row 2 \(counting from 0\): it is row 0 again, .*data.duplicates=drop"):
        tokenize(Dataset.from_list(ROWS), tokenizer, Options(duplicates="error"), "t")


def test_rows_that_are_left_out_anyway_are_no_duplicates(tokenizer, capsys):
    rows = [{**PAIR, "rejected": "a"}] * 3 + [PAIR]
    assert len(tokenize(Dataset.from_list(rows), tokenizer, Options(duplicates="error"))) == 1
    assert "0 rows are duplicates" in capsys.readouterr().out


def test_repeats_are_all_but_the_first_of_each():
    import numpy as np

    hashes = np.array([5, -1, 5, 7, -1, 5])
    places, first = counts.repeats(hashes)
    assert places.tolist() == [2, 4, 5]
    assert first.tolist() == [0, 1, 0]
    assert [len(part) for part in counts.repeats(hashes[:0])] == [0, 0]


@pytest.mark.parametrize("named", [True, False])
def test_a_line_tells_of_duplicates_in_an_evaluation_set(named, tokenizer, tmp_path, capsys):
    rows = make_pairs(40).to_list()
    spec = {}
    for name, some in (("train", rows if named else [*rows, *rows]), ("test", [*rows[:3], rows[0]])):
        write(tmp_path / f"{name}.jsonl", some, "jsonl")
        spec[name] = {"source": "load", "path": str(tmp_path / f"{name}.jsonl")}
    config = DataConfig(train={"t": spec["train"]}, eval={"dev": spec["test"]} if named else {}, eval_fraction=0.25)
    sets = build_sets(load_rows(config), config, tokenizer)
    ((name, held_out),) = sets.eval.items()
    again = 1 if named else len(held_out) // 2
    told = f"note: {name}: {again} of {len(held_out)} comparisons are duplicates of an earlier one"
    assert told in capsys.readouterr().out


# ---- empty responses ----


@pytest.mark.parametrize(
    ("row", "empty"),
    [
        (PAIR, False),
        ({**PAIR, "rejected": ""}, True),
        ({**PAIR, "chosen": " \n\t"}, True),
        ({**MANY, "responses": ["a", "b", " "]}, True),
        ({"prompt": "p", "chosen": turn(" "), "rejected": turn("b")}, True),
        ({"prompt": "p", "chosen": turn(None, tool_calls=[{"f": 1}]), "rejected": turn("b")}, False),
        ({"prompt": "p", "chosen": [*turn(""), *turn("x")], "rejected": turn("b")}, False),
        ({"chosen": "\n\nHuman: a\n\nAssistant:", "rejected": "\n\nHuman: a\n\nAssistant: b"}, False),
        ({"chosen_ids": [0], "rejected_ids": [1]}, False),
    ],
)
def test_a_response_is_empty_that_says_nothing(row, empty):
    assert is_empty(to_comparison(row, "row")) == empty


def test_empty_responses_are_counted_left_out_or_refused(tokenizer, capsys):
    rows = Dataset.from_list([PAIR, {**PAIR, "prompt": "q ", "rejected": " "}])
    assert len(tokenize(rows, tokenizer, Options())) == 2
    assert "1 have an empty response; dropped 0 overlong, 0 identical; truncated" in capsys.readouterr().out
    assert tokenize(rows, tokenizer, Options(empty="drop"))["id"][:] == ["0"]
    assert "1 have an empty response; dropped 0 overlong, 0 identical, 1 empty; truncated" in capsys.readouterr().out
    for refuse in (lambda o: check_rows(rows, "t", o), lambda o: tokenize(rows, tokenizer, o, "t")):
        with pytest.raises(UserError, match=r"t row 1 .*: a response is empty; .* data.empty=drop"):
            refuse(Options(empty="error"))


@pytest.mark.parametrize("key", ["duplicates", "empty"])
def test_a_choice_that_is_none_is_refused(key):
    for refuse in (lambda: Options(**{key: "yes"}), lambda: DataConfig(train={"a": {}}, **{key: "yes"}).check()):
        with pytest.raises(UserError, match=f"{key} is 'yes'"):
            refuse()


def test_choices_are_part_of_the_options_and_of_the_cache_key(tokenizer, tmp_path):
    rows = Dataset.from_list(ROWS)
    for value in ("keep", "drop"):
        config = DataConfig(duplicates=value, empty=value)
        assert (config.options.duplicates, config.options.empty) == (value, value)
        tokenize(rows, tokenizer, config.options, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
