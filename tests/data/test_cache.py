"""Tokens kept on disk: what is damaged is made anew, and what dead processes left is removed."""

import shutil
import subprocess
import sys

import pytest
from conftest import make_pairs
from datasets import Dataset

from rmlab import files
from rmlab.data.config import Options
from rmlab.data.prepare import numbered, tokenize
from rmlab.messages import UserError


def cached(tokenizer, folder):
    return tokenize(make_pairs(30), tokenizer, Options(), "t", folder)


def entry(folder):
    (place,) = (p for p in folder.iterdir() if (p / "whole").exists())
    return place


HARM = {
    "zeroed": lambda data: data[:200] + bytes(len(data) - 200),
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "flipped": lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:],
}


@pytest.mark.parametrize("harm", [*HARM, "gone", "without a seal"])
def test_a_damaged_entry_is_named_and_made_anew(harm, tokenizer, tmp_path, capsys):
    whole = cached(tokenizer, tmp_path)[:]
    place = entry(tmp_path)
    data = place / "trees.arrow"
    if harm in HARM:
        data.write_bytes(HARM[harm](data.read_bytes()))
    else:
        (data if harm == "gone" else place / "whole").unlink()
    capsys.readouterr()
    assert cached(tokenizer, tmp_path)[:] == whole
    assert f"{place} is damaged (" in capsys.readouterr().out
    assert files.damage(entry(tmp_path)) is None
    cached(tokenizer, tmp_path)
    assert "damaged" not in capsys.readouterr().out


def test_what_several_processes_made_is_kept_in_the_order_of_the_rows(tokenizer, tmp_path):
    one = cached(tokenizer, tmp_path / "one")[:]
    for _ in range(2):
        two = tokenize(make_pairs(30), tokenizer, Options(), "t", tmp_path / "two", num_proc=2)
        assert two[:] == one
    assert len(list(entry(tmp_path / "two").glob("*.arrow"))) == 2


def test_what_datasets_leaves_in_an_entry_is_no_part_of_it(tokenizer, tmp_path):
    whole = cached(tokenizer, tmp_path)
    whole.shuffle(seed=1).map(lambda row: {"id": "changed"})
    assert len(list(entry(tmp_path).glob("*.arrow"))) > 1
    assert cached(tokenizer, tmp_path)[:] == whole[:]


def test_numbered_trees_are_not_taken_from_what_lies_in_an_entry(tokenizer, tmp_path):
    """Some rows of a whole entry: that they are so is not written beside it, where nothing would tell its damage."""
    before = numbered(cached(tokenizer, tmp_path).select([5, 3, 8]))
    assert before["id"][:] == ["5", "3", "8"]
    assert before["index"][:] == [0, 1, 2]
    assert [file.name for file in entry(tmp_path).glob("*.arrow")] == ["trees.arrow"]


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    place = tmp_path / "abc"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    mine = files.scratch_of(place)
    host = mine.name.split(".")[1].split("-")[0]
    left = tmp_path / f"abc.{host}-{dead.stdout.strip()}-0"
    elsewhere = tmp_path / f"abc.another{host}-{dead.stdout.strip()}-0"
    for folder in (mine, left, elsewhere):
        folder.mkdir()
    assert files.scratch_of(place) != mine
    assert {p.name for p in tmp_path.iterdir()} == {mine.name, elsewhere.name}


def test_names_of_scratch_folders_differ_between_machines_and_calls(tmp_path, monkeypatch):
    names = {files.scratch_of(tmp_path / "abc").name for _ in range(2)}
    monkeypatch.setattr("rmlab.files.platform.node", lambda: "other.machine")
    names.add(files.scratch_of(tmp_path / "abc").name)
    assert len(names) == 3
    assert len({name.split("-")[0] for name in names}) == 2


def test_a_full_disk_under_the_cache_of_datasets_is_a_sentence(tokenizer, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.Dataset.map", full)
    with pytest.raises(UserError, match=r"t: its tokens cannot be written .*No space left.*HF_DATASETS_CACHE"):
        tokenize(make_pairs(3), tokenizer, Options(), "t")


def test_what_datasets_keeps_is_not_taken_for_a_damaged_entry(tokenizer, tmp_path):
    """It keeps what it maps of rows that lie on disk, under the same name, and does not look at them again."""
    make_pairs(30).to_parquet(str(tmp_path / "rows.parquet"))
    rows = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "datasets"))
    whole = tokenize(rows, tokenizer, Options(), "t", tmp_path / "ours")[:]
    for kept in (tmp_path / "datasets").rglob("cache-*.arrow"):
        kept.write_bytes(b"")
    shutil.rmtree(entry(tmp_path / "ours"))
    assert tokenize(rows, tokenizer, Options(), "t", tmp_path / "ours")[:] == whole


def test_a_full_disk_is_a_line_and_leaves_nothing(tokenizer, tmp_path, monkeypatch, capsys):
    real = Dataset.map

    def full(self, *arguments, cache_file_name=None, **options):
        made = real(self, *arguments, cache_file_name=cache_file_name, **options)
        if cache_file_name is not None:
            raise OSError(28, "No space left on device")
        return made

    monkeypatch.setattr("datasets.Dataset.map", full)
    assert len(cached(tokenizer, tmp_path)) == 30
    assert "cannot be written ([Errno 28] No space left on device)" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
