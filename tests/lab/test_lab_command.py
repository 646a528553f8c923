"""rmlab-lab: what its commands write and refuse."""

import subprocess
import sys
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from comparisons import random_set, scored
from studies import ENVIRONMENT, write_run

from rmlab.commands.lab import main
from rmlab.data import DATASETS
from rmlab.data.columns import read_rows
from rmlab.runner.directory import RunDirectory


@pytest.fixture(scope="module")
def optimised(tmp_path_factory):
    """Two arms of two seeds that have scored 8 answers to each of 15 prompts."""
    folder = tmp_path_factory.mktemp("runs") / "study"
    for loss, noise in (("plain", 0.5), ("margin", 3.0)):
        for seed in range(2):
            out = write_run(folder, seed, np.ones(2), loss=loss, name="pool")
            out.write_scores("pool", random_set(15, 8, seed=seed, noise=noise))
    return folder


def same_gold(study):
    """The seeds have scored the same rows: the gold and order of the first one's."""
    first = None
    for run in sorted(study.glob("*/")):
        out = RunDirectory(run)
        if not out.is_run:
            continue
        first = first or out.scores("pool").comparisons()
        rng = np.random.default_rng(len(run.name))
        out.write_scores("pool", [c.__class__(**{**vars(c), "rewards": noisy(rng, c)}) for c in first])


def noisy(rng, c):
    return (np.array(c.gold) + rng.normal(size=len(c.gold))).tolist()


def test_overoptimisation_writes_tables_and_a_figure(optimised, capsys):
    same_gold(optimised)
    main(["overoptimisation", str(optimised)])
    folder = optimised / "lab"
    table = pd.read_csv(folder / "overoptimisation.csv")
    assert set(table["arm"]) == {"plain", "margin"}
    assert set(table["by"]) == {"single", "mean", "min (WCO)", "mean - 0.5 var (UWO)", "median"}
    assert (table["largest_n"] == 8).all()
    curves = pd.read_csv(folder / "curves.csv")
    assert (curves[curves["n"] == 1][["gold", "proxy"]].abs() < 1e-9).all(axis=None)
    assert {file.name for file in folder.glob("overoptimisation.*")} == {
        f"overoptimisation.{kind}" for kind in ("csv", "md", "pdf", "png", "svg")
    }
    assert "| plain | min (WCO) |" in capsys.readouterr().out


def test_gold_may_come_from_a_file(optimised, tmp_path, capsys):
    """The proxy's own rewards as gold: it recovers all of it."""
    same_gold(optimised)
    run = RunDirectory(next(p for p in sorted(optimised.glob("*/")) if p.name.startswith("plain")))
    gold = run.scores("pool").responses.drop(columns=["gold", "id"])
    gold.to_parquet(tmp_path / "gold.parquet")
    others = [p.name for p in optimised.glob("*/") if p.name not in (run.name, "lab")]
    exclude = [word for name in others for word in ("--exclude", name)]
    main(
        ["overoptimisation", str(optimised), "--gold", str(tmp_path / "gold.parquet"), "--out", str(tmp_path), *exclude]
    )
    (line,) = pd.read_csv(tmp_path / "overoptimisation.csv").to_dict("records")
    assert line["recovery"] == pytest.approx(1)
    assert line["gamma"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "pol"], "--set pol: the runs have scored pool"),
        (["--c", "-1"], "--c"),
        (["--gold", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(arguments, sentence, optimised, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["overoptimisation", str(optimised), *arguments])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_pairs_are_no_pool(tmp_path, capsys):
    write_run(tmp_path / "study", 0, np.ones(5))
    with pytest.raises(SystemExit):
        main(["overoptimisation", str(tmp_path / "study")])
    assert "true rewards are known" in capsys.readouterr().err


@pytest.fixture
def halves(tmp_path, composed):
    """Two runs, each with the gold gap of a half of the rows that it held out."""
    folder = tmp_path / "study"
    for seed in range(2):
        config = deepcopy(composed)
        spec = config["data"]["train"]["synthetic"]
        spec |= {"prompts": 80, "label_noise": 0.25, "temperature": 0.01}
        config["data"].update(limit=None, split_seed=seed, eval_fraction=0.5)
        config["seed"] = 0
        out = RunDirectory(folder / f"plain-s{seed}")
        out.write_config(config)
        options = {k: v for k, v in spec.items() if k not in ("source", "weight")}
        rows = list(read_rows(DATASETS.build("synthetic", options)()))
        those = [held_out(n, row) for n, row in enumerate(rows) if n % 2 == seed]
        out.write_scores("eval", those)
        out.write_environment(ENVIRONMENT)
        out.write_metrics({"eval": {"eval": {"accuracy": 0.7}}, "train": {}})
    return folder


def held_out(n, row):
    (p,) = row["preferences"]
    c = scored(row["gold_rewards"], [p["better"]], [p["worse"]], gold=row["gold_rewards"], prompt=str(n), index=n)
    return c.__class__(**{**vars(c), "id": str(n)})


def test_noise_lists_suspects_and_writes_the_rows_again(halves, tmp_path, capsys):
    main(["noise", str(halves), "--write", "flip", str(tmp_path / "clean.jsonl")])
    suspects = pd.read_csv(halves / "lab" / "suspects.csv")
    assert len(suspects) == 80
    assert (suspects["models"] == 1).all()
    doubted = suspects["suspicion"] > 0.5
    assert suspects["flipped"][doubted].mean() > 0.8
    assert (halves / "lab" / "noise.png").exists()
    (line,) = pd.read_csv(halves / "lab" / "noise.csv").query("by == 'suspicion'").to_dict("records")
    assert line["average_precision"] > 0.9
    told = capsys.readouterr()
    assert "AP cross-fitted" in told.out
    assert f"80 of 80 rows, flip of {doubted.sum()} of 80 preferences" in told.out + told.err


@pytest.mark.parametrize("options", [[], ["--write", "down-weight", "clean.jsonl"]])
def test_a_share_of_nothing_is_refused(options, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["noise", str(tmp_path), "--share", "0.1", *options])
    assert "--share is of --write flip and --write drop" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom rmlab.commands.lab import main\ntry: main(['overoptimisation', '--help'])\n"
    code += "finally: print({'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--gold" in done.stdout
    assert done.stdout.endswith("set()\n")
