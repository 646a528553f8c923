"""Plain text as preferences: what follows a text beats what follows others."""

import pytest
from datafiles import write

from rmlab.data import DATASETS, ROW
from rmlab.data.columns import read_rows
from rmlab.data.rows import to_comparison
from rmlab.messages import UserError

TEXTS = [" ".join(f"w{n}.{k}" + "\n" * (k % 7 == 0) for k in range(40 + n)) for n in range(25)]
OPTIONS = {"text": "body", "prefix": 12, "continuation": 5, "others": 3, "block": 10, "seed": 0}


def source(path, **options):
    return DATASETS.build("continuations", {"path": str(path), **OPTIONS, **options})()


@pytest.fixture
def file(tmp_path):
    rows = [{"body": text} for text in (*TEXTS, "too short to be cut")]
    write(tmp_path / "texts.jsonl", rows, "jsonl")
    return tmp_path / "texts.jsonl"


def test_the_true_continuation_beats_those_of_other_texts(file):
    rows = list(read_rows(source(file)))
    assert len(rows) == len(TEXTS)
    for row, text in zip(rows, TEXTS, strict=True):
        comparison = to_comparison(row, "row")
        true, *others = comparison.responses
        assert comparison.prompt + true in text, "cut, and nothing changed"
        assert (len(comparison.prompt.split()), {len(r.split()) for r in comparison.responses}) == (12, {5})
        assert len(set(others)) == 3
        assert not any(other in text for other in others)
        assert {(p.better, p.worse) for p in comparison.preferences} == {(0, 1), (0, 2), (0, 3)}


def test_rows_are_the_same_in_every_run_and_streamed_and_others_with_another_seed(file):
    rows = list(read_rows(source(file)))
    assert list(read_rows(source(file))) == rows
    streamed = source(file, streaming=True)
    assert list(read_rows(streamed)) == rows
    assert streamed.column_names == [ROW], "what is known of a stream is left out of its token trees"
    other = list(read_rows(source(file, seed=1)))
    assert [r["prompt"] for r in other] != [r["prompt"] for r in rows]


def test_a_text_that_stands_there_twice_is_never_its_own_rejected_response(tmp_path):
    write(tmp_path / "texts.jsonl", [{"body": text} for text in TEXTS[:4] * 3], "jsonl")
    for row in read_rows(source(tmp_path / "texts.jsonl", block=12)):
        document = next(text for text in TEXTS if row["prompt"] in text)
        assert not any(other in document for other in row["responses"][1:])


def test_a_folder_of_text_files_is_a_text_each(tmp_path):
    for n, text in enumerate(TEXTS[:6]):
        (tmp_path / f"{n}.txt").write_text(text)
    assert len(source(tmp_path)) == 6
    assert len(source(tmp_path, limit=5)) == 5
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"holds .txt files and rows.jsonl; keep one kind"):
        source(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": 0}, "continuations: prefix"),
        ({"others": 1.5}, "others is 1.5; it must be a whole number"),
        ({"others": 10}, "10 others cannot be drawn from a block of 10"),
        ({"prefix": 900}, "has no 4 different texts of 905 words; cut shorter"),
        ({"text": "boddy"}, "data.columns.text: no column 'boddy' in the data; did you mean 'body'"),
    ],
)
def test_what_makes_no_comparison_is_named(options, message, file):
    with pytest.raises(UserError, match=message):
        source(file, **options)
