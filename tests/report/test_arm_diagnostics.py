"""Diagnostics of the arms: what runs have written of themselves, else what their scores tell."""

import itertools
import json
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from studies import write_run, write_suite

from rmlab.commands.report import main
from rmlab.metrics.evaluate import evaluate
from rmlab.metrics.scored import ScoredComparison
from rmlab.report.diagnostics import diagnostics_table, scored_of, told_by
from rmlab.report.figures import diagnostics
from rmlab.report.figures.look import STYLE, look_of
from rmlab.report.items import load_items
from rmlab.report.outside import Asked, with_outside
from rmlab.report.study import load_study
from rmlab.runner.directory import RunDirectory

PROMPTS, K = 60, 4


def write(folder, loss, seed, noise):
    """Four responses to a prompt with known gold, rewards that are gold and noise, lengths at random."""
    generator = np.random.default_rng(7 + seed)
    out = write_run(folder, seed, [1.0, -1.0], loss=loss)
    gold = np.random.default_rng(0).normal(0, 1, (PROMPTS, K))
    lengths = np.random.default_rng(1).integers(10, 90, (PROMPTS, K)).tolist()
    rewards = gold + noise * generator.normal(0, 1, (PROMPTS, K))
    comparisons = []
    for n in range(PROMPTS):
        pairs = [(i, j) if gold[n, i] > gold[n, j] else (j, i) for i, j in itertools.combinations(range(K), 2)]
        better, worse = (list(side) for side in zip(*pairs, strict=True))
        names = {"index": n, "id": str(n), "prompt_id": f"p{n}", "subset": "", "gold": gold[n].tolist()}
        labels = {"better": better, "worse": worse, "strength": [1.0] * len(pairs), "probability": [1.0] * len(pairs)}
        comparisons.append(ScoredComparison(**names, **labels, rewards=rewards[n].tolist(), lengths=lengths[n]))
    out.write_scores("eval", comparisons)
    out.write_metrics({"eval": {"eval": evaluate(comparisons)}, "train": {}})
    return out, gold, rewards


@pytest.fixture
def study(tmp_path):
    for seed in range(2):
        write(tmp_path, "plain", seed, 2.0)
        write(tmp_path, "margin", seed, 0.0)
    return tmp_path


def cells_of(folder):
    (table,) = diagnostics_table(*loaded(folder))
    return table.cells.set_index("arm")


def loaded(folder, *asked):
    """The study with these outside scores, and what each run has scored."""
    study = load_study(folder)
    study, items = with_outside(study, {"eval": load_items(study, "eval")}, asked, lambda _: None)
    return study, {"eval": scored_of(study, items["eval"], "eval")}


def test_what_old_runs_lack_is_told_by_their_scores(study):
    """By hand: the gold of the response with most reward, as a share of what the best would give; 1 for gold itself."""
    cells = cells_of(study)
    assert cells.loc["margin", "best-of-n recovery"] == "1.0000 ± 0.0000"
    assert cells.loc["margin", "accuracy, better is shorter"] == "1.0000 ± 0.0000"
    assert cells.loc["margin", "temperature"] == ""  # of what is always right there is none
    found = []
    for seed in range(2):
        _, gold, rewards = write(study / "again", "plain", seed, 2.0)
        picked = gold[np.arange(PROMPTS), rewards.argmax(axis=1)].mean()
        found.append((picked - gold.mean()) / (gold.max(axis=1).mean() - gold.mean()))
    mean, sd = cells.loc["plain (baseline)", "best-of-n recovery"].split(" ± ")
    assert (float(mean), float(sd)) == pytest.approx((np.mean(found), np.std(found, ddof=1)), abs=1e-4)


def test_what_a_run_wrote_is_taken(study):
    for out in [run.out for run in load_study(study).finished if run.arm == "plain"]:
        metrics = out.metrics()
        metrics["eval"]["eval"]["diagnostics"] = {"calibration": {"ece_equal_mass": 0.125}, "best_of_n": {}}
        (out.path / "metrics.json").write_text(json.dumps(metrics))
    line = cells_of(study).loc["plain (baseline)"]
    assert line["ECE (equal mass)"] == "0.1250 ± 0.0000"
    assert set(line.drop("ECE (equal mass)")) == {""}


def test_only_comparisons_of_all_runs_are_counted(study):
    out = load_study(study).finished[0].out
    for file in out.score_files("eval"):
        table = pd.read_parquet(file)
        kept = table[table["comparison"] > 9].sort_values("comparison", ascending=False, kind="stable")
        kept.to_parquet(file, index=False)
    scored = loaded(study)[1]["eval"]
    names = [[c.id for c in run] for runs in scored.values() for run in runs]
    assert len(names) == 4
    assert all(one == names[0] for one in names)
    assert sorted(map(int, names[0])) == list(range(10, PROMPTS))


def test_a_row_that_one_run_has_twice_counts_once(study):
    out = load_study(study).finished[0].out
    comparisons = out.scores("eval").comparisons()
    out.write_scores("eval", [*comparisons, replace(comparisons[0], index=PROMPTS)])
    scored = scored_of(load_study(study), None, "eval")
    assert {len(run) for runs in scored.values() for run in runs} == {PROMPTS}


def test_what_a_run_wrote_of_more_comparisons_is_not_taken(study):
    """One run lacks ten of the rows: what the others wrote is of other rows than what is told of it."""
    for out in [run.out for run in load_study(study).finished]:
        metrics = out.metrics()
        metrics["eval"]["eval"]["diagnostics"] = {"calibration": {"ece_equal_mass": 0.125}}
        (out.path / "metrics.json").write_text(json.dumps(metrics))
    for file in next(study.glob("plain-s0-*")).glob("scores/eval*.parquet"):
        table = pd.read_parquet(file)
        table[table["comparison"] > 9].to_parquet(file, index=False)
    found, scored = loaded(study)
    (table,) = diagnostics_table(found, scored)
    told = [told_by(of)["calibration"]["ece_equal_mass"] for of in scored["eval"]["margin"]]
    assert table.cells.set_index("arm").loc["margin", "ECE (equal mass)"].startswith(f"{np.mean(told):.4f}")


def test_a_damaged_file_of_a_suite_costs_its_diagnostics_alone(study):
    for run in load_study(study).finished:
        write_suite(run.out, {"a": [1, 0, 1]})
        (run.out.path / "scores" / "bench.parquet").write_text("no table")
    main([str(study), "--no-figures"])
    text = (study / "report" / "table.md").read_text()
    assert "Suite bench: overall" in text
    assert "**Note:** bench has no diagnostics: cannot read" in text


def test_scores_of_a_suite_that_is_not_finished_are_not_told(study):
    """As a process leaves them that was killed while it scored the suite again."""
    out, *_ = [run.out for run in load_study(study).finished]
    out.write_scores("bench", out.scores("eval").comparisons())
    assert scored_of(load_study(study), None, "bench") == {}


def test_of_two_runs_of_a_seed_the_last_counts_everywhere(tmp_path):
    for folder, noise in (("a", 2.0), ("b", 0.0)):
        write(tmp_path / folder, "plain", 0, noise)
    found = load_study([tmp_path / "a", tmp_path / "b"])
    items = load_items(found, "eval")
    assert items.seed.tolist() == [0]
    (scored,) = scored_of(found, items, "eval")["plain"]
    last = next((tmp_path / "b").glob("plain-s0-*"))
    assert [c.rewards for c in scored] == [c.rewards for c in RunDirectory(last).scores("eval").comparisons()]


def test_scores_from_outside_are_told_like_a_run(study):
    """The scores of a run, given as a file: the same numbers. Verdicts and parts of a set have none."""
    file = next(study.glob("plain-s0-*")) / "scores" / "eval.parquet"
    part = study / "part.parquet"
    pd.read_parquet(file).iloc[4:].to_parquet(part)
    verdict = study / "verdict.jsonl"
    verdict.write_text("".join(json.dumps({"id": n, "verdict": 0}) + "\n" for n in range(PROMPTS)))
    asked = [Asked("outside", file), Asked("part", part), Asked("judge", verdict)]
    found, scored = loaded(study, *asked)
    assert set(scored["eval"]) == {"plain", "margin", "outside"}
    assert scored["eval"]["outside"][0] == scored["eval"]["plain"][0]
    (table,) = diagnostics_table(found, scored)
    cells = table.cells.set_index("arm")
    plain = told_by(scored["eval"]["plain"][0])["calibration"]["ece_equal_mass"]
    assert float(cells.loc["outside", "ECE (equal mass)"]) == pytest.approx(plain, abs=1e-4)


def test_they_have_figures_where_lengths_are_in_tokens(study):
    found, scored = loaded(study)
    for unit, there in (("tokens", True), ("characters", False)):
        with mpl.rc_context(STYLE):
            figures = diagnostics(scored["eval"], look_of(found), unit)
        assert {name: drawing is not None for name, drawing in figures.items()} == {
            **{"calibration": True, "length_accuracy": there, "best_of_n": True}
        }
    assert diagnostics({}, look_of(found), "tokens") == {}


def test_they_are_in_the_report(study, capsys):
    main([str(study), "--no-figures"])
    assert "Diagnostics" in capsys.readouterr().out
    for file in ("table.md", "table.tex", "index.html"):
        assert "best-of-n recovery" in (study / "report" / file).read_text()


def test_the_zero_of_rewards_and_its_drift_are_told(study):
    """From the first logged training batches to the last: 2 in one run, 4 in the other."""
    for seed in range(2):
        out = RunDirectory(next(study.glob(f"margin-s{seed}-*")))
        out.write_history([{"step": n, "reward_mean": 2.0 * (seed + 1) * n} for n in range(2)])
    cells = cells_of(study)
    gold = np.random.default_rng(0).normal(0, 1, (PROMPTS, K))
    assert cells.loc["margin", "mean reward"] == f"{gold.mean():.4f} ± 0.0000"
    assert cells.loc["margin", "sd of rewards"].startswith(f"{gold.std():.4f}")
    assert cells.loc["margin", "drift of the mean"] == "3.0000 ± 1.4142"
    assert cells.loc["plain (baseline)", "drift of the mean"] == ""
