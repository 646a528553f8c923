"""Ratings, and other columns of the loss, made of the columns of a file: vectors, sums, values inside, nulls."""

import math

import pytest
from datafiles import load, write

from rmlab.data.columns import read_row
from rmlab.data.config import Options
from rmlab.data.rows import to_comparison
from rmlab.messages import UserError

RATINGS, USER = ("ratings", "output"), ("user", "pair")
PAIR = {"prompt": "p ", "chosen": "a", "rejected": "b"}


def read(row, *columns):
    return to_comparison(row, "row", Options(columns=columns)).columns


def test_rated_responses_are_rated_in_as_many_attributes_as_there_are_columns(tmp_path):
    rows = [
        {"prompt": "q", "response": f"a{n}", "help": n, "right": 4 - n, "text": "x", "user": n // 2} for n in range(4)
    ]
    write(tmp_path / "rated.jsonl", rows, "jsonl")
    columns = {"score": {"sum": {"help": 1.0, "right": 0.5}}, "ratings": ["help", "right"]}
    read_rows = [read_row(row) for row in load(tmp_path / "rated.jsonl", columns=columns)]
    assert [r["scores"] for r in read_rows] == [[2, 2.5], [3, 3.5]], "each user's responses are one comparison"
    assert [read(r, RATINGS)["ratings"] for r in read_rows] == [[[0, 4], [1, 3]], [[2, 2], [3, 1]]]
    assert [read(r, USER)["user"] for r in read_rows] == [[[0]], [[1]]]
    assert "text" not in read_rows[0]


def test_ratings_of_rated_responses_may_be_written_as_text(tmp_path):
    rows = [{"prompt": "q", "response": f"a{n}", "score": n, "ratings": [f"{n}", "N/A"]} for n in range(2)]
    write(tmp_path / "rated.jsonl", rows, "jsonl")
    (row,) = load(tmp_path / "rated.jsonl")
    found = read(read_row(row), RATINGS)["ratings"]
    assert [numbers[0] for numbers in found] == [0, 1]
    assert all(math.isnan(numbers[1]) for numbers in found)


def test_a_strength_with_a_sign_is_no_rating_of_the_responses(tmp_path):
    write(tmp_path / "rows.jsonl", [{"prompt": "q", "responses": ["a", "b"], "by": -2}], "jsonl")
    code = {"column": "by", "first": "negative", "second": "positive"}
    (row,) = load(tmp_path / "rows.jsonl", columns={"label": code})
    assert to_comparison(read_row(row), "row").gold is None
    with pytest.raises(UserError, match="the loss reads the column 'ratings'"):
        read(read_row(row), RATINGS)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_rating_inside_that_is_null_is_unknown(kind, tmp_path):
    told = {"prompt": "p", "responses": ["a", "b"], "label": "a"}
    rows = [{**told, "c": [{"help": {"n": 1}}, {"help": {"n": None}}]}, {**told, "c": [{"help": {"n": 2}}, None]}]
    write(tmp_path / f"rows.{kind}", rows, kind)
    got = load(tmp_path / f"rows.{kind}", columns={"ratings": "c.help.n"}, limit=2)
    assert [read_row(row)["ratings"] for row in got] == [[1, None], [2, None]]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_prompt_inside_that_is_null_is_named(kind, tmp_path):
    write(tmp_path / f"rows.{kind}", [{**PAIR, "info": {"post": text}} for text in ("p", None)], kind)
    with pytest.raises(UserError, match=r"row 1 .*data.columns.prompt: info.post is null"):
        load(tmp_path / f"rows.{kind}", columns={"prompt": "info.post"})


def test_a_prompt_that_stands_in_the_dialogues_may_be_null(tmp_path):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    row = {"chosen": turns, "rejected": [turns[0], {**turns[1], "content": "no"}], "context": None}
    write(tmp_path / "rows.jsonl", [row], "jsonl")
    (got,) = load(tmp_path / "rows.jsonl", columns={"prompt": "context"})
    assert to_comparison(read_row(got), "row").prompt == turns[:1]


def test_a_rated_comparison_has_one_weight(tmp_path, capsys):
    rows = [{"prompt": "q", "response": f"a{n}", "score": n, "weight": 2, "user": n // 2} for n in range(3)]
    write(tmp_path / "rated.jsonl", rows, "jsonl")
    (row,) = load(tmp_path / "rated.jsonl")
    assert [p.weight for p in to_comparison(read_row(row), "row").preferences] == [2]
    assert "left out 1 of 2 prompts that have a single response of one user" in capsys.readouterr().out
    write(tmp_path / "rated.jsonl", [*rows, {**rows[0], "weight": 1}], "jsonl")
    with pytest.raises(UserError, match="responses to the prompt 'q' have the weights 2, 1, and their comparison"):
        load(tmp_path / "rated.jsonl")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"ratings": {"columns": ["c.help", "c.right"]}}, [[1, 7], [2, 8]]),
        ({"ratings": [["h0", "r0"], ["h1", "r1"]]}, [[1, 7], [2, 8]]),
        ({"ratings": ["h0", "h1"]}, [[1], [2]]),
        ({"ratings": "c.help"}, [[1], [2]]),
        ({"ratings": {"sum": {"c.help": 2.0, "c.right": 1.0}}}, [[9], [12]]),
    ],
)
def test_ratings_are_made_of_columns(columns, expected, tmp_path):
    row = {"prompt": "p", "responses": ["a", "b"], "label": "a", "h0": 1, "r0": 7, "h1": 2, "r1": 8}
    row["c"] = [{"help": 1, "right": 7}, {"help": 2, "right": 8}]
    write(tmp_path / "rows.jsonl", [row], "jsonl")
    (got,) = load(tmp_path / "rows.jsonl", columns=columns)
    assert read(read_row(got), RATINGS)["ratings"] == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"columns": "h"}, r"it must be a column or a list of them, {columns: \[NAME, ...\]}, {sum: {NAME: WEIGHT}}"),
        ({"sum": ["h"]}, "it must be a column"),
        ({"sum": {"h": 1}, "columns": ["h"]}, "it must be a column"),
        ({"sum": {"h": "much"}}, "h is 'much', not a finite number"),
        ({"columns": ["h", "list"]}, "its columns must hold lists of as many values each"),
        ({"columns": ["h", "hh"]}, "data.columns.ratings: no column 'hh' in the data"),
        ([["h", 3]], "must be a column or a list of them, not 3"),
    ],
)
def test_a_vector_of_nothing_is_refused(source, message, tmp_path):
    write(tmp_path / "rows.jsonl", [{**PAIR, "h": 1, "list": [1, 2]}], "jsonl")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "rows.jsonl", columns={"ratings": source})
