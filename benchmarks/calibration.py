"""What a margin and soft labels do to calibration: three ways to train on the same synthetic comparisons, known truth.

    python benchmarks/calibration.py -o OUT [--prompts 1500] [--seeds 0 1]

Annotators prefer response i to j with probability sigma((gold_i - gold_j) / temperature). `plain` and `margin` see what
one annotator said of each pair, `soft labels` (the plain loss too) how likely each answer was. All are measured on what
annotators said of other prompts, beside the truth itself, gold / temperature. Writes calibration.json, calibration.png
and the runs to OUT, and prints a table.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table

from rmlab.data.columns import read_rows
from rmlab.data.synthetic import synthetic
from rmlab.metrics.diagnostics import diagnose
from rmlab.metrics.evaluate import evaluate
from rmlab.metrics.scored import ScoredComparison
from rmlab.report.figures.calibration import calibration
from rmlab.report.figures.look import BASELINE, MARKERS, PALETTE, STYLE, Look
from rmlab.runner.directory import RunDirectory

TEMPERATURE = 1.5
WEIGHTS = {"topic": 2.0, "form": 1.5, "tone": 1.0, "hedge": -0.7, "length": 0.1}
ARMS = {"plain": ("hard", "plain"), "margin": ("hard", "margin"), "soft labels": ("soft", "plain")}  # rows, loss
FITTED = ("value", "nll_before", "nll_after", "ece_before", "ece_after")
TRUTH = "gold / temperature"
Arms = Mapping[str, Sequence[Sequence[ScoredComparison]]]


def write_rows(folder: Path, prompts: int, held_out: int) -> None:
    """hard.jsonl and soft.jsonl to train on, and eval.jsonl."""
    made = synthetic(
        prompts=prompts + held_out, responses=4, temperature=TEMPERATURE, weights=WEIGHTS, grades=3, tie_width=0.0,
        label_noise=0.0, seed=0,
    )  # fmt: skip
    rows = list(read_rows(made))
    parts = {"hard": rows[:prompts], "soft": [softened(row) for row in rows[:prompts]], "eval": rows[prompts:]}
    for name, of in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in of))


def softened(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the probability of each preference in place of what one annotator said."""
    gold = row["gold_rewards"]
    preferences = []
    for said in row["preferences"]:
        gap = gold[said["better"]] - gold[said["worse"]]
        preferences.append({**said, "probability": 1 / (1 + math.exp(-gap / TEMPERATURE))})
    return {**row, "preferences": preferences}


def train(folder: Path, rows: str, loss: str, seeds: Sequence[int], overrides: Sequence[str]) -> list[RunDirectory]:
    """The runs of one arm, a seed each."""
    places = []
    for seed in seeds:
        arguments = [
            f"loss={loss}", f"seed={seed}", f"study={rows}", f"run.dir={folder}/{rows}-{loss}-{seed}", "logger=none",
            "run.threads=1", "data=files", f"data.path={folder}/{rows}.jsonl",
            f"data.eval={{eval: {{source: load, path: {folder}/eval.jsonl}}}}", "model=tiny",
            "trainer.per_device_train_batch_size=8", *overrides,
        ]  # fmt: skip
        command = [sys.executable, "-m", "rmlab.commands.train", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            sys.exit(done.stderr)
        places.append(RunDirectory(folder / f"{rows}-{loss}-{seed}"))
    return places


def scored_arms(folder: Path, seeds: Sequence[int], overrides: Sequence[str]) -> Arms:
    """What each arm's runs, and the truth, make of the held-out comparisons."""
    arms = {
        arm: [run.scores("eval").comparisons() for run in train(folder, rows, loss, seeds, overrides)]
        for arm, (rows, loss) in ARMS.items()
    }
    first = arms["plain"][0]
    truth = [replace(c, rewards=[gold / TEMPERATURE for gold in c.gold]) for c in first]
    return {**arms, TRUTH: [truth]}


def numbers(comparisons: Sequence[ScoredComparison]) -> dict[str, float]:
    """The columns of the table, of one run."""
    whole, told = evaluate(comparisons), diagnose(comparisons)
    of, brier = told["calibration"], told["calibration"]["brier"]
    tempered = of.get("temperature") or dict.fromkeys(FITTED, math.nan)  # a model that is worse than a coin has none
    return {
        "accuracy": whole["accuracy"], "nll": whole["nll"], "ECE": of["ece"], "ECE, equal mass": of["ece_equal_mass"],
        "Brier": brier["value"], "reliability": brier["reliability"], "resolution": brier["resolution"],
        "temperature": tempered["value"], "nll before": tempered["nll_before"], "nll after": tempered["nll_after"],
        "ECE before": tempered["ece_before"], "ECE after": tempered["ece_after"],
        "best-of-4 recovery": told["best_of_n"]["curve"][-1]["recovery"]["value"],
    }  # fmt: skip


def draw(arms: Arms, file: Path) -> None:
    """The reliability diagrams of all arms."""
    names = list(arms)
    colours = dict(zip(names, (BASELINE, *PALETTE), strict=False))
    look = Look(names, names[0], colours, dict(zip(names, MARKERS, strict=False)), "", {n: n for n in names}, False)
    with mpl.rc_context({**STYLE, "figure.figsize": (397 / 72, 397 / 144)}):
        drawing = calibration(arms, look)
        if drawing is not None:
            drawing.canvas.savefig(file, metadata={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=1500, help="to train on, with four responses each")
    parser.add_argument("--held-out", type=int, default=1200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("overrides", nargs="*", help="further overrides of every run")
    told = parser.parse_intermixed_args()
    folder = told.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder, told.prompts, told.held_out)
    arms = scored_arms(folder, told.seeds, told.overrides)
    rows = {arm: [numbers(run) for run in runs] for arm, runs in arms.items()}
    (folder / "calibration.json").write_text(json.dumps({"seeds": told.seeds, "runs": rows}, indent=1) + "\n")
    draw(arms, folder / "calibration.png")
    table = Table("mean over seeds", *rows)
    for column in next(iter(rows.values()))[0]:
        table.add_row(column, *(f"{np.mean([run[column] for run in runs]):.4f}" for runs in rows.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
