"""What a finished run prints, read back from the terminal."""

import math

import pytest
from rich.cells import cell_len

from rmlab.runner.directory import RunDirectory
from rmlab.runner.summary import hints, print_table

PART = {
    "preferences": 3657, "accuracy": 0.5884, "accuracy_low": 0.5724, "accuracy_high": 0.6042, "nll": 0.6684,
    "nll_low": 0.651, "nll_high": 0.6858, "ece": 0.0174, "gap_mean": 0.1085, "longer_wins": 0.51,
    "longer_wins_low": 0.494, "longer_wins_high": 0.526,
}  # fmt: skip
TRAIN = {"loss": 0.2245, "accuracy": 0.61, "steps": 1688, "epochs": 2.0}
HOSTILE = ["[/b]", "\x1b[31mred", "two\nlines", "长" * 60, "‮right to left", "prefix " + "x" * 200 + " end", "{}"]


@pytest.fixture
def printed(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def lines(sets, train=TRAIN):
        print_table({"eval": sets, "train": train}, RunDirectory(tmp_path), 60.0)
        return capsys.readouterr().out.splitlines()

    return lines


def test_sets_and_subsets_are_rows_whose_numbers_are_whole(printed):
    lines = printed({"a": {**PART, "subsets": {"easy": PART, "hard": PART}}, "b": PART})
    rows = {line.split("  ")[0] or line.split("  ")[1]: line for line in lines}
    assert {"a", "easy", "hard", "b", "chance", "longer wins"} <= rows.keys()
    for name in ("a", "easy", "hard", "b"):
        assert rows[name].split()[-7:] == ["3,657", "0.588", "[0.572,", "0.604]", "0.6684", "0.0174", "0.1085"]
    assert rows["longer wins"].split()[-3:] == ["0.510", "[0.494,", "0.526]"]
    assert rows["chance"].split() == ["chance", "0.500", f"{math.log(2):.4f}"]
    assert "training, last logged: loss 0.2245, accuracy 0.610; 1,688 steps, epoch 2" in lines


def test_no_name_breaks_the_table_or_80_columns(printed):
    large = {**PART, "preferences": 12_345_678, "nll": 123.4567, "gap_mean": -1234.5678}
    lines = printed({"eval": {**PART, "subsets": dict.fromkeys(HOSTILE, large)}})
    table = [line for line in lines if "[0.572, 0.604]" in line]
    assert len(table) == 1 + len(HOSTILE)
    assert all(line.endswith(f"123.4567  0.0174  {-1234.5678:.4f}") for line in table[1:])
    assert max(map(cell_len, lines[: len(table) + 5])) <= 80
    assert all(sign.isprintable() for line in lines for sign in line)
    assert any("[/b]" in line for line in table)
    assert any(line.startswith("  p") and "...x" in line and " end " in line for line in table)


def test_what_the_stream_cannot_write_is_no_error(tmp_path, monkeypatch):
    import io
    import sys

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    print_table({"eval": {"été": PART}, "train": TRAIN}, RunDirectory(tmp_path), 60.0)
    stream.flush()
    assert b"?t?" in stream.buffer.getvalue()


def test_a_run_that_evaluated_nothing_has_no_table(printed):
    lines = printed({}, {"steps": 4, "epochs": 1.0})
    assert lines[1] == "training: 4 steps, epoch 1"
    assert not any("chance" in line for line in lines)


@pytest.mark.parametrize(
    ("held_out", "train", "said"),
    [
        ({}, {}, []),
        ({"accuracy": 0.52, "accuracy_low": 0.49, "accuracy_high": 0.55}, {}, ["0.520", "told from chance"]),
        ({"nll_high": 0.71}, {}, ["nll 0.668", "told from chance"]),
        ({"accuracy": 0.3, "accuracy_low": 0.2, "accuracy_high": 0.4}, {}, ["0.300", "below chance"]),
        ({}, {"accuracy": 0.98}, ["0.980", "0.588", "remembered"]),
        ({}, {"accuracy": 0.98, "epochs": 1.0}, []),  # each row was new when it was counted
        ({"accuracy": 0.9, "accuracy_low": 0.5, "accuracy_high": 1.0}, {"accuracy": 1.0}, ["told from chance"]),
        ({"nll": 0.9, "nll_low": 0.8, "nll_high": 1.0}, {}, ["0.900", "0.588", "too sure"]),
    ],
)
def test_a_hint_says_what_the_numbers_mean(held_out, train, said):
    found = list(hints({"eval": {"dev": {**PART, **held_out}}, "train": {**TRAIN, **train}}))
    assert len(found) == bool(said)
    assert all(words in found[0] for words in said)


SHORTER = {"length": {"shorter": {"value": 0.41, "low": 0.37, "high": 0.45, "n": 2000}}}
STRETCHED = {"calibration": {"temperature": {"value": 2.0, "nll_before": 0.62, "nll_after": 0.6, "n": 1800}}}


def test_what_diagnostics_show_is_said_once_for_the_first_set_that_shows_it():
    sets = {"a": PART, "b": {**PART, "diagnostics": SHORTER}, "c": {**PART, "diagnostics": {**SHORTER, **STRETCHED}}}
    first, second = hints({"eval": sets, "train": TRAIN})
    assert first.startswith("b: accuracy is 0.410 on the 2,000 preferences whose better response is the shorter one")
    assert second.startswith("c: rewards divided by 2.00 take nll from 0.620 to 0.600")


@pytest.mark.parametrize(
    "diagnostics",
    [
        {},
        {"length": {"shorter": {"n": 0}}},
        {"length": {"shorter": {"value": 0.48, "low": 0.44, "high": 0.52, "n": 99}}},
        {"calibration": {"temperature": {**STRETCHED["calibration"]["temperature"], "value": 1.2}}},
        {"calibration": {"temperature": {**STRETCHED["calibration"]["temperature"], "nll_after": 0.619}}},
        {"calibration": {"temperature": {**STRETCHED["calibration"]["temperature"], "n": 20}}},
    ],
)
def test_diagnostics_that_nobody_would_act_on_are_not_said(diagnostics):
    assert list(hints({"eval": {"a": {**PART, "diagnostics": diagnostics}}, "train": TRAIN})) == []


def test_a_set_with_a_hint_of_its_own_is_not_diagnosed_too():
    worse = {**PART, "nll": 0.9, "nll_low": 0.8, "nll_high": 1.0, "diagnostics": STRETCHED}
    (hint,) = hints({"eval": {"a": worse}, "train": TRAIN})
    assert "too sure" in hint
