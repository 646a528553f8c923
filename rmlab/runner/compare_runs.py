"""Do two run directories hold the same numbers? Metrics and rewards, then and now."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rmlab.metrics.evaluate import TIE
from rmlab.runner.config import flatten
from rmlab.runner.directory import RunDirectory

METRIC_TOLERANCE = 1e-4
ROW = ["comparison", "response", "id"]  # what a row of scores is known by

Pairs = dict[str, list[Any]]
"""What differs: name -> [then, now]; None where there is none."""


@dataclass(frozen=True)
class SetAgreement:
    """One evaluation set, [then, now] where there are two values.

    reward_difference (the largest) and changed_sides (preferences whose gap has another sign) are over the rows that
    both have; None without any.
    """

    rows: list[int]
    same_rows: bool
    reward_difference: float | None
    changed_sides: int | None
    accuracy: list[float | None]
    nll: list[float | None]


@dataclass(frozen=True)
class Agreement:
    """verdict: identical, within tolerance or different. metrics: those that differ."""

    verdict: str
    sets: dict[str, SetAgreement]
    metrics: Pairs

    def as_dict(self) -> dict[str, Any]:
        """What reproduction.json keeps of it: dicts all the way down."""
        return asdict(self)


def compare(then: RunDirectory, now: RunDirectory) -> Agreement:
    """Of two finished run directories. A metric that only the later one has is new, and no difference.

    Diagnostics are left out: they are functions of the rewards, and counts in them change with the last digit of one.
    """
    before, after = (undiagnosed(run.metrics()) for run in (then, now))
    names = {**before["eval"], **after["eval"]}
    sets = {name: compare_set(then, now, name, [m["eval"].get(name, {}) for m in (before, after)]) for name in names}
    told, again = (flatten({part: m[part] for part in ("eval", "train")}) for m in (before, after))
    metrics = differing(told, {key: value for key, value in again.items() if key in told})
    return Agreement(verdict(sets, metrics), sets, metrics)


def undiagnosed(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a run without the diagnostics of its sets."""
    sets = {name: {k: v for k, v in of.items() if k != "diagnostics"} for name, of in metrics["eval"].items()}
    return {**metrics, "eval": sets}


def compare_set(then: RunDirectory, now: RunDirectory, name: str, metrics: list[dict[str, Any]]) -> SetAgreement:
    """One evaluation set, rows matched by ROW; no rewards if only one run has it. metrics: its own, [then, now]."""
    import numpy as np
    import pandas as pd

    told = {key: [m.get(key) for m in metrics] for key in ("accuracy", "nll")}
    if not (then.has_scores(name) and now.has_scores(name)):  # only one of them evaluated this set
        rows = [len(run.scores(name).responses) if run.has_scores(name) else 0 for run in (then, now)]
        return SetAgreement(rows, False, None, None, **told)
    before, after = then.scores(name), now.scores(name)
    a, b = (scores.responses.astype({"id": str, "reward": "float64"}) for scores in (before, after))
    both = a.merge(b, on=ROW).set_index(ROW[:2])[["reward_x", "reward_y"]]
    pairs = before.preferences
    sides = [pd.MultiIndex.from_frame(pairs[["comparison", side]]) for side in ("better", "worse")]
    gaps = both.reindex(sides[0]).to_numpy() - both.reindex(sides[1]).to_numpy()
    signs = np.sign(gaps[~np.isnan(gaps).any(axis=1)])
    return SetAgreement(
        rows=[len(a), len(b)],
        same_rows=len(a) == len(b) == len(both) and pairs.equals(after.preferences),
        reward_difference=float((both.reward_x - both.reward_y).abs().max(skipna=False)) if len(both) else None,
        changed_sides=int((signs[:, 0] != signs[:, 1]).sum()) if len(both) else None,
        **told,
    )


def verdict(sets: Mapping[str, SetAgreement], metrics: Pairs) -> str:
    """identical; within tolerance, rewards by 1e-5 and metrics by 1e-4; or different, as where rows differ."""
    if not all(part.same_rows for part in sets.values()):
        return "different"
    largest = max((part.reward_difference or 0.0 for part in sets.values()), default=0.0)
    if largest == 0 and not metrics:
        return "identical"
    return "within tolerance" if largest <= TIE and all(is_near(*pair) for pair in metrics.values()) else "different"


def is_near(then: Any, now: Any) -> bool:
    """Whether both are numbers, at most METRIC_TOLERANCE apart."""
    both = isinstance(then, int | float) and isinstance(now, int | float)
    return both and abs(then - now) <= METRIC_TOLERANCE


def print_sets(sets: Mapping[str, SetAgreement]) -> None:
    """A table on the terminal, a row per evaluation set; nothing without any."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("set", "rows", "largest\nreward\ndifference", "changed\nsides", "accuracy", "nll")
    for name, part in sets.items():
        then, now = part.rows
        rows = str(then) if part.same_rows else f"{then} -> {now}, not the same"
        metrics = [" -> ".join("none" if v is None else f"{v:.4f}" for v in pair) for pair in (part.accuracy, part.nll)]
        largest = "none" if part.reward_difference is None else f"{part.reward_difference:.3g}"
        table.add_row(escape(name), rows, largest, shown(part.changed_sides), *metrics)
    if sets:
        Console().print(table)


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> Pairs:
    """What differs, in the order of `then`, what only `now` has at the end."""
    pairs = {key: [None if part.get(key) == {} else part.get(key) for part in (then, now)] for key in {**then, **now}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def shown(value: Any) -> str:
    """The value as users read it: `none` where there is none."""
    return "none" if value is None else str(value)
