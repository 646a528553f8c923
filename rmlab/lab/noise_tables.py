"""Suspicion against flips that are known: average precision, a table, the figure of precision and recall."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rmlab.lab.fits import Value
from rmlab.lab.suspects import average_precision, precision_recall
from rmlab.report.figures import save
from rmlab.report.figures.look import FAINT, PALETTE, STYLE, legend, new_canvas

DRAWS = 200  # of the bootstrap of average precision
BY = {"suspicion": "cross-fitted", "in_sample": "in-sample", "gold": "by gold"}
LINES: dict[str, dict[str, Any]] = {
    "suspicion": {"color": PALETTE[0]},
    "in_sample": {"color": PALETTE[1]},
    "gold": {"color": FAINT, "ls": "--"},
}
CHANCE: dict[str, Any] = {"color": FAINT, "lw": 0.9, "ls": ":"}


def against_flips(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A line per set of rows and kind of suspicion: average precision, and precision of as many as are flipped."""
    lines = []
    for name, table in tables.items():
        for by, (score, flipped, ids) in scores_of(table).items():
            value = with_interval(score, flipped, ids)
            first = np.argsort(-score, kind="stable")[: int(flipped.sum())]
            lines.append(
                {
                    "rows": name,
                    "by": by,
                    "preferences": len(score),
                    "flipped": int(flipped.sum()),
                    "average_precision": value.value,
                    "low": value.low,
                    "high": value.high,
                    "precision_at_flips": flipped[first].mean(),
                }
            )
    return pd.DataFrame(lines)


def scores_of(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Kind of suspicion -> (score, flipped, id) (P,) of the preferences that all kinds know; none without flips."""
    told = table.assign(gold=-table["gold_gap"])
    kinds = [kind for kind in BY if kind in told and told[kind].notna().any()]
    known = told.dropna(subset=kinds)
    if not known["flipped"].any():
        return {}
    flipped, ids = known["flipped"].to_numpy(bool), known["id"].to_numpy()
    return {kind: (known[kind].to_numpy(float), flipped, ids) for kind in kinds}


def with_interval(score: np.ndarray, flipped: np.ndarray, ids: np.ndarray, seed: int = 0) -> Value:
    """Average precision; the interval is that of a bootstrap of rows."""
    rng, rows = np.random.default_rng(seed), np.unique(ids, return_inverse=True)[1]
    number, found = rows.max() + 1, []
    for _ in range(DRAWS):
        times = rng.multinomial(number, np.full(number, 1 / number))[rows]
        drawn = np.repeat(np.arange(len(rows)), times)
        if flipped[drawn].any():
            found.append(average_precision(score[drawn], flipped[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    return Value(average_precision(score, flipped), float(low), float(high))


def markdown(tables: Mapping[str, pd.DataFrame], title: str, notes: Sequence[str]) -> str:
    """A line per set of rows, and what the numbers are."""
    found = against_flips(tables)
    kinds = [by for by in BY if len(found) and by in set(found["by"])]
    head = [
        "rows",
        "preferences",
        "models of each",
        "suspicion above 0.5",
        "flipped",
        *(f"AP {BY[by]}" for by in kinds),
    ]
    lines = [f"# {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, table in tables.items():
        share, models = (table["suspicion"] > 0.5).mean(), table["models"].mean()
        cells = [name or "all", f"{len(table):,}", f"{models:.1f}", f"{share:.1%}", f"{table['flipped'].mean():.1%}"]
        for by in kinds:
            told = found[(found["rows"] == name) & (found["by"] == by)]
            numbers = told[["average_precision", "low", "high"]].to_numpy()
            cells.append(str(Value(*numbers[0])) if len(numbers) else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"* {note}" for note in notes), ""])


def draw_noise(tables: Mapping[str, pd.DataFrame], folder: Path, width: float = 397) -> None:
    """Precision by recall, a panel per set of rows, saved as noise.pdf, .png and .svg; width: in points."""
    those = {name: scores_of(table) for name, table in tables.items() if scores_of(table)}
    with mpl.rc_context({**STYLE, "figure.figsize": (width / 72, width / 144)}):
        canvas = new_canvas(len(those) > 1, 2.1)
        axes = canvas.subplots(1, len(those), sharex=True, sharey=True, squeeze=False)[0]
        for ax, (name, kinds) in zip(axes, those.items(), strict=True):
            draw_one(ax, kinds)
            ax.set(title=name, xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), xlabel="recall of flips")
        axes[0].set_ylabel("precision")
        shown = [by for by in BY if any(by in kinds for kinds in those.values())]
        lines = [Line2D([], [], **LINES[by]) for by in shown] + [Line2D([], [], **CHANCE)]
        legend(canvas, lines, [*(BY[by] for by in shown), "by chance"])
        save(canvas, folder, "noise")


def draw_one(ax: Axes, kinds: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Precision by recall of each kind of suspicion."""
    for by, (score, flipped, _) in kinds.items():
        precision, recall = precision_recall(score, flipped)
        ax.plot(recall, precision, **LINES[by])
        ax.axhline(flipped.mean(), **CHANCE)
