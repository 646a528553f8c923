"""Rows of large JSON files: kept on disk, read once, in bounded memory, and never trusted when damaged."""

import json
import multiprocessing
from pathlib import Path

import datasets
import pytest
from conftest import make_pairs
from datafiles import load, write

from rmlab import UserError, files
from rmlab.data import ROW, texts
from rmlab.data.columns import read_row
from rmlab.data.config import DataConfig
from rmlab.data.sets import load_rows


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where rows are kept, however few they are."""
    monkeypatch.setattr(texts, "SMALL", 0)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "rmlab"


def entries(folder):
    return sorted(p for p in folder.glob("*") if (p / files.SEAL).exists())


def counted(monkeypatch):
    """The list that every line parsed from now on is added to."""
    import rmlab.data.json_files as module

    lines, real = [], module.parsed
    monkeypatch.setattr(module, "parsed", lambda text, where: lines.append(text) or real(text, where))
    return lines


@pytest.mark.parametrize("kind", ["jsonl", "json", "jsonl.gz"])
@pytest.mark.parametrize("columns", [{}, {"id": "n"}])
def test_rows_on_disk_are_those_in_memory(kind, columns, folder, tmp_path, monkeypatch):
    rows = [{"chosen": f"a\u2028 {n} é", "rejected": "\ud800b", "n": n, "big": 10**30} for n in range(700)]
    write(tmp_path / f"rows.{kind}", rows, kind)
    on_disk = load(tmp_path / f"rows.{kind}", columns=columns)
    assert on_disk.cache_files
    monkeypatch.setattr(texts, "SMALL", 2**24)
    in_memory = load(tmp_path / f"rows.{kind}", columns=columns)
    assert not in_memory.cache_files
    assert [*map(read_row, on_disk)] == [*map(read_row, in_memory)]
    assert [{k: v for k, v in read_row(row).items() if k != "id"} for row in on_disk] == rows


def test_a_line_that_needs_no_renaming_is_kept_as_it_is(folder, tmp_path):
    lines = ['{"chosen":  "a", "rejected": "b", "x": 1, "x": NaN}', '{"rejected": "\\u00e9", "chosen": "é"}']
    (tmp_path / "rows.jsonl").write_text("\n\n".join(lines))
    assert load(tmp_path / "rows.jsonl")[ROW][:] == lines


def test_a_second_run_reads_the_rows_from_disk(folder, tmp_path, monkeypatch):
    write(tmp_path / "rows.jsonl", make_pairs(2000).to_list(), "jsonl")
    lines = counted(monkeypatch)
    first = load(tmp_path / "rows.jsonl")
    assert len(lines) == 2000
    lines.clear()
    (tmp_path / "rows.jsonl").rename(tmp_path / "moved.jsonl")
    again = load(tmp_path / "moved.jsonl")
    assert len(lines) < 1000
    assert again[:] == first[:]
    assert again._fingerprint == first._fingerprint


@pytest.mark.parametrize("change", ["a row", "a column", "a separator", "the code"])
def test_what_makes_other_rows_is_another_entry(change, folder, tmp_path, monkeypatch):
    rows = make_pairs(3).to_list()
    write(tmp_path / "rows.jsonl", rows, "jsonl")
    load(tmp_path / "rows.jsonl")
    options = {"a column": {"columns": {"id": "prompt"}}, "a separator": {"prompt_separator": " "}}.get(change, {})
    if change == "a row":
        write(tmp_path / "rows.jsonl", [*rows[:2], {**rows[2], "chosen": "b"}], "jsonl")
    if change == "the code":
        monkeypatch.setattr(texts, "code", lambda: "another")
    load(tmp_path / "rows.jsonl", **options)
    assert len(entries(folder)) == 2


@pytest.mark.parametrize("small", [0, 2**24])
def test_the_fingerprint_of_rows_is_of_what_they_say(small, folder, tmp_path, monkeypatch):
    """With other code the same rows are the same data: what `rmlab-reproduce` compares."""
    monkeypatch.setattr(texts, "SMALL", small)
    rows = make_pairs(3).to_list()
    write(tmp_path / "rows.jsonl", rows, "jsonl")
    write(tmp_path / "more.jsonl", [*rows, rows[0]], "jsonl")
    first = load(tmp_path / "rows.jsonl", columns={"prompt": "prompt"})._fingerprint
    monkeypatch.setattr(texts, "code", lambda: "another")
    assert load(tmp_path / "rows.jsonl", columns={"prompt": "prompt"})._fingerprint == first
    assert load(tmp_path / "more.jsonl", columns={"prompt": "prompt"})._fingerprint != first


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone", "unsealed"])
def test_damaged_rows_are_named_and_read_anew(harm, folder, tmp_path, capsys):
    write(tmp_path / "rows.jsonl", make_pairs(30).to_list(), "jsonl")
    whole = load(tmp_path / "rows.jsonl")[:]
    (place,) = entries(folder)
    data = place / "rows.arrow"
    content = data.read_bytes()
    if harm in ("gone", "unsealed"):
        (data if harm == "gone" else place / files.SEAL).unlink()
    else:
        data.write_bytes(content[:500] if harm == "cut" else content[:900] + bytes([content[900] ^ 1]) + content[901:])
    assert load(tmp_path / "rows.jsonl")[:] == whole
    assert f"{place} is damaged (" in capsys.readouterr().out
    assert files.damage(place) is None


def test_a_full_disk_is_a_line_and_rows_stay_in_memory(folder, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(texts, "write_arrow", full)
    write(tmp_path / "rows.jsonl", make_pairs(300).to_list(), "jsonl")
    assert [read_row(row) for row in load(tmp_path / "rows.jsonl")] == make_pairs(300).to_list()
    assert "cannot be written ([Errno 28] No space left on device); rows are not kept" in capsys.readouterr().out
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("bad", ["[1]", "{bad", '{"chosen": "a"}'])
def test_a_bad_line_leaves_nothing_behind(bad, folder, tmp_path):
    rows = [json.dumps({"chosen": "a", "rejected": "b"})] * 600
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows, bad]))
    options = {"columns": {"margin": "rejected"}} if bad.endswith("}") else {}
    with pytest.raises(UserError, match=r"line 601 is not|row 600 .*no column 'rejected'"):
        load(tmp_path / "rows.jsonl", **options)
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize("small", [0, 2**24])
def test_what_some_rows_do_not_state_is_null_there(small, folder, tmp_path, monkeypatch):
    """In the last of many rows alone, which come after others have been written."""
    monkeypatch.setattr(texts, "SMALL", small)
    rows = [{"chosen": "a", "rejected": "b", "n": n} for n in range(600)]
    write(tmp_path / "rows.jsonl", [*rows, {**rows[0], "margin": 2.5}], "jsonl")
    got = [read_row(row) for row in load(tmp_path / "rows.jsonl")]
    assert [row["margin"] for row in got] == [None] * 600 + [2.5]
    assert [{k: v for k, v in row.items() if k != "margin"} for row in got[:-1]] == rows
    with pytest.raises(UserError, match=r"t row 0 .*margin is missing, but other rows have it"):
        load_rows(DataConfig(train={"t": {"source": "load", "path": str(tmp_path / "rows.jsonl")}}))


def build(path, cache):
    texts.SMALL, datasets.config.HF_DATASETS_CACHE = 0, cache
    return load(path)[:]


def test_several_processes_may_read_the_same_file(folder, tmp_path):
    write(tmp_path / "rows.jsonl", make_pairs(2000).to_list(), "jsonl")
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.starmap(build, [(tmp_path / "rows.jsonl", Path(folder.parent))] * 3)
    assert found[0] == found[1] == found[2]
    assert len(found[0][ROW]) == 2000
    assert [p.name for p in folder.iterdir()] == [entries(folder)[0].name]


# ---- limit ----


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_no_more_rows_are_read_than_are_wanted(kind, tmp_path, monkeypatch):
    """Of JSON a hundred at least, by which the separator is judged; what is wrong beyond them is not seen."""
    rows = make_pairs(300).to_list()
    write(tmp_path / f"rows.{kind}", rows, kind)
    lines = counted(monkeypatch)
    config = DataConfig(train={"t": {"source": "load", "path": str(tmp_path / f"rows.{kind}")}}, limit=7)
    (source,) = load_rows(config).train
    assert [read_row(row) for row in source.rows] == rows[:7]
    assert len(lines) <= 100
    with pytest.raises(UserError, match=r"data.limit is '3'; it must be a whole number"):
        load(tmp_path / f"rows.{kind}", limit="3")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_limit_is_of_prompts_where_rows_are_rated_responses(kind, tmp_path):
    """The answers to a prompt may lie anywhere in the file."""
    rows = [{"prompt": f"q{n % 150}", "response": f"a{n}", "score": n} for n in range(300)]
    write(tmp_path / f"rows.{kind}", rows, kind)
    got = [read_row(row) for row in load(tmp_path / f"rows.{kind}", limit=2)]
    assert [row["responses"] for row in got] == [["a0", "a150"], ["a1", "a151"]]


# ---- checked once ----


def test_that_rows_on_disk_are_good_is_remembered_and_that_they_are_bad_is_not(folder, tmp_path, monkeypatch):
    import rmlab.data.prepare as module

    monkeypatch.setattr(module, "MANY", 10)
    read, real = [], module.to_comparison
    monkeypatch.setattr(module, "to_comparison", lambda row, where, *how: read.append(where) or real(row, where, *how))

    def again(**options):
        read.clear()
        load_rows(DataConfig(train={"t": {"source": "load", "path": str(tmp_path / "rows.jsonl")}}, **options))
        return len(read) > 250

    rows = make_pairs(300).to_list()
    write(tmp_path / "rows.jsonl", rows, "jsonl")
    assert [again(), again(), again(limit=200), again(empty="error"), again()] == [True, False, False, True, False]
    write(tmp_path / "rows.jsonl", [*rows, {**rows[0], "chosen": None}], "jsonl")
    for _ in range(2):
        with pytest.raises(UserError, match=r"t row 300 \(counting from 0\): chosen is neither"):
            again()
