"""Labels in other codes: stated, or refused where they may be read the wrong way round."""

import pytest
from conftest import make_pairs
from datafiles import load, write
from datasets import Dataset

from rmlab.data import Preference
from rmlab.data.columns import read_row
from rmlab.data.config import DataConfig, Options
from rmlab.data.prepare import tokenize
from rmlab.data.rows import to_comparison
from rmlab.data.sets import load_rows
from rmlab.messages import UserError

PAIR = {"prompt": "p", "responses": ["a", "b"]}


def preferences(tmp_path, values, code):
    rows = [{"prompt": "p", "r0": "a", "r1": "b", "verdict": value} for value in values]
    write(tmp_path / "rows.jsonl", rows, "jsonl")
    columns = {"responses": ["r0", "r1"], "label": {"column": "verdict", **code}}
    return [
        to_comparison(read_row(row), "row").preferences[0] for row in load(tmp_path / "rows.jsonl", columns=columns)
    ]


FIRST, SECOND, TIE = Preference(0, 1, 1.0, 1.0), Preference(1, 0, 1.0, 1.0), Preference(0, 1, 0.0, 0.5)


@pytest.mark.parametrize(
    ("values", "code", "expected"),
    [
        ([0, 1], {"first": 0, "second": 1}, [FIRST, SECOND]),
        ([1, 0], {"first": 1, "second": 0}, [FIRST, SECOND]),
        (["x", "y", ""], {"first": "x", "second": "y", "tie": ""}, [FIRST, SECOND, TIE]),
        (["model_a", "model_b", "tie (bothbad)", "tie"],
         {"first": "model_a", "second": "model_b", "tie": ["tie", "tie (bothbad)"]}, [FIRST, SECOND, TIE, TIE]),
        ([-3, 0, 2], {"first": "negative", "second": "positive"},
         [Preference(0, 1, 3.0), TIE, Preference(1, 0, 2.0)]),
        ([-3, 0, 2], {"first": "positive", "second": "negative"},
         [Preference(1, 0, 3.0), TIE, Preference(0, 1, 2.0)]),
        ([-2, -1, 0, 1], {"first": [-2, -1], "second": [1, 2], "tie": 0}, [FIRST, FIRST, TIE, SECOND]),
    ],
)  # fmt: skip
def test_a_stated_code_names_the_winner(values, code, expected, tmp_path):
    assert preferences(tmp_path, values, code) == expected


def test_the_words_of_arenas_need_no_code():
    for label, expected in (("model_a", FIRST), ("model_b", SECOND), ("tie (bothbad)", TIE)):
        row = {"responses": ["a", "b"], "label": label}
        assert to_comparison(row, "row").preferences == [expected]


def test_a_value_that_the_code_does_not_name_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data.columns.label: 2 is no value of first, second or tie"):
        preferences(tmp_path, [0, 2], {"first": 0, "second": 1})


@pytest.mark.parametrize("column", ["label", "votes"])
def test_labels_of_0_and_1_alone_are_refused_from_files_and_from_python(column, tmp_path):
    """In PKU-SafeRLHF and SHP 1 means the second there, or the first: nobody can tell from the numbers."""
    rows = [
        {"prompt": f"p{n}", "responses": ["a", "b"], column: n % 2 if column == "label" else [n % 2]}
        for n in range(200)
    ]
    write(tmp_path / "rows.jsonl", rows, "jsonl")
    data = DataConfig(train={"mine": {"source": "load", "path": str(tmp_path / "rows.jsonl")}})
    for read in (lambda: load_rows(data), lambda: tokenize(Dataset.from_list(rows), None, Options(), "mine")):
        with pytest.raises(UserError, match=rf"mine: the labels are 0 and 1 and never 2.*data.columns.{column}="):
            read()


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 2], [1, 1], ["tie", "first"]])
def test_labels_that_can_be_told_are_read(labels, tokenizer):
    rows = [{"prompt": f"p{n}", "responses": ["a", "b"], "label": label} for n, label in enumerate(labels)]
    assert len(tokenize(Dataset.from_list(rows), tokenizer, Options(), "t")) == len(labels)


def test_a_stream_of_labels_0_and_1_is_refused_by_its_first_rows(tmp_path):
    write(tmp_path / "rows.jsonl", [{**PAIR, "label": n % 2} for n in range(200)], "jsonl")
    stream = load(tmp_path / "rows.jsonl", streaming=True)
    with pytest.raises(UserError, match="mine: the labels are 0 and 1 and never 2"):
        tokenize(stream, None, Options(), "mine")


@pytest.mark.parametrize("decides", [{"chosen": "a", "rejected": "b"}, {"responses": ["a", "b"], "scores": [2, 1]}])
def test_a_label_that_does_not_decide_may_be_anything(decides, tokenizer):
    rows = [{"prompt": f"p{n}", "label": n % 2, **decides} for n in range(4)]
    assert len(tokenize(Dataset.from_list(rows), tokenizer, Options(), "t")) == 4


def test_votes_may_have_a_code_too(tmp_path):
    row = {**PAIR, "one": "x", "two": "y", "three": "x", "all": ["x", "-", "x"]}
    write(tmp_path / "rows.jsonl", [row], "jsonl")
    for column, probability in ((["one", "two", "three"], 2 / 3), ("all", 2.5 / 3)):
        votes = {"column": column, "first": "x", "second": "y", "tie": "-"}
        (got,) = load(tmp_path / "rows.jsonl", columns={"votes": votes})
        (preference,) = to_comparison(read_row(got), "row").preferences
        assert (preference.better, preference.probability) == (0, pytest.approx(probability))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": {"colum": "v", "first": 0, "second": 1}}, "data.columns.label is .*; it must be {column: NAME"),
        ({"label": {"column": "v", "first": 0}}, "data.columns.label is .*; it must be {column: NAME"),
        ({"label": {"column": "v", "first": 0, "second": 1, "draw": 2}}, "it must be {column: NAME"),
        ({"label": {"column": "v", "first": "negative", "second": 1}}, "must be negative and positive, or values"),
        ({"chosen": {"column": "v", "first": 0, "second": 1}}, "data.columns.chosen must be a column or a list"),
        ({"chosen": 3}, "data.columns.chosen must be a column or a list of them, not 3"),
        ({"label": {"column": "v", "first": 5, "second": 6}}, "rows.jsonl row 0 .*: 0 is no value of first, second"),
    ],
)
def test_a_code_that_says_nothing_is_refused(columns, message, tmp_path):
    write(tmp_path / "rows.jsonl", [{**PAIR, "v": 0}], "jsonl")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "rows.jsonl", columns=columns)


def test_words_for_signs_may_be_values_of_the_column(tmp_path):
    assert preferences(tmp_path, ["negative", "positive"], {"first": "positive", "second": "negative"}) == [
        SECOND,
        FIRST,
    ]


def test_a_row_of_torch_or_numpy_is_read_like_any_other(tokenizer):
    columns = {"score_chosen": [2.0] * 4, "score_rejected": [0.5] * 4}
    plain = make_pairs(4, **columns)
    expected = tokenize(plain, tokenizer, Options(), "t")[:]
    for kind in ("torch", "numpy", "pandas", "arrow"):
        assert tokenize(plain.with_format(kind), tokenizer, Options(), "t")[:] == expected, kind
