"""Scores that no run of the study made, as arms beside its own: read, matched, paired with every seed."""

import functools
import gzip
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from studies import write_run, write_study

from rmlab.commands.report import main
from rmlab.messages import UserError
from rmlab.report.compare import compare
from rmlab.report.gold import gold_items, gold_study
from rmlab.report.items import OUTSIDE, load_items, texts_of_set
from rmlab.report.outside import Asked, asked_of, with_outside
from rmlab.report.outside_files import read_scores_file
from rmlab.report.study import load_study

GAPS = np.array([1.0, -2.0, 3.0, -4.0])


def write_rows(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def joined(study, *files, name="judge"):
    """The study and the items of its set `eval` with these files as arms."""
    loaded = load_study(study)
    items = {"eval": load_items(loaded, "eval")}
    asked = [Asked(f"{name}{n or ''}", file) for n, file in enumerate(files)]
    loaded, items = with_outside(loaded, items, asked, functools.partial(texts_of_set, items))
    return loaded, items["eval"]


def gap_of(items, arm="judge"):
    """By the id of the comparison."""
    (place,) = np.flatnonzero(items.arm == arm)
    return dict(zip(items.key["id"], items.gap[place].tolist(), strict=True))


EXPECTED = {"0": 0.5, "1": -0.25, "2": 2.0, "3": 0.0}
FORMS = {
    "rewards": [{"id": str(n), "rewards": [gap, 0.0]} for n, gap in enumerate(EXPECTED.values())],
    "a reward a row": [
        {"id": n, "response": k, "reward": reward}
        for n, gap in enumerate(EXPECTED.values())
        for k, reward in ((1, 1.0), (0, 1.0 + gap))
    ],
    "by place in the set": [
        {"comparison": n, "rewards": [gap, 0.0], "model": "x"} for n, gap in enumerate(EXPECTED.values())
    ],
    "verdicts": [{"id": n, "verdict": said} for n, said in enumerate((0, 1, "chosen", "tie"))],
    "letters": [{"id": n, "verdict": said} for n, said in enumerate(("A", "b", "chosen", "Tie"))],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_every_form_in_every_kind_of_file(tmp_path, form, kind):
    write_run(tmp_path / "study", 0, GAPS)
    file, rows = tmp_path / f"judge.{kind}", FORMS[form]
    lines = "\n".join(json.dumps(row) for row in rows)
    if kind == "parquet":
        if any(isinstance(row.get("verdict"), int) for row in rows):
            rows = [{**row, "verdict": str(row["verdict"]).replace("0", "A").replace("1", "B")} for row in rows]
        pd.DataFrame(rows).to_parquet(file)
    elif kind == "jsonl.gz":
        file.write_bytes(gzip.compress(lines.encode()))
    else:
        file.write_text(lines if kind == "jsonl" else json.dumps(rows))
    gaps = gap_of(joined(tmp_path / "study", file)[1])
    expected = EXPECTED if "verdict" not in rows[0] else {k: float(np.sign(v)) for k, v in EXPECTED.items()}
    assert gaps == pytest.approx(expected)


def test_an_empty_verdict_is_not_scored(tmp_path):
    write_run(tmp_path / "study", 0, GAPS)
    rows = [{"id": n, "verdict": said} for n, said in enumerate(("A", "", " ", None))]
    _, items = joined(tmp_path / "study", write_rows(tmp_path / "judge.jsonl", rows))
    assert np.isnan([gap_of(items)[name] for name in "123"]).all()


def test_two_prompts_that_end_alike_are_not_told_apart_by_excerpts(tmp_path, monkeypatch):
    """A file with scores of one of them: they are not those of the other, too."""
    monkeypatch.chdir(tmp_path)
    asked = " Answer yes or no." * 40
    gold = [{"prompt": f"text {n}.{asked if n < 2 else ''}", "chosen": "yes", "rejected": "no"} for n in range(4)]
    write_rows(tmp_path / "gold.jsonl", gold)
    items, texts = gold_items("gold.jsonl", {})
    file = write_rows(tmp_path / "judge.jsonl", [{**gold[n], "rewards": [n, 0.0]} for n in (1, 2)])
    _, found = with_outside(gold_study("gold.jsonl"), {"g": items}, [Asked("judge", file)], lambda _: texts)
    assert found["g"].gap[0].tolist() == pytest.approx([np.nan, np.nan, 2.0, np.nan], nan_ok=True)


def test_responses_counted_from_one_are_refused(tmp_path):
    write_run(tmp_path / "study", 0, GAPS)
    rows = [{"id": str(n), "response": k, "reward": float(k)} for n in range(4) for k in (1, 2)]
    with pytest.raises(UserError, match="a reward of response 2, but the comparison has 2; the first is 0"):
        joined(tmp_path / "study", write_rows(tmp_path / "judge.jsonl", rows))


def test_scores_of_a_run_are_scores_from_outside_for_another_study(tmp_path):
    out = write_run(tmp_path / "other", 0, GAPS)
    write_run(tmp_path / "study", 0, -GAPS)
    assert list(gap_of(joined(tmp_path / "study", out.scores_file("eval"))[1]).values()) == GAPS.tolist()


def test_a_row_is_found_by_its_texts_whatever_the_order_of_its_responses(tmp_path):
    texts = [(f"question {n // 2}", f"good {n}", f"bad {n}") for n in range(4)]  # two comparisons on each prompt
    write_run(tmp_path / "study", 0, GAPS, texts=texts)
    turned = [{"prompt": p, "responses": [worse, better], "rewards": [0.0, 5.0]} for p, better, worse in texts[:2]]
    file = write_rows(tmp_path / "rewards.jsonl", turned)
    pairs = [{"prompt": p, "chosen": worse, "rejected": better, "verdict": "chosen"} for p, better, worse in texts[2:]]
    pairs.append({"prompt": "another", "chosen": "x", "rejected": "y", "verdict": 0})
    verdicts = write_rows(tmp_path / "verdicts.jsonl", pairs)
    loaded, items = joined(tmp_path / "study", file, verdicts)
    assert gap_of(items) == pytest.approx({"0": 5.0, "1": 5.0, "2": np.nan, "3": np.nan}, nan_ok=True)
    assert gap_of(items, "judge1") == pytest.approx({"0": np.nan, "1": np.nan, "2": -1.0, "3": -1.0}, nan_ok=True)
    assert any("judge1: 1 of 3 comparisons of verdicts.jsonl are not in eval" in note for note in loaded.notes)
    assert any("judge has no score of 2 of 4 preferences of eval" in note for note in loaded.notes)


def test_it_is_paired_with_every_seed_of_the_baseline(tmp_path):
    """The interval by hand: prompts of the mean over seeds, and the variance of the baseline's seeds alone."""
    study, generator = write_study(tmp_path / "study"), np.random.default_rng(1)
    gaps = generator.normal(0.8, 1, 60)
    rows = [{"id": str(n), "rewards": [gap, 0.0]} for n, gap in enumerate(gaps)]
    loaded, items = joined(study, write_rows(tmp_path / "judge.jsonl", rows))
    found = compare({"eval": items}, list(loaded.arms), "plain")
    row = found[(found.arm == "judge") & (found.metric == "nll")].iloc[0]
    plain = items.gap[items.arm == "plain"]
    each = np.log1p(np.exp(-gaps)) - np.log1p(np.exp(-plain))  # (seeds, items)
    assert row["difference"] == pytest.approx(each.mean())
    assert (row["pairs"], row["seeds"], row["outside"]) == (3, 0, True)
    prompts, seeds = each.mean(axis=0).var(ddof=1) / 60, np.log1p(np.exp(-plain)).mean(axis=1).var(ddof=1) / 3
    narrow, wide = (np.sqrt(v) * stats.t.isf(0.025, 58) for v in (prompts, prompts + seeds))
    assert narrow < row["diff_high"] - row["difference"] < 1.1 * wide


def test_verdicts_have_an_accuracy_and_no_nll(tmp_path, capsys):
    study = write_study(tmp_path / "study")
    rows = [{"id": str(n), "verdict": 0 if n % 3 else 1} for n in range(60)]
    file = write_rows(tmp_path / "judge.jsonl", rows)
    main([str(study), "--scores", f"judge={file}", "--no-figures"])
    rows = pd.read_csv(study / "report" / "table.csv")
    judge = rows[rows.arm == "judge"]
    assert judge.metric.tolist() == ["accuracy"]
    assert judge.iloc[0]["mean"] == pytest.approx(2 / 3)
    table = (study / "report" / "table.md").read_text()
    assert "| judge | outside | 0.6667 |" in table
    assert "judge says who is preferred, not by how much" in table
    capsys.readouterr()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "0", "rewards": [1.0, 0.0]}] * 2, r"row 1 .*: id '0' is there already"),
        ([{"id": "0", "response": 0, "reward": 1.0}] * 2, "has a reward of response 0 already"),
        ([{"id": "q7", "rewards": [1.0, 0.0]}], "matches nothing in eval: its first row is of id 'q7', .* has id '0'"),
        ([{"id": "0", "rewards": [1.0]}], "1 rewards, but the comparison has 2 responses"),
        (
            [{"id": "0", "verdict": None}],
            "judge.jsonl prefers nothing in eval: its rewards or verdicts of it are all empty",
        ),
        ([{"id": "0", "verdict": 2}], "verdict is 2, but the comparison has 2 responses; the first is 0"),
        ([{"id": "0", "verdict": "better"}], "verdict is 'better'; it must be the index"),
        ([{"id": "0", "rewards": [1.0, "nan"]}], "reward is 'nan', not a finite number"),
        ([{"id": "0", "score": 1.0}], "has the columns id, score; scores are reward with response"),
        ([{"rewards": [1.0, 0.0]}], "names no comparison: give its id"),
        ([{"id": "0", "verdict": 1}, {"id": "1", "rewards": [1, 0]}], "row 1 .* has no verdict, but the first row has"),
        ([{"prompt": "p", "chosen": "a", "rejected": "b", "verdict": 0}], "the runs keep no texts of eval"),
        ([], "holds no row"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence(tmp_path, rows, message):
    write_run(tmp_path / "study", 0, GAPS)
    with pytest.raises(UserError, match=message):
        joined(tmp_path / "study", write_rows(tmp_path / "judge.jsonl", rows))


def test_an_id_of_two_comparisons_is_refused(tmp_path):
    write_run(tmp_path / "study", 0, GAPS, ids=["a", "a", "b", "c"])
    with pytest.raises(UserError, match="several comparisons of eval have the id 'a'; name each by `comparison`"):
        joined(tmp_path / "study", write_rows(tmp_path / "judge.jsonl", [{"id": "a", "verdict": 0}]))


def test_ids_tell_the_set_and_a_set_can_be_named(tmp_path):
    """One file may hold scores of several sets; rows that could be of two are refused."""
    out = write_run(tmp_path / "study", 0, GAPS, ids=list("abcd"))
    again = write_run(tmp_path / "again", 0, GAPS, name="other", ids=list("aefg"))
    for file in again.score_files("other"):
        (out.path / "scores" / file.name).write_bytes(file.read_bytes())
    metrics = out.metrics()
    out.write_metrics({**metrics, "eval": {**metrics["eval"], "other": again.metrics()["eval"]["other"]}})
    loaded = load_study(tmp_path / "study")
    items = {name: load_items(loaded, name) for name in ("eval", "other")}

    def arms(*asked):
        found = with_outside(loaded, items, asked_of(asked, list(items)), lambda _: None)[1]
        return {name: [str(a) for a, s in zip(i.arm, i.seed, strict=True) if s == OUTSIDE] for name, i in found.items()}

    both = write_rows(tmp_path / "both.jsonl", [{"id": name, "verdict": 0} for name in "bcdef"])
    assert arms(f"judge={both}") == {"eval": ["judge"], "other": ["judge"]}
    unclear = write_rows(tmp_path / "unclear.jsonl", [{"id": "a", "verdict": 0}])
    with pytest.raises(UserError, match="id 'a' is in eval and in other; say which set is meant: --scores eval:judge="):
        arms(f"judge={unclear}")
    assert arms(f"other:judge={unclear}") == {"eval": [], "other": ["judge"]}
    with pytest.raises(UserError, match="'judge' is given twice for other"):
        arms(f"other:judge={unclear}", f"other:judge={unclear}")
    with pytest.raises(UserError, match="say NAME=FILE"):
        arms("judge")


def test_missing_rewards_and_verdicts_count_as_not_scored(tmp_path):
    write_run(tmp_path / "study", 0, GAPS)
    rows = [{"id": "0", "verdict": None}, {"id": "1", "verdict": 0}]
    loaded, items = joined(tmp_path / "study", write_rows(tmp_path / "judge.jsonl", rows))
    assert gap_of(items) == pytest.approx({"0": np.nan, "1": 1.0, "2": np.nan, "3": np.nan}, nan_ok=True)
    assert any("no score of 3 of 4 preferences" in note for note in loaded.notes)
    assert len(read_scores_file(tmp_path / "judge.jsonl").entries) == 2


@pytest.mark.slow
def test_gold_data_with_ratings_tells_what_best_of_n_recovers(tmp_path, monkeypatch):
    """One picks the best of three each time, the other one the worst: of 0, 1 and 5, whose mean is 2."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"q{n}", "responses": ["a", "b", "c"], "scores": [0, 1, 5]} for n in range(5)]
    write_rows(tmp_path / "gold.jsonl", rows)
    for name, rewards in (("best", [1, 2, 3]), ("worst", [3, 2, 1])):
        write_rows(tmp_path / f"{name}.jsonl", [{"id": n, "rewards": rewards} for n in range(5)])
    main(["--scores", "best=best.jsonl", "--scores", "worst=worst.jsonl", "--gold", "gold.jsonl"])
    text = (tmp_path / "gold-report" / "table.md").read_text()
    (table,) = [part for part in text.split("\n\n") if "best-of-n recovery" in part]
    head, _, *lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert [line[head.index("best-of-n recovery")] for line in lines] == ["1.0000", "-0.6667"]
    assert (tmp_path / "gold-report" / "figures" / "best_of_n.png").exists()


def test_outside_scores_alone_are_compared_on_gold_data(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gold = [{"prompt": f"q{n}", "chosen": f"yes {n}", "rejected": f"no {n}", "subset": "ab"[n % 2]} for n in range(40)]
    write_rows(tmp_path / "gold.jsonl", gold)
    for name, right in (("one", 20), ("two", 36)):
        rows = [{"id": str(n), "rewards": [1.0 if n < right else -1.0, 0.0]} for n in range(40)]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    main(["--scores", "one=one.jsonl", "--scores", "two=two.jsonl", "--gold", "gold.jsonl"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Scores on gold" in printed
    rows = pd.read_csv(tmp_path / "gold-report" / "table.csv", keep_default_na=False)
    two = rows[(rows.arm == "two") & (rows.metric == "accuracy") & (rows.subset == "")].iloc[0]
    assert (float(two["mean"]), float(two.difference), two.verdict) == (0.9, pytest.approx(0.4), "better")
    assert float(two.mcnemar) == pytest.approx(stats.binomtest(16, 16).pvalue)
    assert (tmp_path / "gold-report" / "figures" / "accuracy.png").exists()
    assert not (tmp_path / "gold-report" / "figures" / "length_accuracy.png").exists()  # whose unit is tokens
    assert "Diagnostics" in (tmp_path / "gold-report" / "table.md").read_text()
    page = (tmp_path / "gold-report" / "index.html").read_text()
    assert "Outside: one" in page
    assert "All 0 runs" not in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give a study, for example runs/losses, or scores and what they are of"),
        (["study", "--gold", "x.jsonl"], "--gold is for scores without a study"),
        (["--scores", "a=missing.jsonl", "--gold", "gold.jsonl"], "--scores: there is no file missing.jsonl"),
        (["--scores", "a=a.jsonl", "--gold", "gold.jsonl", "--baseline", "b"], "--baseline: no arm 'b'"),
        (["--scores", "a=a.jsonl", "--gold", "nothing.jsonl"], "--gold: no file or folder 'nothing.jsonl'"),
        (["--scores", "a=a.jsonl", "--gold", "gold.jsonl", "--columns", "prompt=x"], "--columns prompt: no column 'x'"),
        (["study", "--columns", "prompt=x"], "--columns is of --gold"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, options, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "gold.jsonl", [{"prompt": "q", "chosen": "y", "rejected": "n"}] * 2)
    write_rows(tmp_path / "a.jsonl", [{"id": "0", "verdict": 0}])
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err


def test_it_can_be_the_baseline(tmp_path, capsys):
    """Every seed of an arm is then paired with it, and arms without a common seed are no trouble."""
    for seed in range(2):
        write_run(tmp_path / "study", seed, np.tile([1.0, -1.0], 40))
        write_run(tmp_path / "study", seed + 2, np.ones(80), loss="margin")
    rows = [{"id": n, "verdict": int(n >= 40)} for n in range(80)]
    file = write_rows(tmp_path / "judge.jsonl", rows)
    main([str(tmp_path / "study"), "--scores", f"judge={file}", "--baseline", "judge", "--no-figures"])
    assert "no seed in common" not in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "study" / "report" / "table.csv").query("metric == 'accuracy'").set_index("arm")
    assert rows["difference"].dropna().to_dict() == {"plain": 0.0, "margin": 0.5}
    assert rows["pairs"].dropna().to_dict() == {"plain": 2, "margin": 2}
    assert rows.loc["margin", "verdict"] == "better"


def test_what_two_fixed_arms_would_have_found(tmp_path):
    """detectable of outside scores by hand: (t + z) standard errors, for prompts alone make them uncertain."""
    write_run(tmp_path / "study", 0, np.ones(200))
    generator = np.random.default_rng(0)
    files = [
        write_rows(tmp_path / f"{name}.jsonl", [{"id": n, "rewards": [gap, 0.0]} for n, gap in enumerate(gaps)])
        for name, gaps in (("a", generator.normal(1, 1, 200)), ("b", generator.normal(1, 1, 200)))
    ]
    items = joined(tmp_path / "study", *files)[1]
    found = compare({"eval": items}, ["judge", "judge1"], "judge")
    row = found[(found.arm == "judge1") & (found.metric == "brier")].iloc[0]
    error = (row["diff_high"] - row["diff_low"]) / 2 / stats.t.isf(0.025, 198)
    assert row["detectable"] == pytest.approx(error * (stats.t.isf(0.025, 198) + stats.norm.isf(0.2)), rel=0.01)
    assert (row["pairs"], row["seeds"]) == (0, 0)


def test_it_stands_beside_tuned_arms_under_another_name(tmp_path, capsys):
    for seed in range(3):
        for loss, rate, right in (("plain", 0.1, 20), ("plain", 0.2, 25), ("margin", 0.1, 22), ("margin", 0.2, 21)):
            gaps = np.where(np.arange(40) < right + seed, 1.0, -1.0)
            write_run(tmp_path / "study", seed, gaps, loss=loss, trainer__learning_rate=rate)
    file = write_rows(tmp_path / "judge.jsonl", [{"id": n, "verdict": "A" if n < 10 else "B"} for n in range(40)])
    options = [
        "--no-figures",
        "--tune",
        "trainer.learning_rate",
        "--rename",
        "judge=A judge",
        "--order",
        "judge,margin",
    ]
    main([str(tmp_path / "study"), "--scores", f"judge={file}", *options])
    assert "A judge" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "study" / "report" / "table.csv").query("metric == 'accuracy'")
    assert rows["arm"].tolist() == ["plain", "A judge", "margin"]
    assert rows.set_index("arm")["mean"].to_dict() == pytest.approx({"plain": 0.65, "A judge": 0.25, "margin": 0.575})
