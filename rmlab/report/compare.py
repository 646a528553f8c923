"""Arms against the baseline: the long table from which every other table is cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rmlab.metrics.evaluate import per_preference
from rmlab.report.items import METRICS, OUTSIDE, Items, OfRuns
from rmlab.report.statistics import LEVEL, detectable, estimate, holm, sign_tests

HIGHER_IS_BETTER = {"accuracy": True, "nll": False, "brier": False}
SCALES = {"accuracy": "share", "nll": "positive", "brier": "share"}
COLUMNS = [
    *("set", "subset", "metric", "arm", "seeds", "n", "mean", "sd", "low", "high"),
    *("pairs", "difference", "diff_low", "diff_high", "p", "p_holm", "detectable"),
    *("mcnemar", "mcnemar_holm", "only_arm", "only_baseline", "verdict", "outside"),
]


def compare(items: Mapping[str, Items], arms: Sequence[str], baseline: str) -> pd.DataFrame:
    """One row per evaluation set, metric and arm, the baseline first; then the same for each subset of a set.

    seeds: finished runs of the arm, none of scores from outside. n: preferences that count. mean, sd: over seeds. low,
    high: 95% interval of the mean. difference, diff_low, diff_high, p: of the arm minus the baseline over the seeds
    that both have, whose number is `pairs`; 0 where both are scores from outside, which no seed changes. p_holm: after
    Holm's correction over all differences of a metric that may get a verdict, those of every arm on every whole set
    with two pairs of seeds at least, or with none. verdict: better or worse, where p_holm < 0.05; empty otherwise.
    detectable: see there. mcnemar, only_arm, only_baseline: of accuracy, see `sign_tests`; mcnemar_holm is corrected
    over the arms of a set. outside: whether the arm is scores that no run of the study made.
    """
    rows: list[dict[str, Any]] = []
    for name, of_set in items.items():
        whole = compared(of_set, arms, baseline)
        tested = [row for row in whole if "mcnemar" in row]
        for row, corrected in zip(tested, holm([row["mcnemar"] for row in tested]), strict=True):
            row["mcnemar_holm"] = corrected
        rows += [{"set": name, "subset": "", **row} for row in whole]
    for metric in METRICS:
        call([row for row in rows if row["metric"] == metric])
    for name, of_set in items.items():
        for subset in of_set.subsets():
            part = compared(of_set.of_subset(subset), arms, baseline)
            rows += [{"set": name, "subset": subset, **row} for row in part]
    return pd.DataFrame(rows, columns=COLUMNS)


def call(rows: Sequence[dict[str, Any]]) -> None:
    """Fill in p_holm, verdict and detectable of those rows that may get a verdict: one family (Holm 1979)."""
    family = [row for row in rows if row.get("pairs", 1) != 1 and not np.isnan(row["p"])]
    for row, corrected in zip(family, holm([row["p"] for row in family]), strict=True):
        row["p_holm"] = corrected
        better = (row["difference"] > 0) == HIGHER_IS_BETTER[row["metric"]]
        row["verdict"] = ("better" if better else "worse") if corrected < LEVEL else ""
        noise: Noise = row["noise"]
        variance = row["trained"] * noise.variance if row["trained"] else None
        row["detectable"] = detectable(row["spread"], variance, noise.freedom, len(family))


@dataclass(frozen=True)
class Noise:
    """Variance of a run's mean between seeds, pooled over arms, with its degrees of freedom."""

    variance: float
    freedom: int


def compared(items: Items, arms: Sequence[str], baseline: str) -> list[dict[str, Any]]:
    """The rows of a set or subset, by column; those numbers that an arm has none for are missing.

    A sd needs two seeds, a difference a seed that the baseline has too. Beside the columns: spread, of the difference,
    trained, how many of its two sides have seeds, and noise.
    """
    values, rows = items.values(), []
    for m, metric in enumerate(METRICS):
        noise = seed_noise(items, values[:, m], arms)
        for arm in arms:
            row = row_of(arm, metric, items, values[:, m], baseline)
            rows.append({"metric": metric, **row, "noise": noise})
    return rows


def seed_noise(items: OfRuns, values: np.ndarray, arms: Sequence[str]) -> Noise:
    """Of values (R, I) of one metric."""
    groups = [np.array([mean_of(values[r]) for r in items.runs_by_seed(arm).values()]) for arm in arms]
    several = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
    return Noise(squares / freedom if freedom else 0.0, freedom)


def mean_of(values: np.ndarray) -> float:
    """Of those that count; 0 where none does."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else 0.0


def row_of(arm: str, metric: str, items: Items, values: np.ndarray, baseline: str) -> dict[str, Any]:
    """Numbers of one arm on one metric, values (R, I)."""
    mine = items.runs_by_seed(arm)
    places = list(mine.values())
    row: dict[str, Any] = {"arm": arm, "seeds": len(mine.keys() - {OUTSIDE}), "n": 0, "outside": OUTSIDE in mine}
    if not mine:
        return row
    row["n"] = int((~np.isnan(values[places[0]])).sum())
    own = estimate(values[places], items.prompt, SCALES[metric])
    row.update(mean=own.value, low=own.low, high=own.high)
    if len(mine) > 1:
        row["sd"] = float(np.nanmean(values[places], axis=1).std(ddof=1)) if row["n"] else np.nan
    pair = items.paired(arm, baseline)
    return row if arm == baseline or not pair[0] else row | difference(items, values, pair, metric)


def difference(items: Items, values: np.ndarray, pair: tuple[list[int], list[int]], metric: str) -> dict[str, Any]:
    """Of two arms whose runs stand at these places of values (R, I)."""
    a, b = values[pair[0]], values[pair[1]]
    paired = estimate(a - b, items.prompt, spare=int(metric == "accuracy"))
    low, high = paired.low, paired.high
    if SCALES[metric] == "share":
        low, high = max(low, -1.0), min(high, 1.0)
    outside = [bool((items.seed[side] == OUTSIDE).all()) for side in pair]
    row: dict[str, Any] = {"p": paired.p, "spread": paired.spread, "trained": 2 - sum(outside)}
    row |= {"pairs": 0 if all(outside) else len(a), "difference": paired.value, "diff_low": low, "diff_high": high}
    if metric == "accuracy":
        test = sign_tests(a, b, items.prompt)
        row |= {"mcnemar": test.p, "only_arm": test.wins, "only_baseline": test.losses}
    return row


def references_of(items: Mapping[str, Items]) -> pd.DataFrame:
    """What needs no model, of each set and subset, by metric: `chance`, equal rewards; `longer wins`, of accuracy.

    Columns set, subset, metric, name, n, mean, low, high.
    """
    rows: list[dict[str, Any]] = []
    for name, of_set in items.items():
        for subset in ["", *of_set.subsets()] if of_set.subsets() else [""]:
            rows += [
                {"set": name, "subset": subset, **row}
                for row in references(of_set.of_subset(subset) if subset else of_set)
            ]
    return pd.DataFrame(rows, columns=["set", "subset", "metric", "name", "n", "mean", "low", "high"])


def references(items: Items) -> list[dict[str, Any]]:
    """Of one set or subset."""
    chance = per_preference(np.zeros(len(items.prompt)), items.probability)
    rows = [
        {
            "metric": metric,
            "name": "chance",
            "n": int((~np.isnan(chance[metric])).sum()),
            "mean": np.nanmean(chance[metric]),
        }
        for metric in METRICS
        if not np.isnan(chance[metric]).all()
    ]
    longer = items.length_wins()
    if not np.isnan(longer).all():
        found = estimate(longer[None], items.prompt, "share")
        of = {"mean": found.value, "low": found.low, "high": found.high}
        rows.append({"metric": "accuracy", "name": "longer wins", "n": int((~np.isnan(longer)).sum()), **of})
    return rows
