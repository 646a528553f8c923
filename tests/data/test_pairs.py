"""Several chosen and rejected responses in a row; messages with from and value; flags; parts of a hub data set."""

import pytest
from datafiles import load, write

from rmlab.data import named
from rmlab.data.columns import read_row
from rmlab.data.rows import to_comparison
from rmlab.data.sources import part_of_hub
from rmlab.messages import UserError


def test_each_of_several_chosen_responses_beats_each_rejected_one():
    row = {"prompt": "p", "chosen": ["a", "b"], "rejected": ["c", "d", "e"], "margin": 2.0, "weight": 3.0}
    got = to_comparison(row, "row")
    assert got.responses == ["a", "b", "c", "d", "e"]
    assert {(p.better, p.worse) for p in got.preferences} == {(i, j) for i in (0, 1) for j in (2, 3, 4)}
    assert {(p.strength, p.probability, p.weight) for p in got.preferences} == {(2.0, 1.0, 3.0)}
    less = to_comparison({**row, "probability": 0.25}, "row").preferences
    assert {(p.better, p.worse, p.strength, p.probability) for p in less} == {
        (j, i, -2.0, 0.75) for i in (0, 1) for j in (2, 3, 4)
    }


def test_several_dialogues_may_be_chosen():
    turn, a, b = ({"role": r, "content": c} for r, c in (("user", "hi"), ("assistant", "yes"), ("assistant", "no")))
    got = to_comparison({"chosen": [[turn, a]], "rejected": [[turn, b], [turn, b]]}, "row")
    assert (got.prompt, got.responses) == ([turn], [[a], [b], [b]])


def test_messages_may_say_from_and_value():
    row = {"prompt": [{"from": "human", "value": "hi"}], "chosen": {"from": "gpt", "value": "yes"}}
    got = to_comparison({**row, "rejected": {"from": "assistant", "value": "no"}}, "row")
    assert got.prompt == [{"role": "user", "content": "hi"}]
    assert got.responses == [[{"role": "assistant", "content": text}] for text in ("yes", "no")]
    with pytest.raises(UserError, match="row 3: rejected has a message from 'tool', none of"):
        to_comparison({**row, "rejected": {"from": "tool", "value": "no"}}, "row 3")


@pytest.mark.parametrize(
    ("said", "turns"),
    [
        ('["a \\ud83d", null, "\\ud83d\\ude00"]', ["a \ufffd", None, "\U0001f600"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[see above", ["[see above"]),
        ("plain", ["plain"]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_turns_are_those_of_a_list_or_its_json_and_any_other_text_is_one(said, turns):
    assert named.turns(said) == turns


FLAGS = {"first": "a_wins", "second": "b_wins", "tie": "neither"}


@pytest.mark.parametrize(("flags", "label"), [((1, 0, 0), "first"), ((0, "1", 0), "second"), ((0, False, True), "tie")])
def test_the_column_that_holds_1_names_the_winner(flags, label, tmp_path):
    row = {"prompt": "p", "responses": ["a", "b"], **dict(zip(FLAGS.values(), flags, strict=True))}
    write(tmp_path / "rows.jsonl", [row], "jsonl")
    assert read_row(load(tmp_path / "rows.jsonl", columns={"label": {"flags": FLAGS}})[0])["label"] == label


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": {"flags": FLAGS}}, "exactly one of .* must be 1, and they are"),
        ({"label": {"flags": {"first": "a_wins"}}}, "it must be {first: NAME, second: NAME, tie: NAME}"),
        ({"responses": {"dialogue": ["q"]}}, "dialogue must name two columns"),
        ({"responses": {"dialogue": ["q", "turns"]}}, "the user speaks 1 times and the assistant 2 times"),
        ({"prompt": [["q"], "q"]}, "data.columns.prompt must be a column or a list of them"),
    ],
)
def test_what_cannot_be_made_of_columns_is_named(columns, message, tmp_path):
    row = {"responses": ["a", "b"], "a_wins": 1, "b_wins": 1, "neither": 0, "q": "hi", "turns": ["x", "y"]}
    write(tmp_path / "rows.jsonl", [row], "jsonl")
    with pytest.raises(UserError, match=rf"rows.jsonl row 0 .*{message}"):
        load(tmp_path / "rows.jsonl", columns=columns)


def test_a_part_of_a_hub_data_set_is_stated_once(tmp_path):
    assert part_of_hub({"name": "preference", "data_dir": "x"}, None, "train", "main") == {
        "name": "preference", "data_dir": "x", "split": "train", "revision": "main",
    }  # fmt: skip
    assert part_of_hub({"split": "test"}, None, "train", None) == {"split": "test"}
    with pytest.raises(UserError, match="hub states split beside split"):
        part_of_hub({"split": "test"}, None, "dev", None)
    with pytest.raises(UserError, match="hub has no folder; it takes name, split, revision and data_dir"):
        part_of_hub({"folder": "x"}, None, "train", None)
    write(tmp_path / "rows.jsonl", [{"chosen": "a", "rejected": "b"}], "jsonl")
    assert len(load(tmp_path / "rows.jsonl", hub={"split": "test"})) == 1, "a local copy is read as it is"
