"""Two swept values at once: what each does, averaged over the other, and whether what one does depends on the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rmlab.report.arms import label, show
from rmlab.report.items import METRICS, Items
from rmlab.report.statistics import estimate, holm
from rmlab.report.study import Study

COLUMNS = ["set", "metric", "effect", "pairs", "difference", "diff_low", "diff_high", "p", "p_holm"]


@dataclass(frozen=True)
class Grid:
    """The arms of a study by the levels of two keys. cells[level, level]: an arm; the first level is the baseline's."""

    keys: tuple[str, str]
    levels: tuple[list[Any], list[Any]]
    cells: dict[tuple[str, str], str]


def grid_of(study: Study) -> Grid | None:
    """None unless exactly two keys vary, with two levels each at least, and every combination has a finished run."""
    done = {arm: study.values[arm] for arm, runs in study.arms.items() if any(r.state == "finished" for r in runs)}
    keys = list(dict.fromkeys(key for values in done.values() for key in values))
    if len(keys) != 2 or any(len(values) != 2 for values in done.values()) or study.baseline not in done:
        return None
    first, second = keys
    levels = [list(dict.fromkeys(show(values[key]) for values in done.values())) for key in keys]
    cells = {(show(values[first]), show(values[second])): arm for arm, values in done.items()}
    if min(map(len, levels)) < 2 or len(cells) < len(levels[0]) * len(levels[1]):
        return None
    own = [show(done[study.baseline][key]) for key in keys]
    ordered = [[mine, *(level for level in of if level != mine)] for mine, of in zip(own, levels, strict=True)]
    return Grid((first, second), (ordered[0], ordered[1]), cells)


def effects(study: Study, items: Mapping[str, Items]) -> pd.DataFrame:
    """One row per set, metric and effect; empty where the study is no grid (`grid_of`) or no seed is in all cells.

    A main effect is of a level instead of the baseline's, averaged over the levels of the other key; an interaction is
    how much more that is at a level of the other key than at the baseline's. All on the same prompts and seeds, with
    intervals as those of `compare`. p_holm: corrected over the effects of a set and metric.
    """
    grid, rows = grid_of(study), list[dict[str, Any]]()
    for name, of_set in items.items() if grid else ():
        assert grid is not None
        seeds = sorted(set.intersection(*(set(of_set.runs_by_seed(arm)) for arm in grid.cells.values())))
        if not seeds:
            continue
        of_all = of_set.values()
        for m, metric in enumerate(METRICS):
            cells = {at: of_all[[of_set.runs_by_seed(arm)[s] for s in seeds], m] for at, arm in grid.cells.items()}
            found: list[dict[str, Any]] = []
            for effect, values in contrasts(grid, cells).items():
                of = estimate(values, of_set.prompt, spare=int(metric == "accuracy"))
                numbers = {"difference": of.value, "diff_low": of.low, "diff_high": of.high, "p": of.p}
                found.append({"set": name, "metric": metric, "effect": effect, "pairs": len(seeds), **numbers})
            for row, corrected in zip(found, holm([row["p"] for row in found]), strict=True):
                row["p_holm"] = corrected if len(seeds) > 1 else np.nan
            rows += found
    return pd.DataFrame(rows, columns=COLUMNS)


def contrasts(grid: Grid, cells: Mapping[tuple[str, str], np.ndarray]) -> dict[str, np.ndarray]:
    """Name -> (S, I) of every main effect, then of every interaction; cells: (S, I) of each combination."""
    (a, b), (rows, columns) = grid.keys, grid.levels
    found = {}
    for level in rows[1:]:
        name = f"{label({a: level}, {})} instead of {rows[0]}, over {b}"
        found[name] = np.mean([cells[level, c] - cells[rows[0], c] for c in columns], axis=0)
    for level in columns[1:]:
        name = f"{label({b: level}, {})} instead of {columns[0]}, over {a}"
        found[name] = np.mean([cells[r, level] - cells[r, columns[0]] for r in rows], axis=0)
    for r in rows[1:]:
        for c in columns[1:]:
            name = f"{label({a: r}, {})} and {label({b: c}, {})} together, beyond both"
            found[name] = cells[r, c] - cells[rows[0], c] - cells[r, columns[0]] + cells[rows[0], columns[0]]
    return found
