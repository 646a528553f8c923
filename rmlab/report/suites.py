"""Benchmark suites of a study: every arm on every subset and total, and whether the score differs from the baseline's.

Runs keep what each item counts for in scores/SUITE.items.parquet, and what its totals are in suites/SUITE.json.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from rmlab.files import read
from rmlab.messages import UserError
from rmlab.report.diagnostics import suite_file
from rmlab.report.items import OfRuns
from rmlab.report.runs import Run
from rmlab.report.statistics import LEVEL, estimate, holm
from rmlab.report.study import Study
from rmlab.runner.scores import read_table

Number: TypeAlias = tuple[str, str]  # total or subset, and its name
ITEM = ["subset", "id", "copy"]  # what makes an item the same in two runs
COLUMNS = [
    *("suite", "number", "kind", "arm", "seeds", "items", "chance", "mean", "sd", "low", "high"),
    *("pairs", "difference", "diff_low", "diff_high", "p", "p_holm", "verdict"),
]


@dataclass
class SuiteItems(OfRuns):
    """R runs, I items of one suite. values (R, I): what each counts for; prompt, subset (I,).

    totals: name -> subset -> its weight, the suite's score first. chance: what random rewards reach in a number.
    """

    arm: np.ndarray
    seed: np.ndarray
    values: np.ndarray
    prompt: np.ndarray
    subset: np.ndarray
    totals: dict[str, dict[str, float]]
    chance: dict[Number, float | None]

    @property
    def subsets(self) -> list[str]:
        """In the order of their items."""
        return list(dict.fromkeys(self.subset.tolist()))

    @property
    def numbers(self) -> list[Number]:
        """Totals, the suite's score first, then subsets."""
        return [*(("total", name) for name in self.totals), *(("subset", name) for name in self.subsets)]

    @property
    def score(self) -> Number | None:
        """The first total, or the one subset; None where there are several and no total is known."""
        return self.numbers[0] if self.totals or len(self.subsets) == 1 else None

    def of(self, number: Number) -> tuple[np.ndarray, np.ndarray]:
        """(values (R, N) of a total or subset, whose mean over N items is the number; prompt (N,) of those items).

        Of a total, an item differs from it as it differs from the mean of its subset, times the weight of the subset:
        that subsets are of different difficulty makes nothing uncertain.
        """
        kind, name = number
        weights = self.totals[name] if kind == "total" else {name: 1.0}
        mine = np.isin(self.subset, list(weights))
        values, subset, prompt = self.values[:, mine], self.subset[mine], self.prompt[mine]
        if len(weights) == 1:
            return values, prompt
        found = np.zeros_like(values)
        for part, weight in weights.items():
            here = subset == part
            mean = values[:, here].mean(axis=1, keepdims=True)
            prompts = len(np.unique(prompt[here]))
            few = (prompts / max(prompts - 1, 1)) ** 0.5  # as a variance is divided by n - 1
            found[:, here] += (values[:, here] - mean) * few * weight * len(subset) / here.sum()
            found += weight * mean
        return found, prompt


def load_suites(study: Study) -> dict[str, SuiteItems]:
    """Of every suite that a finished run of an arm has been scored on, by name; notes say which cannot be read."""
    runs = [run for arm in study.arms.values() for run in arm if run.state == "finished"]
    names = sorted({file.stem for run in runs for file in (run.out.path / "suites").glob("*.json")})
    found = {name: load_suite(study, [run for run in runs if suite_file(run, name).exists()], name) for name in names}
    return {name: of for name, of in found.items() if of}


def load_suite(study: Study, runs: Sequence[Run], name: str) -> SuiteItems | None:
    """Items that all of these runs have; None where they have none in common, which the notes of the study say."""
    told, tables, kept = [], [], []
    for run in runs:
        try:
            told.append(read(suite_file(run, name)))
            tables.append(item_table(run, name))
            kept.append(run)
        except UserError as error:
            told = told[: len(tables)]
            study.notes.append(f"suite {name} of {run.out.name} ({run.arm}, seed {run.seed}) is left out: {error}")
    if not kept:
        return None
    common = tables[0][ITEM]
    for table in tables[1:]:
        common = common if table[ITEM].equals(common) else common.merge(table[ITEM])
    if len({one.get("key") for one in told}) > 1:
        study.notes.append(f"suite {name} was not scored on the same rows by all runs; what all have is compared")
    if common.empty:
        study.notes.append(f"suite {name}: the runs have no items in common")
        return None
    tables = [common.merge(table, how="left", on=ITEM) for table in tables]
    items = SuiteItems(
        arm=np.array([run.arm for run in kept]),
        seed=np.array([run.seed for run in kept]),
        values=np.stack([table["value"].to_numpy(float) for table in tables]),
        prompt=pd.factorize(tables[0]["prompt"])[0],
        subset=tables[0]["subset"].to_numpy(),
        totals=weights_of(told[0].get("totals", {}), set(common["subset"])),
        chance={
            (kind, name): number.get("chance")
            for kind in ("total", "subset")
            for name, number in told[0].get(f"{kind}s", {}).items()
        },
    )
    if len(items.totals) < len(told[0].get("totals", {})):
        study.notes.append(
            f"suite {name}: totals are left out whose subsets are not in all runs, or whose weights none says"
        )
    return items


def item_table(run: Run, name: str) -> pd.DataFrame:
    """Columns subset, id, copy, prompt, value. UserError where the file cannot be read."""
    table = read_table(run.out.path / "scores" / f"{name}.items.parquet")
    if missing := {"subset", "id", "prompt", "value"} - set(table):
        raise UserError(f"scores/{name}.items.parquet has no column {sorted(missing)[0]}")
    table["copy"] = table.groupby(["subset", "id"], sort=False).cumcount()
    return table[[*ITEM, "prompt", "value"]]


def weights_of(totals: Mapping[str, Any], subsets: set[str]) -> dict[str, dict[str, float]]:
    """Name -> subset -> weight of those totals that say it, and whose subsets are all there."""
    found = {name: dict(total.get("weights") or {}) for name, total in totals.items()}
    return {name: weights for name, weights in found.items() if weights and set(weights) <= subsets}


# ---- the long table ----


def compare_suites(suites: Mapping[str, SuiteItems], arms: Sequence[str], baseline: str) -> pd.DataFrame:
    """One row per suite, total or subset, and arm that was scored on it, the baseline first.

    mean, sd: over seeds; low, high: 95% interval; difference, diff_low, diff_high, p: to the baseline on `pairs` common
    seeds. p_holm, verdict: of a suite's score, its first total (the one subset, where there is no
    total), corrected over all arms and suites as one family.
    """
    rows: list[dict[str, Any]] = []
    for name, suite in suites.items():
        mine = [arm for arm in arms if arm in suite.arm]
        for number in suite.numbers:
            where = {"suite": name, "kind": number[0], "number": number[1], "chance": suite.chance.get(number)}
            rows += [{**where, **row} for row in rows_of(suite, number, mine, baseline)]
    scores = {(name, *suite.score) for name, suite in suites.items() if suite.score}
    family = [row for row in rows if (row["suite"], row["kind"], row["number"]) in scores]
    family = [row for row in family if row.get("pairs", 0) > 1 and not np.isnan(row["p"])]
    for row, corrected in zip(family, holm([row["p"] for row in family]), strict=True):
        row["p_holm"] = corrected
        row["verdict"] = ("better" if row["difference"] > 0 else "worse") if corrected < LEVEL else ""
    return pd.DataFrame(rows, columns=COLUMNS)


def rows_of(suite: SuiteItems, number: Number, arms: Sequence[str], baseline: str) -> list[dict[str, Any]]:
    """Numbers of each arm on one total or subset."""
    values, prompt = suite.of(number)
    rows = []
    for arm in arms:
        places = list(suite.runs_by_seed(arm).values())
        own = estimate(values[places], prompt, "share")
        row = {
            "arm": arm,
            "seeds": len(places),
            "items": values.shape[1],
            "mean": own.value,
            "low": min(own.low, own.value),  # bonus points may take a value out of [0, 1]
            "high": max(own.high, own.value),
        }
        if len(places) > 1:
            row["sd"] = float(values[places].mean(axis=1).std(ddof=1))
        mine, theirs = suite.paired(arm, baseline)
        if arm != baseline and mine:
            paired = estimate(values[mine] - values[theirs], prompt, spare=1)
            row |= {"pairs": len(mine), "difference": paired.value, "p": paired.p}
            row |= {"diff_low": max(paired.low, -1.0), "diff_high": min(paired.high, 1.0)}
        rows.append(row)
    return rows
