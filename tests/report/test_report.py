"""rmlab-report: what it writes and prints, in every format."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from studies import write_run, write_study, write_suite

from rmlab.commands.report import main
from rmlab.report.compare import compare, references_of
from rmlab.report.items import load_items
from rmlab.report.latex import long_tables, short_tables
from rmlab.report.study import load_study
from rmlab.report.tables import Words, markdown, readable


@pytest.fixture
def study(tmp_path):
    """Two losses, three seeds, 60 prompts: margin is right 8 times more of them, for every seed."""
    return write_study(tmp_path)


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Whoever runs the tests may have a narrow terminal."""
    monkeypatch.setenv("COLUMNS", "160")


def test_a_folder_without_finished_runs_is_an_error(tmp_path, capsys):
    write_run(tmp_path, 0)
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code == 2
    assert "holds no finished run" in capsys.readouterr().err


def test_missing_and_failed_runs_are_shown(study, capsys):
    write_run(study, 3, [1.0] * 60)
    write_run(study, 3, loss="margin").write_error(RuntimeError("out of memory"))
    write_run(study, 4)
    notes = load_study(study).notes
    assert any("(margin, seed 3) failed: RuntimeError: out of memory" in note for note in notes)
    assert any("(plain, seed 4) was not started" in note for note in notes)
    assert "margin has no finished run of seed 3" in notes
    main([str(study), "--no-figures"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "failed: RuntimeError: out of memory" in printed
    assert "out of memory" in (study / "report" / "table.md").read_text()
    assert "out of memory" in (study / "report" / "index.html").read_text()
    rows = pd.read_csv(study / "report" / "table.csv")
    margin = rows[(rows.arm == "margin") & (rows.metric == "accuracy")].iloc[0]
    assert (margin.seeds, margin.pairs) == (3, 3)


def test_the_report_is_written_in_every_format(study, capsys):
    main([str(study)])
    printed = capsys.readouterr().out
    assert "Which is best?" in printed
    assert "plain (baseline)" in printed
    report = study / "report"
    assert {p.name for p in report.iterdir()} >= {"table.md", "table.tex", "table.csv", "index.html", "figures"}
    assert "| margin | 3 | " in (report / "table.md").read_text()
    tex = (report / "table.tex").read_text()
    assert tex.count("\\toprule") == tex.count("\\bottomrule") == 5
    assert "$\\pm$" in tex
    rows = pd.read_csv(report / "table.csv")
    assert len(rows) == 6
    assert {"difference", "diff_low", "diff_high", "p_holm", "mcnemar", "detectable"} <= set(rows.columns)


def test_names_that_would_break_a_format_are_escaped(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed, [1.0, -1.0, 2.0])
        write_run(tmp_path, seed, [1.0, 1.0, 2.0], loss="a_b|c & 50% {\\x$")
    loaded = load_study(tmp_path)
    items = {"eval": load_items(loaded, "eval")}
    rows = compare(items, list(loaded.arms), "plain")
    tables, words = readable(rows, references_of(items), "plain"), Words("t", [], [])
    assert "a_b\\|c & 50%" in markdown(tables, words)
    for text in (long_tables(tables, words, "study"), short_tables(rows, "plain", "study")):
        assert "a\\_b|c \\& 50\\% \\{\\textbackslash{}x\\$" in text


def test_one_common_seed_gets_no_verdict(tmp_path, capsys):
    """However clear the difference: it may be the seed's."""
    for seed in (0, 1, 2):
        write_run(tmp_path, seed, np.tile([1.0, -1.0], 50))
    for seed in (2, 3, 4):
        write_run(tmp_path, seed, np.ones(100), loss="margin")
    main([str(tmp_path), "--no-figures"])
    printed = capsys.readouterr().out
    assert "3, 1 paired" in printed
    assert "one seed" in printed
    rows = pd.read_csv(tmp_path / "report" / "table.csv")
    margin = rows[(rows.arm == "margin") & (rows.metric == "accuracy")].iloc[0]
    assert margin.p < 0.001
    assert margin.verdict == "one seed"


def test_one_seed_says_what_the_interval_lacks(tmp_path, capsys):
    write_run(tmp_path, 0, [1.0, -1.0, 1.0])
    write_run(tmp_path, 0, [1.0, 1.0, 1.0], loss="margin")
    main([str(tmp_path), "--no-figures"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "a difference from one pair of seeds does not know what other seeds would give" in printed


def test_a_narrow_terminal_shows_whole_numbers(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    main([str(study), "--no-figures"])
    printed = capsys.readouterr().out
    difference = pd.read_csv(study / "report" / "table.csv").query("arm == 'margin' and metric == 'accuracy'").iloc[0]
    assert f"{difference.diff_low:+.4f}, {difference.diff_high:+.4f}]" in printed
    assert "\u2026" not in printed


def test_files_are_written_before_a_line_is_printed(study):
    """So `| head` loses nothing, and says nothing."""
    command = f"{sys.executable} -m rmlab.commands.report {study} --no-figures | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert (study / "report" / "index.html").exists()


def test_subsets_have_tables_with_intervals_and_what_the_longer_response_gives(tmp_path, capsys):
    for seed in range(2):
        write_run(tmp_path, seed, [1.0, -1.0] * 20, subsets=["a", "b"] * 20)
        write_run(tmp_path, seed, [1.0, 1.0] * 20, loss="margin", subsets=["a", "b"] * 20)
    main([str(tmp_path), "--no-figures"])
    printed = capsys.readouterr().out
    assert "Accuracy by subset" in printed
    rows = pd.read_csv(tmp_path / "report" / "table.csv", keep_default_na=False)
    of_b = rows[(rows.subset == "b") & (rows.metric == "accuracy") & (rows.arm == "margin")].iloc[0]
    assert (of_b.n, float(of_b["mean"]), float(of_b.difference)) == (20, 1.0, 1.0)
    assert of_b.p_holm == ""  # no verdict on a subset
    table = (tmp_path / "report" / "table.md").read_text()
    assert "| longer wins |  | 0.0000 |" in table
    assert "| chance |  | 0.5000 |" in table
    assert "| chance |  | 0.6931 |" in table


def test_two_swept_values_have_main_effects_and_an_interaction(tmp_path, capsys):
    """By hand: margin is right 4 items of 40 more at either rate, rate 0.5 8 items less, both together 2 more."""
    right = {("plain", 0.001): 30, ("margin", 0.001): 34, ("plain", 0.5): 22, ("margin", 0.5): 28}
    for (loss, rate), number in right.items():
        for seed in range(2):
            gaps = [1.0] * number + [-1.0] * (40 - number)
            write_run(tmp_path, seed, gaps, loss=loss, trainer__learning_rate=rate)
    main([str(tmp_path), "--no-figures", "--baseline", "plain learning_rate=0.001"])
    found = pd.read_csv(tmp_path / "report" / "effects.csv").query("metric == 'accuracy'").set_index("effect")
    assert found["difference"].to_dict() == pytest.approx(
        {
            "margin instead of plain, over learning_rate": (4 + 6) / 2 / 40,
            "learning_rate=0.5 instead of 0.001, over loss": (-8 - 6) / 2 / 40,
            "margin and learning_rate=0.5 together, beyond both": 2 / 40,
        }
    )
    assert "Two values at once: Accuracy" in capsys.readouterr().out


def test_a_prompt_that_holds_much_is_told(tmp_path, capsys):
    for seed in range(2):
        write_run(tmp_path, seed, [1.0, -1.0] * 10, prompts=["same"] * 10 + list("abcdefghij"))
        write_run(tmp_path, seed, [1.0, 1.0] * 10, loss="margin", prompts=["same"] * 10 + list("abcdefghij"))
    main([str(tmp_path), "--no-figures"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "one prompt holds 50% of the preferences of eval: they tell as much as 4 prompts of equal size" in printed


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX here")
def test_the_tables_are_latex(tmp_path):
    """Both compile, without a box that is too wide, whatever the arms are called."""
    for seed in range(2):
        for loss, rate, gap in (("plain", 0.001, -1.0), ("a_b|c & 50% {\\x$ ~^#", 0.1, 1.0)):
            out = write_run(tmp_path / "a_%$", seed, [1.0, gap, 2.0], loss=loss, trainer__learning_rate=rate)
            write_suite(out, {"easy_%": [1, 0, 1], "h&rd # {": [gap > 0, 0, 1]})
    main([str(tmp_path / "a_%$"), "--no-figures"])
    report = tmp_path / "a_%$" / "report"
    text = (
        "\\documentclass[twocolumn]{article}\\usepackage{booktabs,graphicx}\\begin{document}x\n"
        "\\input{table_short}\\input{table}\\end{document}"
    )
    (report / "paper.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=report, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:]
    assert "Overfull" not in done.stdout


@pytest.mark.slow
def test_the_report_can_be_logged_to_wandb(study):
    """In a process of its own: W&B keeps a service for the rest of this one."""
    command = [sys.executable, "-m", "rmlab.commands.report", str(study), "--wandb"]
    subprocess.run(command, env={**os.environ, "WANDB_MODE": "offline"}, check=True, capture_output=True)
    (file,) = (study / "report").glob("wandb/offline-run-*-fake-report/run-fake-report.wandb")
    content = file.read_bytes()
    assert b"table/Accuracy" in content
    assert b"figure/accuracy" in content
