"""Do two run directories hold the same numbers? Metrics and rewards, then and now."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rmlab.config import flatten
from rmlab.messages import UserError
from rmlab.metrics import TIE
from rmlab.rundir import describe

METRIC_TOLERANCE = 1e-4
ROW = ["comparison", "response", "id"]  # what a row of scores is known by

Pairs = dict[str, list[Any]]
"""What differs: name -> [then, now]; None where there is none."""


def compare(then: Path, now: Path) -> dict[str, Any]:
    """{"verdict", "sets": {SET: {...}}, "metrics": those that differ} of two finished run directories."""
    before, after = (read(place / "metrics.json") for place in (then, now))
    sets = {}
    for name in {**before["eval"], **after["eval"]}:
        both = [metrics["eval"].get(name, {}) for metrics in (before, after)]
        sets[name] = {**compare_set(then, now, name), **{k: [m.get(k) for m in both] for k in ("accuracy", "nll")}}
    metrics = differing(*(flatten({part: m[part] for part in ("eval", "train")}) for m in (before, after)))
    return {"verdict": verdict(sets, metrics), "sets": sets, "metrics": metrics}


def compare_set(then: Path, now: Path, name: str) -> dict[str, Any]:
    """rows then and now, whether they are the same, the largest reward difference, preferences that changed sides.

    The last two are over the rows that both have; None without any.
    """
    import numpy as np
    import pandas as pd

    files = [place / "scores" / f"{name}.parquet" for place in (then, now)]
    if not all(file.exists() for file in files):  # only one of them evaluated this set
        rows = [len(pd.read_parquet(file)) if file.exists() else 0 for file in files]
        return {"rows": rows, "same_rows": False, "reward_difference": None, "changed_sides": None}
    a, b = (pd.read_parquet(file).astype({"id": str, "reward": "float64"}) for file in files)
    preferences, others = (pd.read_parquet(file.with_suffix(".preferences.parquet")) for file in files)
    both = a.merge(b, on=ROW).set_index(ROW[:2])[["reward_x", "reward_y"]]
    sides = [pd.MultiIndex.from_frame(preferences[["comparison", side]]) for side in ("better", "worse")]
    gaps = both.reindex(sides[0]).to_numpy() - both.reindex(sides[1]).to_numpy()
    signs = np.sign(gaps[~np.isnan(gaps).any(axis=1)])
    return {
        "rows": [len(a), len(b)],
        "same_rows": len(a) == len(b) == len(both) and preferences.equals(others),
        "reward_difference": float((both.reward_x - both.reward_y).abs().max(skipna=False)) if len(both) else None,
        "changed_sides": int((signs[:, 0] != signs[:, 1]).sum()) if len(both) else None,
    }


def verdict(sets: Mapping[str, Mapping[str, Any]], metrics: Pairs) -> str:
    if not all(part["same_rows"] for part in sets.values()):
        return "different"
    largest = max((part["reward_difference"] for part in sets.values()), default=0.0)
    if largest == 0 and not metrics:
        return "identical"
    return "within tolerance" if largest <= TIE and all(is_near(*pair) for pair in metrics.values()) else "different"


def is_near(then: Any, now: Any) -> bool:
    both = isinstance(then, int | float) and isinstance(now, int | float)
    return both and abs(then - now) <= METRIC_TOLERANCE


def print_sets(sets: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("set", "rows", "largest\nreward\ndifference", "changed\nsides", "accuracy", "nll")
    for name, part in sets.items():
        then, now = part["rows"]
        rows = str(then) if part["same_rows"] else f"{then} -> {now}, not the same"
        metrics = [" -> ".join("none" if v is None else f"{v:.4f}" for v in part[k]) for k in ("accuracy", "nll")]
        difference = part["reward_difference"]
        largest = "none" if difference is None else f"{difference:.3g}"
        table.add_row(name, rows, largest, shown(part["changed_sides"]), *metrics)
    if sets:
        Console().print(table)


def read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {file}: {describe(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no keys and values")
    return content


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> Pairs:
    keys = {**then, **now}
    return {key: [then.get(key), now.get(key)] for key in keys if then.get(key) != now.get(key)}


def shown(value: Any) -> str:
    return "none" if value is None else str(value)
