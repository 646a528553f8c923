"""Files, folders, streams and column mappings; the real files where they are."""

import pytest
from conftest import ROOT, shared
from datafiles import load, write
from datasets import Dataset

from rmlab.data.columns import read_row, read_rows
from rmlab.data.rows import to_comparison
from rmlab.messages import UserError

ROWS = [{"question": f"q{n}", "good": f"yes {n}", "bad": f"no {n}", "meta": {"gap": n + 1}} for n in range(4)]


COLUMNS = {"prompt": "question", "chosen": "good", "rejected": "bad", "margin": "meta.gap"}


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "jsonl.gz", "json.gz"])
def test_loads_files_with_column_mapping(kind, tmp_path):
    write(tmp_path / f"rows.{kind}", ROWS, kind)
    rows = [read_row(r) for r in load(tmp_path / f"rows.{kind}", columns=COLUMNS)]
    assert [(r["prompt"], r["chosen"], r["rejected"], r["margin"]) for r in rows] == [
        (f"q{n}", f"yes {n}", f"no {n}", n + 1) for n in range(4)
    ]


def test_loads_folders_of_files_and_of_save_to_disk(tmp_path):
    (tmp_path / "files").mkdir()
    for half in (0, 1):
        write(tmp_path / "files" / f"{half}.jsonl", ROWS[2 * half : 2 * half + 2], "jsonl")
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    for folder in ("files", "saved"):
        rows = [read_row(r) for r in load(tmp_path / folder, columns=COLUMNS)]
        assert [r["prompt"] for r in rows] == ["q0", "q1", "q2", "q3"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_streams_files(kind, tmp_path):
    write(tmp_path / f"rows.{kind}", ROWS, kind)
    rows = list(map(read_row, load(tmp_path / f"rows.{kind}", columns=COLUMNS, streaming=True)))
    assert [r["margin"] for r in rows] == [1, 2, 3, 4]


def test_rated_responses_are_grouped_by_prompt(tmp_path):
    rows = [{"q": f"q{n % 2}", "a": f"answer {n}", "s": {"overall": n}} for n in range(5)]
    rows.append({"q": "alone", "a": "only one", "s": {"overall": 1}})
    write(tmp_path / "rated.jsonl", rows, "jsonl")
    mapping = {"prompt": "q", "response": "a", "score": "s.overall"}
    got = [read_row(r) for r in load(tmp_path / "rated.jsonl", columns=mapping)]
    assert [(r["prompt"], len(r["responses"]), r["scores"]) for r in got] == [("q0", 3, [0, 2, 4]), ("q1", 2, [1, 3])]


def test_rated_responses_keep_the_tools_of_their_prompt(tmp_path):
    rows = [
        {"prompt": "q", "response": f"a{n}", "score": n, "tools": [{"name": tool}], "chat_template_kwargs": {"x": 1}}
        for tool in "fg"
        for n in range(2)
    ]
    write(tmp_path / "rated.jsonl", rows, "jsonl")
    got = [read_row(r) for r in load(tmp_path / "rated.jsonl")]
    assert [(r["tools"], r["chat_template_kwargs"]) for r in got] == [([{"name": t}], {"x": 1}) for t in "fg"]


@pytest.mark.parametrize("missing", ["prompt", "response", "score"])
@pytest.mark.parametrize("value", [None, "gone"])
def test_a_rated_row_without_one_of_its_columns_is_named(missing, value, tmp_path):
    rows = [{"prompt": "q", "response": f"a{n}", "score": n} for n in range(3)]
    rows[2] = {k: v for k, v in {**rows[2], missing: None}.items() if value is None or k != missing}
    write(tmp_path / "rated.jsonl", rows, "jsonl")
    with pytest.raises(UserError, match=r"rated.jsonl row 2 \(counting from 0\): one of prompt, response, score"):
        load(tmp_path / "rated.jsonl")


def test_a_pair_with_a_score_and_a_response_beside_it_is_a_pair(tmp_path):
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b", "response": "c", "score": 1}]
    write(tmp_path / "rows.jsonl", rows, "jsonl")
    assert read_row(load(tmp_path / "rows.jsonl")[0])["chosen"] == "a"


def test_a_separator_cuts_dialogues_into_prompt_and_response(tmp_path):
    rows = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}]
    rows.append({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: z\n\nAssistant: c"})
    write(tmp_path / "d.jsonl", rows, "jsonl")
    first, second = (read_row(r) for r in load(tmp_path / "d.jsonl", prompt_separator="\n\nAssistant:"))
    assert (first["prompt"], first["chosen"], first["rejected"]) == ("\n\nHuman: a\n\nAssistant:", " b", " c")
    assert "prompt" not in second


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (None, {}, "no file or folder '.*rows.jsonl'"),
        ("", {}, "holds no comparison"),
        ("{}\n{bad", {}, "line 2 is not JSON"),
        ("[1, 2]\n", {}, "line 1 is not a JSON object"),
        (
            '{"a": 1}',
            {"columns": {"chosen": "aa"}},
            "data.columns.chosen: no column 'aa' in the data; did you mean|known",
        ),
    ],
)
def test_a_bad_file_is_named(make, options, message, tmp_path):
    path = tmp_path / "rows.jsonl"
    if make is not None:
        path.write_text(make)
    with pytest.raises(UserError, match=message):
        load(path, **options)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", b"a,b", "is none of .jsonl, .json, .parquet"),
        ("a.json", b'[{"a": 1', "is not JSON"),
        ("a.json", b"[[1], [2]]", "row 0 .* is not a JSON object"),
        ("a.jsonl", b"\xff\xfe{}", "cannot read"),
        ("a.jsonl.gz", b"no gzip", "cannot read"),
        ("a.parquet", b"no parquet", "cannot read .* as parquet"),
    ],
)
def test_an_unreadable_file_is_named(file, content, message, tmp_path):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path / file)


@pytest.mark.parametrize(
    ("name", "file", "comparisons", "preferences"),
    [
        ("hh", "hh_harmless.jsonl.gz", 2312, 2312),
        ("topical_chat", "topical_chat.json.gz", 60, 900),
        ("qa_feedback", "qa_feedback.json.gz", 500, 3000),
        ("pandalm", "pandalm.json.gz", 999, 999),
    ],
)
def test_real_data_reads_as_its_config_says(name, file, comparisons, preferences):
    import yaml

    spec = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())
    options = {k: spec[k] for k in ("columns", "prompt_separator") if k in spec}
    rows = load(shared(file), **options)
    read = [to_comparison(read_row(row), f"row {n}") for n, row in enumerate(rows)]
    assert len(read) == comparisons
    assert sum(len(c.preferences) for c in read) == preferences
    if name == "topical_chat":
        assert sum(p.probability == 0.5 for c in read for p in c.preferences) == 66
    if name == "hh":
        assert sum(bool(c.prompt) for c in read) == 2307


@pytest.mark.parametrize("options", [{}, {"streaming": True}])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_of_fewer_than_two_responses_are_refused_or_left_out(kind, options, tmp_path, capsys):
    rows = [{"prompt": f"p{n}", "of": [{"text": f"a{k}", "score": k} for k in range(n)]} for n in (2, 0, 1, 3)]
    write(tmp_path / f"rows.{kind}", rows, kind)

    def read(**more):
        columns = {"responses": "of.text", "scores": "of.score"}
        return list(read_rows(load(tmp_path / f"rows.{kind}", columns=columns, **options, **more)))

    assert [row["prompt"] for row in read(uncompared="drop")] == ["p2", "p3"]
    assert ("left out 2 of 4 rows that have fewer than two" in capsys.readouterr().out) == (not options)
    assert [row["prompt"] for row in read(uncompared="drop", limit=1)] == ["p2"]
    with pytest.raises(
        UserError, match=r"row 1: responses holds 0, and a comparison needs at least 2; .*uncompared: drop"
    ):
        [to_comparison(row, f"row {n}") for n, row in enumerate(read())]
    with pytest.raises(UserError, match="uncompared is 'keep'; known: drop, error"):
        read(uncompared="keep")
