"""Rows with responses of other prompts beside their own: how many, whose, and never those of held-out prompts."""

import json
from collections import Counter

import pytest
from datafiles import write
from datasets import Dataset

from rmlab.data import ROW
from rmlab.data.augment import rrm
from rmlab.data.columns import read_row, read_rows
from rmlab.data.config import DataConfig
from rmlab.data.rows import to_comparison
from rmlab.data.sets import build_sets, load_rows
from rmlab.messages import UserError

ROWS = [{"prompt": f"ask {n} ", "chosen": f"good{n}", "rejected": f"bad{n}", "weight": 2} for n in range(40)]


def number(text):
    return text.removeprefix("good").removeprefix("bad")


def config(tmp_path, rows=ROWS, **options):
    write(tmp_path / "rows.jsonl", rows, "jsonl")
    source = {"source": "load", "path": str(tmp_path / "rows.jsonl"), "augment": "rrm"}
    return DataConfig(train={"mine": {**source, **options}}, eval_fraction=0.3)


def test_every_example_gains_8_preferences_over_other_prompts_and_6_ties():
    lent = Counter()
    rows = list(read_rows(rrm(Dataset.from_list(ROWS), "mine", 0)))
    assert len(rows) == len(ROWS)
    for n, row in enumerate(rows):
        got = to_comparison(row, "row")
        assert (got.prompt, got.responses[:2], got.id) == (f"ask {n} ", [f"good{n}", f"bad{n}"], f"{n} rrm")
        decided = {(p.better, p.worse) for p in got.preferences if p.probability == 1}
        neutral = {frozenset((p.better, p.worse)) for p in got.preferences if p.probability == 0.5}
        assert decided == {(i, j) for i in (0, 1) for j in (2, 3, 4, 5)}
        assert len(got.preferences) == 14
        assert neutral == {frozenset((i, j)) for i in (2, 3, 4, 5) for j in (2, 3, 4, 5) if i < j}
        others = [number(text) for text in got.responses[2:]]
        assert others[0] == others[1] != others[2] == others[3]
        assert str(n) not in others
        assert {p.weight for p in got.preferences} == {2}
        lent.update(others[::2])
    assert set(lent.values()) == {2}, "each lends its responses twice"


def test_of_several_responses_the_best_and_the_worst_are_taken():
    rows = [{"prompt": f"ask {n} ", "responses": ["a", "b", "c"], "scores": [2, 3, 1]} for n in range(3)]
    assert [row["responses"][:2] for row in read_rows(rrm(Dataset.from_list(rows), "mine", 0))] == [["b", "c"]] * 3


def test_rows_on_the_same_prompt_lend_each_other_nothing():
    rows = [{**row, "prompt": f"ask {n % 4} "} for n, row in enumerate(ROWS)]
    for n, row in enumerate(read_rows(rrm(Dataset.from_list(rows), "mine", 0))):
        places = [int(number(text)) % 4 for text in row["responses"][2:]]
        assert n % 4 not in places
        assert places[0] != places[2]


def test_responses_of_held_out_prompts_are_never_trained_on_and_those_are_as_they_were(tokenizer, tmp_path):
    data = config(tmp_path)
    plain = config(tmp_path, augment=None)
    with_rrm, without = (build_sets(load_rows(c), c, tokenizer) for c in (data, plain))
    assert with_rrm.eval["eval"][:] == without.eval["eval"][:]
    kept = len(without.train)
    assert len(with_rrm.train) == 2 * kept
    assert with_rrm.train.select(range(kept))[:] == without.train[:]
    held_out = {int(row["id"]) for row in without.eval["eval"]}
    assert len(held_out) > 3
    for row in with_rrm.train.select(range(kept, 2 * kept)):
        texts = [tokenizer.decode(row["prefix"] + suffix) for suffix in row["suffixes"]]
        said = {int(text.replace("bad", "good").split("good")[1].split("<")[0]) for text in texts}
        assert len(said) == 3
        assert not said & held_out


def test_a_row_without_a_prompt_or_a_winner_is_left_alone():
    rows = [*ROWS[:4], {"chosen": "x", "rejected": "y"}, {**ROWS[5], "probability": 0.5}]
    rows = [{ROW: json.dumps(row)} for row in rows]
    got = list(read_rows(rrm(Dataset.from_list(rows), "mine", 0)))
    assert [row["prompt"] for row in got] == [row["prompt"] for row in ROWS[:4]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augment": "rmm"}, "data.train.mine.augment.*rrm"),
        ({"streaming": True}, "data.train.mine.augment needs all rows at once"),
    ],
)
def test_what_cannot_be_augmented_is_named(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_rows(config(tmp_path, **change))


def test_evaluation_sets_token_ids_and_two_prompts_are_not_augmented(tmp_path):
    data = config(tmp_path)
    with pytest.raises(UserError, match=r"data.eval.mine.augment: only training rows are augmented"):
        load_rows(DataConfig(train={"mine": {**data.train["mine"], "augment": None}}, eval=data.train))
    with pytest.raises(UserError, match=r"data.train.mine.augment needs texts"):
        load_rows(config(tmp_path, [{"chosen_ids": [1, 2], "rejected_ids": [1, 3]}] * 3))
    with pytest.raises(UserError, match="rrm needs at least 3 prompts"):
        rrm(Dataset.from_list(ROWS[:2]), "mine", 0)


def test_messages_and_tools_of_a_row_stay_its_own():
    def turn(role, text):
        return [{"role": role, "content": text}]

    rows = [
        {"prompt": turn("user", f"ask {n}"), "chosen": turn("assistant", f"good{n}"),
         "rejected": turn("assistant", f"bad{n}"), "tools": [{"name": f"f{n}"}], "id": f"row {n}"}
        for n in range(4)
    ]  # fmt: skip
    added = rrm(Dataset.from_list([{ROW: json.dumps(row)} for row in rows]), "mine", 0)
    for n in range(4):
        got = to_comparison(read_row(added[n]), "row")
        assert (got.template, got.id) == ({"tools": [{"name": f"f{n}"}]}, f"row {n} rrm")
        assert (got.prompt, len(got.responses)) == (turn("user", f"ask {n}"), 6)
