"""Columns of other names, nested values, parts of messages, marks at the beginning of files."""

import datetime
import json

import pytest
from datafiles import load, write
from datasets import Dataset

from rmlab.data.columns import read_row
from rmlab.data.config import Options
from rmlab.data.prepare import tokenize
from rmlab.data.rows import to_comparison
from rmlab.messages import UserError


def first(path, **options):
    return read_row(load(path, **options)[0])


def test_dotted_names_enter_lists(tmp_path):
    row = {
        "question": "p",
        "completions": [{"response": "a", "rating": {"overall": 1}}, {"response": "b", "rating": {"overall": 2}}],
    }
    write(tmp_path / "rows.jsonl", [row], "jsonl")
    columns = {"prompt": "question", "responses": "completions.response", "scores": "completions.rating.overall"}
    got = first(tmp_path / "rows.jsonl", columns=columns)
    assert (got["prompt"], got["responses"], got["scores"]) == ("p", ["a", "b"], [1, 2])
    with pytest.raises(UserError, match=r"data.columns.scores: no column 'completions.nothing'"):
        load(tmp_path / "rows.jsonl", columns={"scores": "completions.nothing"})


def test_a_system_text_before_messages_becomes_a_message_and_no_other_text_does(tmp_path):
    messages = [{"role": "user", "content": "hi"}]
    write(tmp_path / "rows.jsonl", [{"system": "Be kind.", "topic": "x", "messages": messages}], "jsonl")
    got = first(tmp_path / "rows.jsonl", columns={"prompt": ["system", "messages"]})
    assert got["prompt"] == [{"role": "system", "content": "Be kind."}, *messages]
    with pytest.raises(UserError, match=r"rows.jsonl row 0 .*data.columns.prompt: topic is text beside messages"):
        load(tmp_path / "rows.jsonl", columns={"prompt": ["topic", "messages"]})


def test_what_is_no_text_is_never_joined_as_the_text_of_its_python_value(tmp_path):
    row = {"question": "q", "one": {"role": "user", "content": "hi"}, "picture": [{"bytes": "x"}]}
    write(tmp_path / "rows.jsonl", [row], "jsonl")
    assert first(tmp_path / "rows.jsonl", columns={"prompt": ["one"]})["prompt"] == [row["one"]]
    with pytest.raises(UserError, match=r"data.columns.prompt: {'bytes': 'x'} is no text that could be joined"):
        load(tmp_path / "rows.jsonl", columns={"prompt": ["question", "picture"]})


def test_bytes_are_no_text_and_a_date_is(tmp_path):
    rows = [{"q": "p", "good": b"yes", "bad": "no", "when": datetime.date(2024, 1, 2)}]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    got = first(tmp_path / "rows.parquet", columns={"chosen": "good", "rejected": "bad", "id": "when"})
    assert got["id"] == "2024-01-02"
    with pytest.raises(UserError, match="row 3: chosen is neither text nor chat messages"):
        to_comparison(got, "row 3")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_value_that_cannot_be_renamed_is_named_by_its_row(kind, tmp_path):
    rows = [{"prompt": "p", "responses": ["a", "b"], "v": n} for n in (0, 1, 7)]
    write(tmp_path / f"rows.{kind}", rows, kind)
    with pytest.raises(UserError, match=r"rows\.\w+ row 2 \(counting from 0\): data.columns.label: 7 is no value"):
        load(tmp_path / f"rows.{kind}", columns={"label": {"column": "v", "first": 0, "second": 1}})


def test_a_column_that_is_null_in_its_first_thousand_rows_can_be_renamed(tmp_path):
    rows = [{"q": "p", "good": "a", "bad": "b", "gap": None if n < 1500 else 2.5} for n in range(1600)]
    write(tmp_path / "rows.parquet", rows, "parquet")
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad", "margin": "gap"}
    got = load(tmp_path / "rows.parquet", columns=columns)
    assert [read_row(got[n])["margin"] for n in (0, 1599)] == [None, 2.5]


def test_a_column_called_json_is_a_column(tokenizer):
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "json": '{"chosen": "x", "rejected": "y"}'}]
    trees = tokenize(Dataset.from_list(rows), tokenizer, Options(), "t")
    assert "x" not in tokenizer.decode(trees[0]["prefix"] + trees[0]["suffixes"][0])


def test_marks_that_are_no_line_ends(tmp_path):
    """A byte order mark before the first line, and U+2028 inside a text."""
    rows = [{"chosen": f"a\u2028b {n}", "rejected": "c\u0085d"} for n in range(2)]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    for name in ("rows.jsonl", "rows.json"):
        (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")
        for streaming in (False, True):
            got = load(tmp_path / name, streaming=streaming)
            assert [read_row(row)["chosen"] for row in got] == ["a\u2028b 0", "a\u2028b 1"]


def test_what_cannot_be_parsed_is_named_by_its_line(tmp_path):
    deep, long = "[" * 100_000 + "]" * 100_000, "1" * 5_000
    for text in (deep, long):
        (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": ' + text + "}\n")
        with pytest.raises(UserError, match=r"rows.jsonl line 2 is not JSON"):
            load(tmp_path / "rows.jsonl")


def test_what_is_nested_too_deep_to_be_joined_is_named_by_its_row(tmp_path):
    row = '{"a": "p", "b": ' + "[" * 900 + '"x"' + "]" * 900 + ', "chosen": "x", "rejected": "y"}'
    (tmp_path / "rows.jsonl").write_text(row)
    with pytest.raises(UserError, match=r"rows.jsonl row 0 .*nested too deep"):
        load(tmp_path / "rows.jsonl", columns={"prompt": ["a", "b"]})


# ---- parts of messages ----


def message(content):
    return [{"role": "assistant", "content": content}]


def test_parts_of_text_are_joined_and_other_parts_refused():
    parts = [{"type": "text", "text": "so "}, {"type": "text", "text": "it is"}]
    comparison = to_comparison({"prompt": "p", "chosen": message(parts), "rejected": message("no")}, "row")
    assert comparison.responses[0] == message("so it is")
    for bad in ([{"type": "image", "url": "x"}], ["text"], {"text": "x"}, None, 5):
        with pytest.raises(UserError, match=r"row 4: chosen message 0 "):
            to_comparison({"prompt": "p", "chosen": message(bad), "rejected": message("no")}, "row 4")


def test_a_message_that_calls_a_tool_needs_no_text():
    call = [
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": None}}}]}
    ]
    assert to_comparison({"prompt": "p", "chosen": call, "rejected": message("no")}, "row").responses[0] == call


# ---- nulls: the user's stay, Arrow's go ----


def test_nulls_that_the_user_wrote_are_kept_and_those_of_arrow_are_not(tmp_path):
    tool = {"name": "f", "default": None}
    rows = [
        {"chosen": message("a"), "rejected": message("b"), "tools": [tool]},
        {"chosen": message("a"), "rejected": message("b")},
    ]
    write(tmp_path / "rows.jsonl", rows, "jsonl")
    for source in (load(tmp_path / "rows.jsonl"), load(tmp_path / "rows.jsonl", streaming=True)):
        assert to_comparison(read_row(next(iter(source))), "row").template == {"tools": [tool]}
    ragged = [
        {"chosen": [{**message("a")[0], "name": "x"}], "rejected": message("b")},
        {"chosen": message("a"), "rejected": message("b")},
    ]
    second = Dataset.from_list(ragged)[1]
    assert to_comparison(read_row(second), "row").responses[0] == message("a")


@pytest.mark.parametrize(
    "stated", [{}, {"tools": None}, {"tools": []}, {"chat_template_kwargs": {"tools": None}, "tools": None}]
)
def test_a_row_without_tools_leaves_those_of_all_rows(stated):
    row = {"chosen": message("a"), "rejected": message("b"), **stated}
    assert {**{"tools": ["all"]}, **to_comparison(row, "row").template} == {"tools": ["all"]}


# ---- folders and separators ----


def split_folder(folder, names):
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        write(folder / name, [{"chosen": name, "rejected": "b"}], "jsonl")
    return folder


@pytest.mark.parametrize(
    "names",
    [["train.jsonl", "test.jsonl"], ["train/a.jsonl", "test/a.jsonl"], ["my-train-00.jsonl", "my-test-00.jsonl"]],
)
def test_a_folder_with_splits_gives_the_one_that_was_asked_for(names, tmp_path, capsys):
    folder = split_folder(tmp_path / "data", names)
    assert [read_row(row)["chosen"] for row in load(folder)] == [names[0]]
    assert "split train, 1 of 2 files" in capsys.readouterr().out
    assert [read_row(row)["chosen"] for row in load(folder, split="test")] == [names[1]]
    with pytest.raises(UserError, match=r"data.split: no split 'dev' in .*; known: test, train"):
        load(folder, split="dev")


def test_a_folder_without_splits_is_read_whole(tmp_path):
    folder = split_folder(tmp_path / "data", ["a.jsonl", "b.jsonl"])
    assert len(load(folder)) == 2
    with pytest.raises(UserError, match="no split 'test'"):
        load(folder, split="test")


def test_a_folder_of_test_rows_alone_is_not_trained_on(tmp_path):
    folder = split_folder(tmp_path / "data", ["test.jsonl"])
    with pytest.raises(UserError, match=r"data.split: no split 'train' in .*known: test"):
        load(folder)


def test_rows_beside_those_of_a_split_are_not_read_unasked(tmp_path, capsys):
    folder = split_folder(tmp_path / "data", ["train.jsonl", "more.jsonl"])
    assert [read_row(row)["chosen"] for row in load(folder)] == ["train.jsonl"]
    assert "split train, 1 of 2 files" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{"split": "test"}, {"name": "default"}, {"revision": "main"}])
def test_what_a_local_file_does_not_have_is_refused(options, tmp_path):
    write(tmp_path / "rows.jsonl", [{"chosen": "a", "rejected": "b"}], "jsonl")
    with pytest.raises(UserError, match=f"data.{next(iter(options))}.* leave it|leave them out"):
        load(tmp_path / "rows.jsonl", **options)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_separator_that_no_row_holds_is_an_error(kind, tmp_path):
    write(tmp_path / f"rows.{kind}", [{"chosen": "a", "rejected": "b"}], kind)
    for streaming in (False, True):
        with pytest.raises(UserError, match=r"data.prompt_separator: no row of .* has 'Assistant:'"):
            load(tmp_path / f"rows.{kind}", prompt_separator="Assistant:", streaming=streaming)
