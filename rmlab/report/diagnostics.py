"""Diagnostics of every arm: calibration, length, best-of-n; what its runs have measured, or what their scores tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from rmlab.metrics.best_of_n import best_of_n
from rmlab.metrics.calibration import calibration
from rmlab.metrics.length import length
from rmlab.metrics.pairs import Pairs, Responses
from rmlab.metrics.scored import ScoredComparison
from rmlab.report.runs import Run
from rmlab.report.study import Study
from rmlab.report.tables import Table, Tables, mean_and_sd
from rmlab.runner.scores import TEXTS, Scores, read_table

Scored = dict[str, list[list[ScoredComparison]]]  # arm -> the comparisons of each of its runs

# Title of a column -> where diagnostics have it.
SHOWN = {
    "ECE (equal mass)": ("calibration", "ece_equal_mass"),
    "temperature": ("calibration", "temperature", "value"),
    "accuracy, better is shorter": ("length", "shorter", "value"),
    "accuracy, as long": ("length", "matched", "value"),
    "reward and length": ("length", "correlation", "value"),
    "best-of-n recovery": ("best_of_n", "recovery"),
}


def scored_of(study: Study, name: str) -> Scored:
    """The comparisons that all finished runs of the arms have scored on a set, in the same order; without texts."""
    read, first = Scored(), None
    for arm, members in study.arms.items():
        for run in [run for run in members if is_scored(run, name)]:
            told = comparisons_of(run, name, first)
            first = first or told
            read.setdefault(arm, []).append(told.comparisons)
    return in_common(read)


def is_scored(run: Run, name: str) -> bool:
    """Whether it is finished, and has kept its scores of the set."""
    return run.state == "finished" and run.out.has_scores(name)


@dataclass(frozen=True)
class Told:
    """A run's scores as tables and as comparisons."""

    kept: Scores
    comparisons: list[ScoredComparison]


def comparisons_of(run: Run, name: str, first: Told | None) -> Told:
    """As the run has scored them. first: another run's; where only rewards differ, all else is shared with it."""
    responses, preferences = (read_table(file) for file in run.out.score_files(name))
    kept = Scores(responses, preferences, pd.DataFrame(columns=list(TEXTS)))
    if first is None or not is_alike(kept, first.kept):
        return Told(kept, kept.comparisons())
    rewards = iter(responses["reward"].tolist())
    return Told(kept, [replace(c, rewards=list(islice(rewards, len(c.rewards)))) for c in first.comparisons])


def is_alike(one: Scores, other: Scores) -> bool:
    """Whether nothing but rewards differs."""
    responses = [scores.responses.drop(columns="reward") for scores in (one, other)]
    return responses[0].equals(responses[1]) and one.preferences.equals(other.preferences)


def in_common(read: Scored) -> Scored:
    """Without the comparisons that some run lacks, such as those that were too long for its tokenizer."""
    named = {arm: [by_name(one) for one in runs] for arm, runs in read.items()}
    every = [list(one) for runs in named.values() for one in runs]
    if not every or all(names == every[0] for names in every[1:]):
        return read
    common = set(every[0]).intersection(*every[1:])
    kept = [name for name in every[0] if name in common]
    return {arm: [[one[name] for name in kept] for one in runs] for arm, runs in named.items()} if kept else {}


def by_name(comparisons: Sequence[ScoredComparison]) -> dict[tuple[Any, ...], ScoredComparison]:
    """By what identifies them in every run; of those that are there twice, the last."""
    return {(c.prompt_id, c.id, *c.better, *c.worse): c for c in comparisons}


def diagnostics_table(study: Study, scored: Mapping[str, Scored]) -> Tables:
    """A table per set, a line per arm, mean and sd over seeds; nothing where nothing is known.

    scored: of each set, see `scored_of`.
    """
    tables = Tables()
    for name, of_set in scored.items():
        lines = [line_of(arm, study, name, runs) for arm, runs in of_set.items()]
        cells = pd.DataFrame(lines, columns=["arm", *SHOWN])
        cells = cells.loc[:, (cells != "").any()]
        if len(cells.columns) > 1:
            title = f"Diagnostics{f' on {name}' * (len(scored) > 1)} (mean ± sd over seeds)"
            tables.append(Table(title, cells, "diagnostics", name))
    return tables


def line_of(arm: str, study: Study, name: str, runs: Sequence[Sequence[ScoredComparison]]) -> dict[str, str]:
    """The cells of an arm, empty where its runs do not tell a number."""
    members = [run for run in study.arms[arm] if is_scored(run, name)]
    found = [known_of(run, name) or told_by(of) for run, of in zip(members, runs, strict=True)]
    line = {"arm": arm + " (baseline)" * (arm == study.baseline)}
    for title, path in SHOWN.items():
        numbers = [number for one in found if (number := at(one, path)) is not None]
        sd = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
        line[title] = mean_and_sd(pd.Series({"mean": np.mean(numbers), "sd": sd})) if numbers else ""
    return line


def known_of(run: Run, name: str) -> dict[str, Any]:
    """What the run wrote at its end; empty for an older one."""
    return dict(run.metrics["eval"].get(name, {}).get("diagnostics") or {})


def told_by(comparisons: Sequence[ScoredComparison]) -> dict[str, Any]:
    """The same of its scores, as far as it is shown."""
    pairs, responses = Pairs.of(comparisons), Responses.of(comparisons)
    return {
        "calibration": calibration(pairs),
        "length": length(pairs, responses),
        "best_of_n": best_of_n(comparisons),
    }


def at(found: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """The number at the end of a path; the recovery of best-of-n at the largest n."""
    node: Any = found
    if path == SHOWN["best-of-n recovery"]:
        curve = (found.get("best_of_n") or {}).get("curve") or [{}]
        node, path = curve[-1], ("recovery", "value")
    for key in path:
        node = (node or {}).get(key)
    return node
