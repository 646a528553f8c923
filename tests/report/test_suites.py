"""Benchmark suites of a study: totals as they are weighed, intervals that know of subsets, one family of tests."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from studies import write_run, write_suite

from rmlab.commands.report import main
from rmlab.report.facts import facts_of
from rmlab.report.figures.look import STYLE, Look, look_of
from rmlab.report.figures.suites import suite_figures
from rmlab.report.items import set_names
from rmlab.report.study import load_study
from rmlab.report.suite_tables import suite_tables
from rmlab.report.suites import compare_suites, load_suites

EASY, HARD = [1] * 38 + [0] * 2, [1] * 3 + [0] * 17
WEIGHTS = {"overall": {"easy": 0.5, "hard": 0.5}, "micro": {"easy": 2 / 3, "hard": 1 / 3}, "easy": {"easy": 1.0}}


def write_study(folder, gained=8):
    """Two arms, three seeds: margin is right on so many more items of `hard`; a total is called as a subset is."""
    for seed in range(3):
        for loss, hard in (("plain", HARD), ("margin", [1] * (3 + gained) + HARD[3 + gained :])):
            out = write_run(folder, seed, [1.0, -1.0], loss=loss)
            write_suite(out, {"easy": EASY, "hard": hard}, weights=WEIGHTS)
    return folder


def compared(folder, **asked):
    study = load_study(folder)
    rows = compare_suites(load_suites(study), list(study.arms), study.baseline)
    return study, rows.set_index(["kind", "number", "arm"])


def test_totals_are_weighed_and_subsets_are_means(tmp_path):
    _, rows = compared(write_study(tmp_path))
    mean = rows["mean"]
    assert mean["total", "overall", "plain"] == pytest.approx((38 / 40 + 3 / 20) / 2)
    assert mean["total", "micro", "plain"] == pytest.approx(41 / 60)
    assert mean["total", "easy", "plain"] == mean["subset", "easy", "plain"] == pytest.approx(38 / 40)
    assert rows["difference"]["total", "overall", "margin"] == pytest.approx(8 / 20 / 2)
    assert rows["difference"]["total", "micro", "margin"] == pytest.approx(8 / 60)
    assert rows["items"]["total", "overall", "plain"] == 60


def test_the_difficulty_of_subsets_is_no_uncertainty(tmp_path):
    """The standard error of a mean of two subsets by hand: each has its own binomial variance, and nothing between."""
    write_study(tmp_path)
    row = compared(tmp_path)[1].loc[("total", "overall", "plain")]
    error = np.sqrt(sum(0.25 * p * (1 - p) / (n - 1) for p, n in ((38 / 40, 40), (3 / 20, 20))))
    odds = {end: np.log(row[end] / (1 - row[end])) for end in ("low", "mean", "high")}
    derivative = row["mean"] * (1 - row["mean"])
    assert (odds["high"] - odds["mean"]) * derivative / 2.0 == pytest.approx(error, rel=0.03)  # t of 58 is 2.0
    pooled = np.sqrt(41 / 60 * 19 / 60 / 59)  # what it would be with that in it
    assert error < 0.9 * pooled


def test_prompts_are_drawn_whole_across_subsets(tmp_path):
    """The same 20 prompts in both subsets, with values that go together: surer than it is, were they taken for 40."""
    values = {"a": [1, 0] * 10, "b": [1, 0] * 10}
    apart, together = (write_run(tmp_path / name, 0, [1.0, -1.0]) for name in ("apart", "together"))
    write_suite(apart, values)
    write_suite(together, values, prompts=[f"p{n % 20}" for n in range(40)])
    wide = {name: compared(tmp_path / name)[1].iloc[0] for name in ("apart", "together")}
    width = {name: np.log(row["high"] / (1 - row["high"])) for name, row in wide.items()}
    assert width["together"] / width["apart"] == pytest.approx(np.sqrt(2), rel=0.1)


def test_arms_and_suites_are_one_family(tmp_path):
    """Holm's over the scores of two suites: the smaller p twice, and no p of a subset among them."""
    write_study(tmp_path)
    for out in [run.out for run in load_study(tmp_path).finished]:
        values = {"all": [1, 0] * 20 if "plain" in out.name else [1, 0] * 18 + [1, 1, 1, 0]}
        write_suite(out, values, name="other", weights={"accuracy": {"all": 1.0}})
    _, rows = compared(tmp_path)
    tested = rows[rows["p_holm"].notna()]
    assert tested["suite"].tolist() == ["bench", "other"]
    small, large = tested["p"]
    assert small < large
    assert tested["p_holm"].tolist() == pytest.approx([2 * small, max(large, 2 * small)])
    assert tested["verdict"].tolist() == ["better", ""]


def test_it_is_in_every_format_and_no_evaluation_set(tmp_path, capsys):
    write_study(tmp_path)
    assert set_names(load_study(tmp_path)) == ["eval"]
    main([str(tmp_path), "--no-figures"])
    assert "Suite bench: overall" in capsys.readouterr().out
    report = tmp_path / "report"
    rows = pd.read_csv(report / "suites.csv")
    assert len(rows) == 2 * (3 + 2)
    for file in ("table.md", "table.tex", "index.html"):
        text = (report / file).read_text()
        assert "0.5500" in text
        assert "hard (20)" in text
    assert "| chance |  | 0.2500 |" in (report / "table.md").read_text()


def test_it_has_a_figure_of_few_arms_and_of_many(tmp_path):
    """A dot and a bar for each arm and number; beyond what one panel can tell apart, a cell."""
    study, rows = compared(write_study(tmp_path))
    with mpl.rc_context(STYLE):
        (few,) = suite_figures(rows.reset_index(), look_of(study)).values()
        names = [f"arm {n}" for n in range(9)]
        many = pd.concat([rows.reset_index().query("arm == 'plain'").assign(arm=name) for name in names])
        look = Look(names, names[0], dict.fromkeys(names, "#404040"), dict.fromkeys(names, "o"), "", {}, True)
        (cells,) = suite_figures(many, look).values()
        assert suite_figures(many.query("arm == 'arm 0'"), look) == {}
    means = sorted(float(line.get_xdata()[0]) for line in few.canvas.axes[0].lines if line.get_marker() in "osD")
    assert means == pytest.approx(sorted(rows["mean"]))
    written = [text.get_text() for text in cells.canvas.axes[0].texts]
    assert written.count(".550") == 9
    assert len(written) == 9 * 5


def test_what_cannot_be_compared_is_said(tmp_path):
    """A damaged file, rows of another version, a total of a subset that some runs lack."""
    write_study(tmp_path)
    first, second, third, *_ = [run.out for run in load_study(tmp_path).finished]
    (first.path / "scores" / "bench.items.parquet").write_text("")
    write_suite(second, {"easy": EASY[:30], "hard": HARD}, weights=WEIGHTS, key="other")
    write_suite(third, {"easy": EASY})
    study, rows = compared(tmp_path)
    assert rows["items"]["subset", "easy", "plain"] == 30
    assert set(rows.index.get_level_values(0)) == {"total", "subset"}
    notes = " ".join(study.notes)
    assert f"suite bench of {first.name}" in notes
    assert "suite bench was not scored on the same rows by all runs" in notes
    assert "suite bench: totals are left out whose subsets are not in all runs" in notes
    assert "overall" not in rows.index.get_level_values(1)


def test_without_a_total_no_subset_stands_for_the_suite(tmp_path):
    for seed in range(2):
        for loss in ("plain", "margin"):
            out = write_run(tmp_path, seed, [1.0, -1.0], loss=loss)
            write_suite(out, {"easy": EASY, "hard": HARD}, weights={"overall": {}})
    _, rows = compared(tmp_path)
    assert rows["p_holm"].isna().all()
    assert [table.kind for table in suite_tables(rows.reset_index(), "plain")] == ["matrix"]


def test_bonus_points_beyond_one_are_within_their_interval(tmp_path):
    for seed in range(2):
        write_suite(write_run(tmp_path, seed, [1.0, -1.0]), {"Ties": [1.01] * 8}, weights={"overall": {"Ties": 1.0}})
    row = compared(tmp_path)[1].iloc[0]
    assert row["low"] < row["mean"] == row["high"] == pytest.approx(1.01)


def test_chance_is_rounded_to_three_decimals(tmp_path):
    _, rows = compared(write_study(tmp_path))
    matrix = suite_tables(rows.assign(chance=2 / 3).reset_index(), "plain")[1].cells
    assert set(matrix["chance"]) == {"0.667"}


def test_a_single_comparison_of_suites_needs_no_correction(tmp_path):
    study, rows = compared(write_study(tmp_path))
    none = pd.DataFrame(columns=["p_holm", "metric"])
    facts = facts_of(study, {}, none, rows)
    assert "corrected (Holm) over nothing, being one, a family of their own." in facts[-1]
