"""Arms against the baseline: the long table from which every other table is cut."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from rmlab.report.items import METRICS, Items
from rmlab.report.statistics import DRAWS, Estimate, Means, estimate, holm, resample, sign_tests

LEVEL = 0.05
HIGHER_IS_BETTER = {"accuracy": True, "nll": False, "brier": False}


def compare(name: str, items: Items, arms: Sequence[str], baseline: str, draws: int = DRAWS) -> pd.DataFrame:
    """One row per metric and arm of an evaluation set, the baseline first.

    seeds: finished runs of the arm. mean, sd: over seeds. low, high: 95% interval of the mean. difference, diff_low,
    diff_high, p, detectable: of the arm minus the baseline over the seeds that both have, whose number is `pairs`.
    p_holm, mcnemar_holm: after Holm's correction over the arms that share a seed with the baseline. mcnemar, only_arm,
    only_baseline: of accuracy, see `sign_tests`. verdict: better or worse, where p_holm < 0.05 and pairs > 1, for one
    seed cannot tell what another would have given; empty otherwise.
    """
    values = items.values()
    means = resample(values, items.prompt, draws)
    theirs = runs_by_seed(items, baseline).keys()
    tests = max(1, sum(bool(runs_by_seed(items, arm).keys() & theirs) for arm in arms if arm != baseline))
    rows = []
    for m, metric in enumerate(METRICS):
        of_metric = [row_of(arm, m, items, values, means, baseline, tests) for arm in arms]
        tested = [row for row in of_metric if "p" in row]
        for row, corrected in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_holm"] = corrected
            better = (row["difference"] > 0) == HIGHER_IS_BETTER[metric]
            called = corrected < LEVEL and row["pairs"] > 1
            row["verdict"] = ("better" if better else "worse") if called else ""
        if metric == "accuracy":
            for row, corrected in zip(tested, holm([row["mcnemar"] for row in tested]), strict=True):
                row["mcnemar_holm"] = corrected
        rows += [{"set": name, "metric": metric, **row} for row in of_metric]
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = [
    *("set", "metric", "arm", "seeds", "mean", "sd", "low", "high", "pairs", "difference", "diff_low", "diff_high"),
    *("p", "p_holm", "detectable", "mcnemar", "mcnemar_holm", "only_arm", "only_baseline", "verdict"),
]


def row_of(
    arm: str, m: int, items: Items, values: np.ndarray, means: Means, baseline: str, tests: int
) -> dict[str, Any]:
    """Numbers of one arm on metric `m`, by column; those that it has none for are missing.

    A sd needs two seeds, a difference a seed that the baseline has too. tests: comparisons that share the 5% level.
    """
    mine = runs_by_seed(items, arm)
    row: dict[str, Any] = {"arm": arm, "seeds": len(mine)}
    if not mine:
        return row
    own = of_runs(means, m, list(mine.values()))
    row.update(mean=own.value, low=own.low, high=own.high)
    if len(mine) > 1:
        row["sd"] = float(means.value[list(mine.values()), m].std(ddof=1))
    theirs = runs_by_seed(items, baseline)
    common = sorted(mine.keys() & theirs.keys())
    if arm == baseline or not common:
        return row
    a, b = [mine[s] for s in common], [theirs[s] for s in common]
    gained, drawn = means.value[a, m] - means.value[b, m], means.draws[:, a, m] - means.draws[:, b, m]
    paired = estimate(gained, drawn, int(means.prompts[m]), tests)
    row.update(pairs=len(common), difference=paired.value, diff_low=paired.low, diff_high=paired.high)
    row.update(p=paired.p, detectable=paired.detectable)
    if METRICS[m] == "accuracy":
        test = sign_tests(values[a, m], values[b, m], items.prompt)
        row.update(mcnemar=test.p, only_arm=test.wins, only_baseline=test.losses)
    return row


def of_runs(means: Means, m: int, runs: list[int]) -> Estimate:
    """Mean of metric `m` over these runs, with its interval over prompts and seeds."""
    return estimate(means.value[runs, m], means.draws[:, runs, m], int(means.prompts[m]))


def runs_by_seed(items: Items, arm: str) -> dict[int, int]:
    """seed -> place of the arm's run."""
    return {int(items.seed[r]): r for r in range(len(items.runs)) if items.arm[r] == arm}
