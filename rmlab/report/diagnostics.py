"""Diagnostics of every arm: calibration, length, best-of-n; what its runs have measured, or what their scores tell."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow.parquet import read_metadata

from rmlab.files import read
from rmlab.messages import UserError
from rmlab.metrics.best_of_n import best_of_n
from rmlab.metrics.calibration import calibration
from rmlab.metrics.length import length
from rmlab.metrics.pairs import Pairs, Responses
from rmlab.metrics.scale import scale
from rmlab.metrics.scored import ScoredComparison
from rmlab.report.items import KEY, Items
from rmlab.report.runs import Run
from rmlab.report.study import Study
from rmlab.report.tables import Table, Tables, mean_and_sd
from rmlab.runner.scores import TEXTS, Scores, lists_by_comparison, read_table

Scored = dict[str, list[list[ScoredComparison]]]  # arm -> the comparisons of each of its runs

# Title of a column -> where diagnostics have it.
SHOWN = {
    "ECE (equal mass)": ("calibration", "ece_equal_mass"),
    "temperature": ("calibration", "temperature", "value"),
    "accuracy, better is shorter": ("length", "shorter", "value"),
    "accuracy, as long": ("length", "matched", "value"),
    "reward and length": ("length", "correlation", "value"),
    "best-of-n recovery": ("best_of_n", "recovery"),
    "mean reward": ("scale", "mean"),
    "sd of rewards": ("scale", "sd"),
}
DRIFT = "drift of the mean"  # in training, and so not among diagnostics


def scored_of(study: Study, items: Items | None, name: str) -> Scored:
    """The comparisons that all finished runs of the arms have scored on a set, in the same order; without texts.

    Of scores from outside, too, where they are rewards of every response. items: of the set; None for a suite.
    """
    try:
        found, first = scored_by_runs(study, name)
    except UserError as error:
        study.notes.append(f"{name} has no diagnostics: {error}")
        return {}
    if items is None:
        return in_common(found)
    rewarded = [arm for arm in study.outside if arm in items.arm and arm not in items.verdicts]
    alike = (first.comparisons if first else unscored(items)) if rewarded else []
    outside = {arm: with_rewards(alike, items, arm) for arm in rewarded}
    return in_common(found | {arm: [one] for arm, one in outside.items() if one})


def scored_by_runs(study: Study, name: str) -> tuple[Scored, "Told | None"]:
    """What the runs of each arm have scored, and the first of them. UserError for scores that cannot be read."""
    found, first = Scored(), None
    for arm in study.arms:
        for run in scored_runs(study, arm, name):
            told = comparisons_of(run, name, first)
            first = first or told
            found.setdefault(arm, []).append(told.comparisons)
    return found, first


def scored_runs(study: Study, arm: str, name: str) -> list[Run]:
    """Those of the arm that have scored the set, the last of each seed."""
    return list({run.seed: run for run in study.arms[arm] if is_scored(run, name)}.values())


def is_scored(run: Run, name: str) -> bool:
    """Whether it is finished, and has kept its scores of the set, or of a suite that is finished."""
    whole = run.state == "finished" and run.out.has_scores(name)
    return whole and (name in run.metrics["eval"] or suite_file(run, name).exists())


def suite_file(run: Run, name: str) -> Path:
    """Where the run keeps the numbers of a suite."""
    return run.out.path / "suites" / f"{name}.json"


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


def with_rewards(comparisons: Sequence[ScoredComparison], items: Items, arm: str) -> list[ScoredComparison]:
    """The same with the rewards of scores from outside; nothing where one is not known, or it is other comparisons."""
    (place,) = np.flatnonzero(items.arm == arm)
    rewards: dict[int, dict[int, float]] = {}
    names = dict(zip(items.key["comparison"], items.key["id"], strict=True))
    for side, values in (("better", items.better[place]), ("worse", items.worse[place])):
        for comparison, response, value in zip(items.key["comparison"], items.key[side], values, strict=True):
            rewards.setdefault(comparison, {})[response] = value
    those = [c for c in comparisons if names.get(c.index) == c.id]
    known = [[rewards[c.index].get(k, np.nan) for k in range(len(c.lengths))] for c in those]
    if len(those) < len(names) or any(np.isnan(one).any() for one in known):
        return []
    return [replace(c, rewards=one) for c, one in zip(those, known, strict=True)]


def unscored(items: Items) -> list[ScoredComparison]:
    """The comparisons of a set without runs, from its preferences; their rewards are not known."""
    of_items: dict[str, Any] = {
        "prompt": items.prompt.astype(str),
        "subset": items.subset,
        "strength": items.strength,
        "probability": items.probability,
        "lengths": list(items.length.T),
    }
    table = items.key.assign(**of_items)
    told = lists_by_comparison(table, [*KEY, *of_items])
    return [unscored_one(index, of, list(items.gold.get(index, ()))) for index, of in told.items()]


def unscored_one(index: int, of: Mapping[str, list[Any]], gold: list[float]) -> ScoredComparison:
    """A comparison of these preferences, columns of `unscored`."""
    lengths = [0] * int(of["responses"][0])
    for better, worse, both in zip(of["better"], of["worse"], of["lengths"], strict=True):
        lengths[better], lengths[worse] = map(int, both)
    return ScoredComparison(
        index=index,
        id=str(of["id"][0]),
        prompt_id=of["prompt"][0],
        subset=str(of["subset"][0]),
        rewards=[],
        lengths=lengths,
        gold=gold,
        better=of["better"],
        worse=of["worse"],
        strength=of["strength"],
        probability=of["probability"],
    )


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
    """By what identifies them in every run: of a row that is there twice, the last number says which."""
    found: dict[tuple[Any, ...], ScoredComparison] = {}
    times = Counter[tuple[Any, ...]]()
    for c in comparisons:
        name = (c.prompt_id, c.id, *c.better, *c.worse)
        found[*name, times[name]] = c
        times[name] += 1
    return found


def diagnostics_table(study: Study, scored: Mapping[str, Scored]) -> Tables:
    """A table per set, a line per arm, mean and sd over seeds; nothing where nothing is known.

    scored: of each set, see `scored_of`.
    """
    tables = Tables()
    for name, of_set in scored.items():
        lines = [line_of(arm, study, name, runs) for arm, runs in of_set.items()]
        cells = pd.DataFrame(lines, columns=["arm", *SHOWN, DRIFT])
        cells = cells.loc[:, (cells != "").any()]
        if len(cells.columns) > 1:
            title = f"Diagnostics{f' on {name}' * (len(scored) > 1)} (mean ± sd over seeds)"
            tables.append(Table(title, cells, "diagnostics", name))
    return tables


def line_of(arm: str, study: Study, name: str, runs: Sequence[Sequence[ScoredComparison]]) -> dict[str, str]:
    """The cells of an arm, empty where its runs do not tell a number."""
    members = scored_runs(study, arm, name)  # none of scores from outside
    known = [known_of(run, name, of) for run, of in zip(members, runs, strict=True)] if members else [{}]
    found = [one or told_by(of) for one, of in zip(known, runs, strict=True)]
    line = {"arm": arm + " (baseline)" * (arm == study.baseline)}
    for title, path in SHOWN.items():
        line[title] = over_seeds([number for one in found if (number := at(one, path)) is not None])
    return line | {DRIFT: over_seeds([moved for run in members if (moved := drift_of(run)) is not None])}


def over_seeds(numbers: Sequence[float]) -> str:
    """Mean and sd; empty where there is no number."""
    sd = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return mean_and_sd(pd.Series({"mean": np.mean(numbers), "sd": sd})) if numbers else ""


def drift_of(run: Run) -> float | None:
    """How far the mean reward of the training batches has moved, from the first logged ones to the last."""
    means = [float(entry["reward_mean"]) for entry in run.history if "reward_mean" in entry]
    return means[-1] - means[0] if len(means) > 1 else None


def known_of(run: Run, name: str, comparisons: Sequence[ScoredComparison]) -> dict[str, Any]:
    """What the run wrote at its end; empty for an older one, and where these are not all that it has scored."""
    if read_metadata(run.out.scores_file(name)).num_rows != sum(len(c.rewards) for c in comparisons):
        return {}
    told = run.metrics["eval"].get(name) or read(suite_file(run, name))
    return dict(told.get("diagnostics") or {})


def told_by(comparisons: Sequence[ScoredComparison]) -> dict[str, Any]:
    """The same of its scores, as far as it is shown."""
    pairs, responses = Pairs.of(comparisons), Responses.of(comparisons)
    return {
        "calibration": calibration(pairs),
        "length": length(pairs, responses),
        "best_of_n": best_of_n(comparisons),
        "scale": scale(pairs, responses),
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
