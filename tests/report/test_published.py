"""A paper's claims beside what runs say: who agrees, who disagrees, who cannot tell; one correction over all."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from studies import write_run, write_suite

from rmlab.commands.report import main
from rmlab.messages import UserError
from rmlab.report.items import load_items
from rmlab.report.published import judged
from rmlab.report.study import load_study
from rmlab.report.suites import load_suites
from rmlab.runner.published import Published

TABLE = {
    "citation": "Somebody, A paper, arXiv 0000.00000, table 1",
    "evidence": "transcribed",
    "metric": "accuracy in percent",
    "columns": {"clear": {"strength": [1.0]}, "all": {}},
    "arms": {"plain": [79.1, 62.5], "margin": [80.7, 62.9], "hinge": [78.0, 62.4]},
    "claims": ["margin > plain on clear"],
}


def write(folder, better):
    """Plain and margin, three seeds, 100 prompts; margin is right on `better` more of them."""
    noise = np.random.default_rng(1)
    base = np.where(np.arange(100) % 4 == 0, -1.0, 1.0)
    for seed in range(3):
        gaps = base + noise.normal(0, 0.05, 100)
        write_run(folder, seed, gaps, report__published=TABLE)
        gaps[np.flatnonzero(gaps < 0)[:better]] *= -1
        write_run(folder, seed, gaps, loss="margin", report__published=TABLE)
    return folder


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """By how many prompts margin is better."""
    return {better: load_study(write(tmp_path_factory.mktemp("study"), better)) for better in (12, 1)}


def claims_of(study, *claims):
    told = Published.of({**TABLE, "arms": {}, "claims": list(claims)}) if claims else study.published
    return judged(replace(study, published=told), {"eval": load_items(study, "eval")}, load_suites(study))


@pytest.mark.parametrize(
    ("better", "claim", "verdict"),
    [
        (12, "margin > plain on clear", "agrees"),
        (12, "plain < margin on clear", "agrees"),
        (12, "plain > margin on all", "disagrees"),
        (12, "margin < plain on all", "disagrees"),
        (1, "margin > plain on clear", "cannot tell"),
    ],
)
def test_a_claim_is_judged_by_the_paired_interval(studies, better, claim, verdict):
    row = claims_of(studies[better], claim).iloc[0]
    assert row["difference"] == pytest.approx((1 if claim.startswith("margin") else -1) * better / 100)
    assert row["verdict"] == verdict
    assert (row["diff_low"] > 0 or row["diff_high"] < 0) == (verdict != "cannot tell")
    assert row["n"] == 100
    assert row["detectable"] > 0.01


def test_all_claims_of_a_study_are_one_family(studies):
    """Holm (1979): the smallest p is multiplied by the number of claims that could be tested."""
    rows = claims_of(studies[12], "margin > plain on all", "margin > plain on clear", "hinge > plain on all")
    assert rows["verdict"].tolist()[2] == "not run"
    assert rows["p_holm"][0] == pytest.approx(min(1, 2 * rows["p"][0]))
    assert rows["why"][2] == "there is no arm hinge"


def test_a_single_seed_decides_nothing(tmp_path):
    for loss in ("plain", "margin"):
        write_run(tmp_path, 0, [1.0, -1.0, 2.0], loss=loss, report__published=TABLE)
    assert claims_of(load_study(tmp_path))["verdict"].tolist() == ["one seed"]


def test_a_column_may_be_a_suite_or_how_far_rewards_are_from_zero(tmp_path):
    columns = {"bench": {"suite": "bench"}, "zero": {"metric": "offset"}, "Chat": {"suite": "other", "number": "Chat"}}
    claims = ["margin > plain on bench", "margin < plain on zero", "margin > plain on Chat"]
    published = {**TABLE, "columns": columns, "arms": {}, "claims": claims}
    for seed in range(2):
        for loss, right in (("plain", 0), ("margin", 1)):
            out = write_run(tmp_path, seed, [2.0, 4.0 - 2 * right] * 9, loss=loss, report__published=published)
            write_suite(out, {"a": [right] * 10 + [0] * 2, "b": [1] * 8})
    rows = claims_of(load_study(tmp_path))
    assert rows["difference"][0] == pytest.approx((10 / 12) / 2)  # the mean of two subsets, of which one differs
    assert rows["difference"][1] == pytest.approx(-0.5)  # rewards are the gap and 0: |mean| is 1 and 2, or 1 and 1
    assert rows["why"][2] == "no run was scored on the suite other"


def test_the_report_shows_the_paper_beside_the_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "180")
    write(tmp_path, 12)
    main([str(tmp_path), "--no-figures", "--rename", "margin=with margins"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Published: Somebody, A paper, arXiv 0000.00000, table 1 (accuracy in percent; transcribed)" in printed
    text = (tmp_path / "report" / "table.md").read_text()
    assert "| with margins | 80.7 | 62.9 |" in text
    assert "| hinge (no arm here) | 78.0 | 62.4 |" in text
    assert "| margin > plain on clear | accuracy on eval, strength 1 (100) | +1.6 | +0.1200 [" in text
    assert '<td class="better">agrees</td>' in (tmp_path / "report" / "index.html").read_text()
    assert "margin $>$ plain on clear" in (tmp_path / "report" / "table.tex").read_text()
    assert pd.read_csv(tmp_path / "report" / "claims.csv")["verdict"].tolist() == ["agrees"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"citation": ""}, "citation is missing"),
        ({"evidence": "sure"}, "evidence is 'sure'"),
        ({"columns": {}}, "columns is empty"),
        (
            {"columns": {"a": {"metric": "accurracy"}, "b": {}}},
            "columns.a.metric is 'accurracy'; did you mean 'accuracy'",
        ),
        ({"columns": {"a": {"number": "Chat"}, "b": {}}}, "columns.a.number is of a suite"),
        ({"columns": {"a": {"strength": [1, 2, 3]}, "b": {}}}, "columns.a.strength"),
        ({"arms": {"plain": [1.0]}}, "arms.plain has 1 numbers for 2 columns"),
        ({"claims": ["margin is better"]}, "'margin is better' is no claim"),
        ({"claims": ["margin > plain"]}, "say on which of clear, all"),
        ({"claims": ["margin > plain on al"]}, "did you mean 'all'"),
        ({"claims": ["margin < plain on all"]}, "the numbers in arms differ by +0.4"),
    ],
)
def test_a_published_table_that_is_none_is_refused(changes, said):
    with pytest.raises(UserError) as refused:
        Published.of({**TABLE, **changes})
    assert said in str(refused.value)
