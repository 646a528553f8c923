"""What suites say, as tables and in W&B."""

from types import SimpleNamespace

import pytest

from rmlab.runner.suite_tables import print_suite, print_totals
from rmlab.runner.tracking import track_suites

NUMBER = {"value": 0.75, "low": 0.5, "high": 0.9, "items": 1234, "ties": 0.01, "chance": None}
SAID = {"overall": "micro", "totals": {"micro": NUMBER, "macro": NUMBER}, "subsets": {"[/b] odd": NUMBER}}


def test_a_suite_has_a_row_per_subset_and_total_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    print_suite("judge_bench", SAID)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["judge_bench", "", "micro", "macro"]
    assert "[/b] odd" in lines[1]
    assert "1,234  0.750 [0.500, 0.900]" in lines[2]
    assert max(map(len, lines)) <= 80


def test_a_run_shows_the_score_of_each_suite(capsys):
    print_totals({"judge_bench": SAID, "a" * 90: SAID})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("judge_bench: micro")
    assert "macro" not in "".join(lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("tracker", [None, SimpleNamespace(summary={})])
def test_w_and_b_gets_the_totals(tracker):
    track_suites(tracker, {"judge_bench": SAID})
    if tracker is not None:
        assert tracker.summary == {"suites/judge_bench/micro": 0.75, "suites/judge_bench/macro": 0.75}
