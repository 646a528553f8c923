"""rmlab-report: arms, pairing, statistics against reference maths, what is told of runs that are missing or differ."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from rmlab.commands.report import main
from rmlab.messages import UserError
from rmlab.metrics.evaluate import preference_metrics
from rmlab.report.compare import compare
from rmlab.report.items import load_items
from rmlab.report.statistics import estimate, holm, resample, sign_tests
from rmlab.report.study import load_study, shorten
from rmlab.report.tables import latex, markdown, readable
from rmlab.report.tune import tuned
from rmlab.runner.config import computed
from rmlab.runner.directory import write_error

CONFIG = {
    "study": "fake",
    "question": "Which is best?",
    "seed": 0,
    "plugins": [],
    "run": {"name": "plain", "choices": {"loss": "plain", "model": "tiny"}},
    "model": {"config": {"hidden_size": 64}},
    "data": {"train": {"a": {"source": "load", "path": "a.jsonl"}}, "max_rows": None},
    "loss": {"bradley_terry": {"margin": 0.0}},
    "trainer": {"learning_rate": 0.001, "num_train_epochs": 1},
    "report": {"baseline": None, "tune": []},
    "logger": {"report_to": "none"},
}
ENVIRONMENT = {
    "code": "abc", "python": "3.12", "processes": 1, "packages": {"torch": "2.13.0"}, "inputs": {"a.jsonl": "11"},
    "hardware": {"machine": "x86_64", "cpus": 2, "threads": 1}, "seconds": 60.0,
}  # fmt: skip


def write_run(folder, seed, gaps=None, loss="plain", environment=None, name="eval", prompts=None, **changes):
    """A run directory as rmlab leaves it. gaps (I,): rewards of better minus worse; None: not finished.

    changes: `node__key=value` of the config.
    """
    config = json.loads(json.dumps({**CONFIG, "seed": seed}))
    config["run"].update(name=loss, choices={"loss": loss, "model": "tiny"})
    if loss == "margin":
        config["loss"]["bradley_terry"]["margin"] = 1.0
    for key, value in changes.items():
        *nodes, last = key.split("__")
        place = config
        for node in nodes:
            place = place.setdefault(node, {})
        place[last] = value
    out = folder / f"{loss}-s{seed}-{abs(hash(json.dumps(config))) % 10**8:08d}"
    out.mkdir(parents=True)
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    if gaps is None:
        return out
    gaps = np.asarray(gaps, dtype=float)
    count = len(gaps)
    prompts = [f"p{i}" for i in range(count)] if prompts is None else prompts
    scores = pd.DataFrame(
        {
            "comparison": np.repeat(np.arange(count), 2),
            "id": np.repeat([str(i) for i in range(count)], 2),
            "prompt": np.repeat(prompts, 2),
            "subset": "",
            "response": np.tile([0, 1], count),
            "reward": np.stack([gaps, np.zeros(count)], axis=1).ravel().astype("float32"),
            "length": np.tile([10, 12], count),
            "gold": np.nan,
        }
    )
    pairs = pd.DataFrame({"comparison": range(count), "better": 0, "worse": 1, "strength": 1.0, "probability": 1.0})
    (out / "scores").mkdir()
    scores.to_parquet(out / "scores" / f"{name}.parquet", index=False)
    pairs.to_parquet(out / "scores" / f"{name}.preferences.parquet", index=False)
    metrics = {**preference_metrics(gaps, np.ones(count)), "comparisons": count, "preferences": count}
    (out / "environment.json").write_text(json.dumps({**ENVIRONMENT, **(environment or {})}))
    (out / "metrics.json").write_text(json.dumps({"eval": {name: metrics}, "train": {"loss": 0.5}}))
    return out


@pytest.fixture
def study(tmp_path):
    """Two losses, three seeds, 60 prompts: margin is right 8 times more of them, for every seed."""
    generator = np.random.default_rng(0)
    base = generator.normal(0.5, 1, 60)
    for seed in range(3):
        gaps = base + generator.normal(0, 0.1, 60)
        write_run(tmp_path, seed, gaps)
        wrong = np.flatnonzero(gaps < 0)[:8]
        gaps[wrong] = 0.5
        write_run(tmp_path, seed, gaps, loss="margin")
    return tmp_path


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Whoever runs the tests may have a narrow terminal."""
    monkeypatch.setenv("COLUMNS", "160")


# ---- arms ----


def test_arms_are_what_varies_and_seeds_are_replicates(study):
    loaded = load_study(study)
    assert list(loaded.arms) == ["plain", "margin"]
    assert loaded.baseline == "plain"
    assert loaded.question == "Which is best?"
    assert [run.seed for run in loaded.arms["margin"]] == [0, 1, 2]
    assert loaded.notes == []


def test_arms_are_named_by_options_and_by_the_shortest_keys(tmp_path):
    for rate in (0.001, 0.01):
        write_run(tmp_path, 0, [1.0, -1.0], trainer__learning_rate=rate)
        write_run(tmp_path, 0, [1.0, -1.0], loss="margin", trainer__learning_rate=rate)
    write_run(tmp_path, 0, [1.0, 2.0], loss="margin", loss__center={"weight": 0.01}, trainer__learning_rate=0.01)
    assert set(load_study(tmp_path).arms) == {
        "plain learning_rate=0.001",
        "plain learning_rate=0.01",
        "margin learning_rate=0.001",
        "margin learning_rate=0.01",
        "margin center.weight=0.01 learning_rate=0.01",
    }


def test_numbers_are_in_their_order_and_the_baseline_first(tmp_path):
    for rows in (1000, 250, None, 500):
        write_run(tmp_path, 0, [1.0, -1.0], data__max_rows=rows, report__baseline="max_rows=500")
    assert list(load_study(tmp_path).arms) == ["max_rows=500", "max_rows=250", "max_rows=1000", "max_rows=none"]
    assert load_study(tmp_path, baseline="max_rows=250").baseline == "max_rows=250"
    with pytest.raises(UserError, match="--baseline: no arm 'max_rows=25'; did you mean 'max_rows=250'"):
        load_study(tmp_path, baseline="max_rows=25")


def test_values_that_are_nearly_the_same_are_two_arms(tmp_path):
    for rate in (0.00012345678, 0.00012345679):
        write_run(tmp_path, 0, [1.0, -1.0], trainer__learning_rate=rate)
    assert list(load_study(tmp_path).arms) == ["learning_rate=0.00012345678", "learning_rate=0.00012345679"]


def test_keys_are_short_but_tell_apart():
    short = shorten(["loss.a.margin", "loss.center.weight", "trainer.lr", "model.lr"])
    assert list(short.values()) == ["margin", "center.weight", "trainer.lr", "model.lr"]


def test_a_folder_without_finished_runs_is_an_error(tmp_path, capsys):
    write_run(tmp_path, 0)
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code == 2
    assert "holds no finished run" in capsys.readouterr().err


# ---- what is told of the runs ----


def test_missing_and_failed_runs_are_shown(study, capsys):
    write_run(study, 3, [1.0] * 60)
    write_error(RuntimeError("out of memory"), write_run(study, 3, loss="margin"))
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


def test_folders_that_are_no_runs_are_not_read(study):
    """A report, a reproduction put beside the runs, somebody's config.yaml."""
    (study / "report").mkdir()
    (study / "notes").mkdir()
    (study / "notes" / "config.yaml").write_text("")
    copy = write_run(study, 9, [1.0] * 60)
    (copy / "reproduction.json").write_text("{}")
    assert len(load_study(study).runs) == 6


def test_an_ambiguous_baseline_is_refused_unless_tuning_makes_it_one(tmp_path):
    for rate in (0.001, 0.01):
        write_run(tmp_path, 0, [1.0, -1.0], trainer__learning_rate=rate)
    write_run(tmp_path, 0, [1.0, -1.0], loss="margin")
    with pytest.raises(UserError, match="--baseline: 'plain' may be 'plain learning_rate"):
        load_study(tmp_path, baseline="plain")
    assert load_study(tmp_path, baseline="plain", tune=["trainer.learning_rate"]).baseline.startswith("plain ")


def test_runs_without_common_items_are_an_error(tmp_path, capsys):
    write_run(tmp_path, 0, [1.0, -1.0])
    write_run(tmp_path, 0, [1.0, -1.0], loss="margin", prompts=["other", "prompts"])
    with pytest.raises(UserError, match="no items of eval in common"):
        load_items(load_study(tmp_path), "eval")
    for run in load_study(tmp_path).finished:
        (run.out / "scores" / "eval.parquet").unlink()
    with pytest.raises(UserError, match="no run has kept scores/eval"):
        load_items(load_study(tmp_path), "eval")


def test_merged_rows_that_differ_are_not_paired(tmp_path):
    write_run(tmp_path, 0, [1.0, -1.0, 2.0], data__group_by_prompt=True)
    write_run(tmp_path, 0, [1.0, -1.0], loss="margin", data__group_by_prompt=True)
    with pytest.raises(UserError, match="group_by_prompt merged them"):
        load_items(load_study(tmp_path), "eval")


@pytest.mark.parametrize(
    ("environment", "note"),
    [
        ({"code": "other"}, "different code of rmlab"),
        ({"packages": {"torch": "2.12.0"}}, 'different versions of torch: 6 runs "2.13.0", 1 run "2.12.0"'),
        ({"inputs": {"a.jsonl": "22"}}, "different contents of a.jsonl"),
        ({"python": "3.11"}, "different Python"),
        ({"hardware": {"machine": "x86_64", "cpus": 2, "threads": 4}}, "different hardware"),
    ],
)
def test_runs_of_other_code_versions_or_data_are_flagged(study, environment, note):
    write_run(study, 3, [1.0] * 60, environment=environment)
    notes = [n for n in load_study(study).notes if "different" in n]
    assert len(notes) == 1
    assert note in notes[0]


def test_more_cores_are_no_difference(study):
    write_run(study, 3, [1.0] * 60, environment={"hardware": {"machine": "x86_64", "cpus": 64, "threads": 1}})
    assert not any("different" in note for note in load_study(study).notes)


# ---- items and pairs ----


def test_items_are_matched_by_what_they_are_not_by_their_order(tmp_path):
    """A run that dropped a row (too long for its tokenizer, say) is compared on the others."""
    gaps = np.array([1.0, -2.0, 3.0, -4.0])
    write_run(tmp_path, 0, gaps)
    other = write_run(tmp_path, 0, gaps * 10, loss="margin")
    for file in ("eval.parquet", "eval.preferences.parquet"):
        table = pd.read_parquet(other / "scores" / file)
        table[table.comparison != 1].iloc[::-1].to_parquet(other / "scores" / file, index=False)
    items = load_items(load_study(tmp_path), "eval")
    assert items.left_out == 1
    gaps = {str(arm): sorted(gap) for arm, gap in zip(items.arm, items.gap, strict=True)}
    assert gaps == {"plain": [-4.0, 1.0, 3.0], "margin": [-40.0, 10.0, 30.0]}
    assert np.allclose(items.gap[0] / items.gap[1], 10) or np.allclose(items.gap[1] / items.gap[0], 10)


def test_values_are_the_metrics_of_the_runs(study):
    loaded = load_study(study)
    items = load_items(loaded, "eval")
    values = np.nanmean(items.values(), axis=2)
    for run, of_run in zip(items.runs, values, strict=True):
        told = run.metrics["eval"]["eval"]
        assert of_run == pytest.approx([told["accuracy"], told["nll"], told["brier"]], abs=1e-6)


@pytest.mark.parametrize("column", ["strength", "probability"])
def test_runs_with_different_labels_are_not_compared(study, column):
    """The same preferences, but one arm was evaluated on other votes: neither labels would be right for both."""
    file = next(study.glob("margin-s1-*")) / "scores" / "eval.preferences.parquet"
    table = pd.read_parquet(file)
    table.loc[3, column] = 0.75
    table.to_parquet(file, index=False)
    with pytest.raises(UserError, match="were scored on eval with different labels"):
        load_items(load_study(study), "eval")


def test_the_difference_is_of_common_seeds(study):
    """mean: over all seeds of the arm; difference: over those that the baseline has too."""
    write_run(study, 7, [1.0] * 60, loss="margin")
    loaded = load_study(study)
    rows = compare("eval", load_items(loaded, "eval"), list(loaded.arms), "plain", draws=200)
    margin = rows[(rows.arm == "margin") & (rows.metric == "accuracy")].iloc[0]
    accuracy = {(r.arm, r.seed): r.metrics["eval"]["eval"]["accuracy"] for r in loaded.finished}
    means = [accuracy["margin", seed] for seed in (0, 1, 2, 7)]
    assert margin["mean"] == pytest.approx(np.mean(means))
    assert margin["sd"] == pytest.approx(np.std(means, ddof=1))
    gained = [accuracy["margin", seed] - accuracy["plain", seed] for seed in (0, 1, 2)]
    assert margin["difference"] == pytest.approx(np.mean(gained))
    assert (margin["seeds"], margin["pairs"]) == (4, 3)


# ---- statistics, against reference maths ----


def two_way(values):
    """Mean squares of a two-way table (S, I) of crossed seeds and items: of seeds, of items, of the rest."""
    seeds, items = values.shape
    mean = values.mean()
    of_seed, of_item = values.mean(axis=1) - mean, values.mean(axis=0) - mean
    rest = values - mean - of_seed[:, None] - of_item[None, :]
    degrees = (seeds - 1) * (items - 1)
    return (
        items * (of_seed**2).sum() / (seeds - 1),
        seeds * (of_item**2).sum() / (items - 1),
        (rest**2).sum() / degrees,
    )


@pytest.mark.parametrize(("seed_sd", "wider"), [(0.0, False), (0.1, True), (0.4, True)])
def test_the_interval_is_that_of_crossed_seeds_and_items(seed_sd, wider):
    """The classical variances of a random effects table: seeds with t of S - 1, what items add with t of I - 1.

    Or items alone with t of I - 1, where that is wider: seeds never make a mean surer than its items.
    """
    generator = np.random.default_rng(1)
    values = 0.3 + generator.normal(0, 1, 400) + generator.normal(0, seed_sd, 6)[:, None]
    values = values + generator.normal(0, 0.5, (6, 400))
    if not wider:
        values += values.mean() - values.mean(axis=1, keepdims=True)  # seeds that agree
    means = resample(values[:, None, :], np.arange(400))
    found = estimate(means.value[:, 0], means.draws[:, :, 0], 400)
    ms_seed, ms_item, ms_rest = (square / values.size for square in two_way(values))
    t_seed, t_item = generator.standard_t(5, 1_000_000), generator.standard_t(399, 1_000_000)
    both = np.sqrt(ms_seed) * t_seed + np.sqrt(ms_item - ms_rest) * t_item
    of_both, of_items = np.quantile(both, 0.975), np.sqrt(ms_item) * stats.t.ppf(0.975, 399)
    assert (of_both > of_items) == wider
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(max(of_both, of_items), rel=0.05)
    reference = both if wider else np.sqrt(ms_item) * t_item
    assert found.p == pytest.approx((np.abs(reference) >= abs(values.mean())).mean(), abs=0.02)


@pytest.mark.parametrize(("seeds", "seed_sd", "noise"), [(2, 0.3, 0.3), (5, 0.05, 0.3), (5, 0.0, 1.0), (5, 0.5, 0.3)])
def test_intervals_cover_the_truth(seeds, seed_sd, noise):
    """200 studies of 100 prompts whose true mean is 0: 95% intervals hold it; p is uniform enough and agrees."""
    generator, covered, agreed = np.random.default_rng(8), 0, 0
    for n in range(200):
        values = generator.normal(0, 0.5, 100) + generator.normal(0, seed_sd, seeds)[:, None]
        values = values + generator.normal(0, noise, (seeds, 100))
        means = resample(values[:, None, :], np.arange(100), draws=400, seed=n)
        found = estimate(means.value[:, 0], means.draws[:, :, 0], 100, seed=n)
        covered += found.low <= 0 <= found.high
        agreed += (found.low <= 0 <= found.high) == (found.p >= 0.05)
    assert 0.91 <= covered / 200 <= 0.99
    assert agreed / 200 >= 0.98


def test_seeds_that_agree_do_not_make_prompts_certain():
    """Two seeds with the same difference by chance, from other items: the interval is that of the prompts at least."""
    values = np.zeros((2, 32))
    values[0, :3], values[0, 3] = 1.0, -1.0
    values[1, 10:13], values[1, 13] = 1.0, -1.0
    means = resample(values[:, None, :], np.arange(32))
    found = estimate(means.value[:, 0], means.draws[:, :, 0], 32)
    alone = values.mean(axis=0).std(ddof=1) / math.sqrt(32) * stats.t.ppf(0.975, 31)
    assert found.value == pytest.approx(2 / 32)
    assert (found.high - found.low) / 2 == pytest.approx(alone, rel=0.1)


def test_too_few_items_give_no_interval_and_no_verdict(tmp_path):
    """One prompt, however many preferences: nobody knows what another would give. Identical arms: p is 1."""
    for seed in range(3):
        write_run(tmp_path, seed, [1.0, -1.0, -1.0, 2.0], prompts=["same"] * 4)
        write_run(tmp_path, seed, [1.0, 1.0, 1.0, 2.0], loss="margin", prompts=["same"] * 4)
    loaded = load_study(tmp_path)
    rows = compare("eval", load_items(loaded, "eval"), list(loaded.arms), "plain", draws=100)
    assert rows[["low", "p", "p_holm", "detectable"]].isna().all(axis=None)
    assert set(rows["verdict"].dropna()) <= {""}
    same = estimate(np.zeros(3), np.zeros((100, 3)), 50)
    assert (same.value, same.p) == (0.0, 1.0)


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
    assert margin.p_holm < 0.001
    assert margin.verdict == "one seed"


def test_prompts_are_resampled_whole():
    """20 prompts of 10 equal items are 20 observations, not 200."""
    generator = np.random.default_rng(2)
    of_prompt = generator.normal(0, 1, 20)
    values = np.repeat(of_prompt, 10)[None, None, :]
    means = resample(values, np.repeat(np.arange(20), 10))
    found = estimate(means.value[:, 0], means.draws[:, :, 0], int(means.prompts[0]))
    half = stats.t.ppf(0.975, 19) * of_prompt.std(ddof=1) / math.sqrt(20)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_undecided_items_do_not_count():
    values = np.array([[[1.0, np.nan, 0.0, 1.0]]])
    assert resample(values, np.arange(4), draws=10).value[0, 0] == pytest.approx(2 / 3)


def test_detectable_is_what_is_found_four_times_in_five():
    """Simulated: differences of that size are significant in about 80% of studies (estimated from five seeds)."""
    generator = np.random.default_rng(3)
    found, sizes = 0, []
    for n in range(400):
        noise = generator.normal(0, 1, 200) + generator.normal(0, 0.1, 5)[:, None]
        means = resample(noise[:, None, :], np.arange(200), draws=500, seed=n)
        sizes.append(estimate(means.value[:, 0], means.draws[:, :, 0], 200, seed=n).detectable)
    shift = float(np.mean(sizes))
    for n in range(400):
        noise = shift + generator.normal(0, 1, 200) + generator.normal(0, 0.1, 5)[:, None]
        means = resample(noise[:, None, :], np.arange(200), draws=500, seed=n)
        found += estimate(means.value[:, 0], means.draws[:, :, 0], 200, seed=n).p < 0.05
    assert found / 400 == pytest.approx(0.8, abs=0.12)


def test_mcnemar_is_exact_and_pooled_over_seeds():
    """One preference per prompt: statsmodels' exact McNemar per seed, then twice the mean."""
    generator = np.random.default_rng(4)
    arm, base = (generator.integers(0, 2, (3, 50)).astype(float) for _ in range(2))
    arm[:, :20] = 1
    found = sign_tests(arm, base, np.arange(50))
    each = []
    for a, b in zip(arm, base, strict=True):
        table = [[((a == 1) & (b == 1)).sum(), ((a == 1) & (b == 0)).sum()], [((a == 0) & (b == 1)).sum(), 0]]
        each.append(mcnemar(table, exact=True).pvalue)
    assert found.p == pytest.approx(min(1, 2 * np.mean(each)))
    assert (found.wins, found.losses) == (((arm > base).sum()), ((arm < base).sum()))


def test_holm():
    """By hand: sorted p times 3, 2, 1, never falling."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.01, float("nan"), 0.02]) == pytest.approx([0.02, float("nan"), 0.02], nan_ok=True)
    assert holm([]) == []


def test_a_clear_difference_is_called_and_noise_is_not(study):
    loaded = load_study(study)
    rows = compare("eval", load_items(loaded, "eval"), list(loaded.arms), "plain")
    margin = rows[(rows.arm == "margin") & (rows.metric == "accuracy")].iloc[0]
    assert margin["verdict"] == "better"
    assert margin["diff_low"] > 0
    assert margin["p_holm"] < 0.01
    assert (margin["only_arm"], margin["only_baseline"]) == (24, 0)


# ---- nuisance values ----


def test_tuning_scores_no_item_by_a_value_that_it_chose(tmp_path):
    """Each arm is compared at its best learning rate, chosen on one half of the prompts and scored on the other."""
    generator = np.random.default_rng(6)
    for seed in range(2):
        for rate, level in ((0.001, 0.2), (0.01, 1.0)):
            write_run(tmp_path, seed, generator.normal(level, 1, 200), trainer__learning_rate=rate)
            gaps = generator.normal(level, 1, 200)
            write_run(tmp_path, seed, gaps, loss="margin", trainer__learning_rate=rate)
    loaded = load_study(tmp_path, tune=["trainer.learning_rate"])
    assert len(loaded.arms) == 4
    fitted, items, notes = tuned(loaded, {"eval": load_items(loaded, "eval")})
    assert list(fitted.arms) == ["plain", "margin"]
    assert fitted.baseline == "plain"
    assert "plain is compared at learning_rate=0.01 (4 of 4 times); 2 were tried" in notes
    grid = load_items(loaded, "eval")
    best = next(r for r in range(8) if grid.arm[r] == "margin learning_rate=0.01" and grid.seed[r] == 1)
    mine = next(r for r in range(4) if items["eval"].arm[r] == "margin" and items["eval"].seed[r] == 1)
    assert np.array_equal(items["eval"].gap[mine], grid.gap[best])
    with pytest.raises(UserError, match="weight_decay' does not vary"):
        load_study(tmp_path, tune=["trainer.weight_decay"])


def test_tuning_does_not_reward_trying_more_values(tmp_path):
    """No value is better, seeds and items are luck. The best of 8 looks better on its own items and seeds alone."""
    naive, honest = [], []
    for study in range(12):
        generator = np.random.default_rng(study)
        folder = tmp_path / str(study)
        for rate in range(8):
            for seed in range(3):
                gaps = generator.normal(0, 1, 120) + generator.normal(0, 0.3)
                write_run(folder, seed, gaps, trainer__learning_rate=rate)
        loaded = load_study(folder, tune=["trainer.learning_rate"])
        grid = load_items(loaded, "eval")
        of_arm = [np.nanmean(grid.values()[grid.arm == arm, 0]) for arm in loaded.arms]
        naive.append(max(of_arm))
        _, items, _ = tuned(loaded, {"eval": grid})
        honest.append(float(np.nanmean(items["eval"].values()[:, 0])))
    assert np.mean(naive) > 0.57
    assert np.mean(honest) == pytest.approx(0.5, abs=0.035)


def test_only_the_nuisance_key_that_is_named_goes(tmp_path):
    """loss.center.weight is not data.train.a.weight, though both end alike."""
    for weight in (0.5, 1.0):
        for center in (0.01, 0.1):
            values = {"loss__center": {"weight": center}, "data__train__a__weight": weight}
            write_run(tmp_path, 0, [1.0, -1.0], **values)
    loaded = load_study(tmp_path, tune=["loss.center.weight"])
    fitted, _, _ = tuned(loaded, {"eval": load_items(loaded, "eval")})
    assert list(fitted.arms) == ["a.weight=0.5", "a.weight=1"]


def test_a_sweep_narrowed_on_the_command_line_needs_no_tuning(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed, [1.0, -1.0], report__tune=["trainer.learning_rate"])
    assert load_study(tmp_path).tune == []


# ---- what is written ----


def test_the_report_is_written_in_every_format(study, capsys):
    main([str(study)])
    printed = capsys.readouterr().out
    assert "Which is best?" in printed
    assert "plain (baseline)" in printed
    report = study / "report"
    assert {p.name for p in report.iterdir()} >= {"table.md", "table.tex", "table.csv", "index.html", "figures"}
    assert "| margin | 3 | " in (report / "table.md").read_text()
    tex = (report / "table.tex").read_text()
    assert tex.count("\\toprule") == tex.count("\\bottomrule") == 3
    assert "$\\pm$" in tex
    rows = pd.read_csv(report / "table.csv")
    assert len(rows) == 6
    assert {"difference", "diff_low", "diff_high", "p_holm", "mcnemar", "detectable"} <= set(rows.columns)


def test_names_that_would_break_a_format_are_escaped(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed, [1.0, -1.0, 2.0])
        write_run(tmp_path, seed, [1.0, 1.0, 2.0], loss="a_b|c & 50%")
    loaded = load_study(tmp_path)
    rows = compare("eval", load_items(loaded, "eval"), list(loaded.arms), "plain", draws=100)
    tables = readable(rows, "plain")
    assert "a_b\\|c & 50%" in markdown(tables, "t", [], [])
    assert "a\\_b|c \\& 50\\%" in latex(tables, [])


def test_the_baseline_is_an_arm_that_has_finished(tmp_path, capsys):
    write_run(tmp_path, 0, report__baseline="plain")
    run = write_run(tmp_path, 0, [1.0, -1.0, 1.0], loss="margin", report__baseline="plain")
    loaded = load_study(tmp_path)
    assert loaded.baseline == "margin"
    rows = compare("eval", load_items(loaded, "eval"), list(loaded.arms), "margin", draws=100)
    assert rows[rows.arm == "plain"]["mean"].isna().all()
    readable(rows, "margin")
    with pytest.raises(UserError, match="is a run; give its study"):
        load_study(run)


def test_a_config_that_was_edited_after_its_run_is_flagged(study):
    run = next(study.glob("plain-s0-*"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "config": computed(config)}))
    assert load_study(study).notes == []
    config["trainer"]["learning_rate"] = 0.5
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert f"config.yaml of {run.name} was changed after it ran" in load_study(study).notes


def test_a_narrow_terminal_shows_whole_numbers(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    main([str(study), "--no-figures"])
    printed = capsys.readouterr().out
    difference = pd.read_csv(study / "report" / "table.csv").query("arm == 'margin' and metric == 'accuracy'").iloc[0]
    assert f"{difference.diff_low:+.4f}, {difference.diff_high:+.4f}]" in printed
    assert "\u2026" not in printed


def test_one_seed_says_what_the_interval_lacks(tmp_path, capsys):
    write_run(tmp_path, 0, [1.0, -1.0, 1.0])
    write_run(tmp_path, 0, [1.0, 1.0, 1.0], loss="margin")
    main([str(tmp_path), "--no-figures"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "a difference from one pair of seeds does not know what other seeds would give" in printed


def test_the_report_can_be_logged_to_wandb(study):
    """In a process of its own: W&B keeps a service for the rest of this one."""
    command = [sys.executable, "-m", "rmlab.commands.report", str(study), "--wandb"]
    subprocess.run(command, env={**os.environ, "WANDB_MODE": "offline"}, check=True, capture_output=True)
    (file,) = (study / "report").glob("wandb/offline-run-*-fake-report/run-fake-report.wandb")
    content = file.read_bytes()
    assert b"table/Accuracy" in content
    assert b"figure/accuracy" in content
