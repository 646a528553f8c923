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
        with pytest.raises(UserError, match=r"mine: the labels are 0 and 1 and never 2.*data.columns.label="):
            read()


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 2], [1, 1], ["tie", "first"]])
def test_labels_that_can_be_told_are_read(labels, tokenizer):
    rows = [{"prompt": f"p{n}", "responses": ["a", "b"], "label": label} for n, label in enumerate(labels)]
    assert len(tokenize(Dataset.from_list(rows), tokenizer, Options(), "t")) == len(labels)


def test_a_row_of_torch_or_numpy_is_read_like_any_other(tokenizer):
    columns = {"score_chosen": [2.0] * 4, "score_rejected": [0.5] * 4}
    plain = make_pairs(4, **columns)
    expected = tokenize(plain, tokenizer, Options(), "t")[:]
    for kind in ("torch", "numpy", "pandas", "arrow"):
        assert tokenize(plain.with_format(kind), tokenizer, Options(), "t")[:] == expected, kind
