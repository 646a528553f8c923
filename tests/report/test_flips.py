"""Flips: what two arms decide differently, the worst first, with texts that may hold anything."""

import numpy as np
import pandas as pd
import pytest
from studies import write_run

from rmlab.commands.report import main
from rmlab.report.flips import SHOWN, flips, flips_tables
from rmlab.report.items import load_items, texts_of_set
from rmlab.report.study import load_study

HOSTILE = "<script>alert(1)</script> | ![x](http://y) `z`\n# head " + "long " * 60


def found_in(study):
    loaded = load_study(study)
    items = {"eval": load_items(loaded, "eval")}
    return flips(items, list(loaded.arms), "plain"), items


def test_most_seeds_decide_and_a_tie_is_no_flip(tmp_path):
    """By hand: the second is lost, the third gained; the fourth is a tie, the last split, so the mean decides."""
    for seed, (plain, margin) in enumerate(
        [
            ([2, 2, -1, 1, 1], [2, -3, 1, 0, 1]),
            ([2, 2, -1, 1, 1], [2, -1, 1, 0, -3]),
            ([2, 2, 5, 1, 1], [2, 4, 1, 0, 0]),
        ]
    ):
        write_run(tmp_path, seed, plain)
        write_run(tmp_path, seed, margin, loss="margin")
    found, items = found_in(tmp_path)
    assert dict(zip(found["id"], found["right"], strict=True)) == {"1": "baseline", "2": "arm", "4": "baseline"}
    of = found.set_index("id")
    assert of.loc["2", ["baseline_gap", "arm_gap"]].tolist() == [1.0, 1.0]  # means; two seeds of three decide
    assert of.loc["1", ["baseline_gap", "arm_gap"]].tolist() == [2.0, 0.0]
    size = {arm: items["eval"].gap[items["eval"].arm == arm].mean(axis=0) for arm in ("plain", "margin")}
    each = -size["plain"] / size["plain"].std() * size["margin"] / size["margin"].std()
    assert of.loc["2", "size"] == pytest.approx(each[2])


@pytest.fixture
def study(tmp_path):
    """40 items: the arm gains 24 and loses 8, the last ones surest."""
    plain, margin = np.ones(40), np.ones(40)
    plain[:24], margin[32:] = -np.arange(1, 25), -np.arange(1, 9)
    texts = [(f"question {n}", HOSTILE if n == 23 else f"good {n}", f"bad {n}") for n in range(40)]
    write_run(tmp_path / "study", 0, plain, texts=texts)
    write_run(tmp_path / "study", 0, margin, loss="margin", texts=texts)
    return tmp_path / "study"


def test_the_worst_of_both_directions_are_shown(study):
    found, items = found_in(study)
    assert len(found) == 32
    assert found["size"].is_monotonic_decreasing
    (table,) = flips_tables(found, lambda name: texts_of_set(items, name), several=False)
    assert "24 gained, 8 lost" in table.title
    assert table.cells["right"].tolist() == ["plain"] * (SHOWN // 2) + ["margin"] * (SHOWN // 2)
    assert table.cells["id"].tolist() == [*map(str, range(39, 34, -1)), *map(str, range(23, 18, -1))]
    assert table.cells.iloc[0][["prompt", "preferred", "other"]].tolist() == ["question 39", "good 39", "bad 39"]


def test_texts_harm_no_format(study, capsys):
    main([str(study), "--no-figures"])
    assert "question 39" not in capsys.readouterr().out  # the terminal has the numbers
    report = study / "report"
    assert len(pd.read_csv(report / "flips.csv")) == 32
    page = (report / "index.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    lines = [line for line in (report / "table.md").read_text().splitlines() if "alert" in line]
    assert len(lines) == 1
    assert "\\<script\\>alert(1)\\</script\\> \\| \\!\\[x\\](http://y) \\`z\\` \\# head" in lines[0]
    assert len(lines[0]) < 400
    assert "question" not in (report / "table.tex").read_text() + (report / "table_short.tex").read_text()


def test_without_texts_there_are_ids(tmp_path, capsys):
    write_run(tmp_path, 0, [1.0, -1.0, 1.0])
    write_run(tmp_path, 0, [1.0, 1.0, 1.0], loss="margin")
    main([str(tmp_path), "--no-figures"])
    capsys.readouterr()
    table = (tmp_path / "report" / "table.md").read_text()
    assert "| id | right | gap of plain | gap of margin |" in table
    assert "| 1 | margin | -1 | +1 |" in table
