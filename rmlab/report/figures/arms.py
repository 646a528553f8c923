"""Figures of the arms: accuracy and differences, learning curves, two varied values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from rmlab.report.arms import show
from rmlab.report.figures.look import (
    BASELINE,
    Drawing,
    Look,
    counted,
    draw_bands,
    finished,
    is_number,
    label_axes,
    legend,
    letters,
    line,
    listed,
    new_canvas,
    panels,
    seeds_of,
    several_seeds,
    size_of,
    told_apart,
    wrapped,
)
from rmlab.report.items import Items
from rmlab.report.runs import Run
from rmlab.report.study import Study

# ---- accuracy ----


def accuracy(items: Items, rows: pd.DataFrame, look: Look, bayes: float | None) -> Drawing | None:
    """Mean accuracy per arm with its interval and seeds; beside it the difference to the baseline."""
    part = rows[rows["metric"] == "accuracy"].set_index("arm").reindex(look.arms).dropna(subset="mean")
    if part.empty:
        return None
    paired = bool(part["difference"].notna().any())
    names = [wrapped(str(arm), letters(0.3 if paired else 0.25)) for arm in part.index]
    lines = max(name.count("\n") for name in names) + 1
    canvas = new_canvas(paired, 0.6 + (0.16 + 0.1 * lines) * len(part))
    axes = canvas.subplots(1, 1 + paired, sharey=True, squeeze=False)[0]
    axes[0].set_yticks(range(len(part)), names)
    axes[0].set_ylim(len(part) - 0.5, -0.5)
    draw_means(axes[0], part, items, look, bayes)
    if paired:
        draw_differences(axes[1], part, look)
    for ax in axes:
        ax.locator_params(axis="x", nbins=4)  # or labels of four digits touch
    caption = "Accuracy with its 95% interval over prompts"
    if several_seeds(items):
        caption = "Mean accuracy over seeds with its 95% interval over prompts and seeds; light dots: single seeds"
    caption += f"; dotted line: accuracy of the true rewards, {bayes:.3f}. " if bayes else ". "
    if paired:
        caption += "Right: paired difference to the baseline, filled where p < 0.05 after Holm's correction"
        loose = part["verdict"].eq("") & (part["diff_low"] * part["diff_high"] > 0)
        caption += " (an open dot whose bar excludes 0: not after it). " if loose.any() else ". "
    return Drawing(canvas, "Accuracy", caption + counted(items, decided=True))


def draw_means(ax: Axes, part: pd.DataFrame, items: Items, look: Look, bayes: float | None) -> None:
    """A mean with its interval per arm, seeds as light dots below it; vertical lines: the baseline and `bayes`."""
    of_run = np.nanmean(items.values()[:, 0], axis=1)
    for place, (arm, row) in enumerate(part.iterrows()):
        mine = of_run[items.arm == arm]
        colour = look.colours[str(arm)]
        if len(mine) > 1:
            ax.plot(mine, np.full(len(mine), place + 0.22), "o", ms=2.5, color=colour, alpha=0.45, mew=0)
        interval(ax, row[["mean", "low", "high"]], place, colour)
        if arm == look.baseline:
            ax.axvline(row["mean"], color=BASELINE, lw=0.8, zorder=1)
    if bayes:
        ax.axvline(bayes, color="#606060", lw=1, ls=":")
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("accuracy")


def draw_differences(ax: Axes, part: pd.DataFrame, look: Look) -> None:
    """A difference to the baseline with its interval per arm, the dot filled where there is a verdict."""
    for place, (arm, row) in enumerate(part.iterrows()):
        found = isinstance(row["verdict"], str) and bool(row["verdict"])
        interval(ax, row[["difference", "diff_low", "diff_high"]], place, look.colours[str(arm)], filled=found)
    ax.axvline(0, color=BASELINE, lw=0.8, zorder=1)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(wrapped(f"difference to {look.baseline}", letters(0.32)))


def interval(ax: Axes, numbers: "pd.Series[float]", place: float, colour: str, filled: bool = True) -> None:
    """numbers: value, low, high; nothing is drawn where they are NaN."""
    value, low, high = numbers.astype(float)
    ax.plot([low, high], [place, place], color=colour, lw=1.4, solid_capstyle="butt")
    ax.plot([value], [place], "o", ms=4.5, color=colour, mfc=colour if filled else "white", mew=1.2)


def bayes_accuracy(runs: Sequence[Run], name: str) -> float | None:
    """Accuracy of the true rewards on a set, from the first run that has it; None where they are not known."""
    known = [run.metrics["eval"].get(name, {}).get("bayes_accuracy") for run in runs]
    return next((float(value) for value in known if value is not None), None)


# ---- learning curves ----


def learning_curves(study: Study, name: str, items: Items, look: Look, only: bool) -> Drawing | None:
    """Accuracy and nll during training, over epochs. Not the arms' own losses, which cannot be compared.

    only: this is the one evaluation set, which Trainer then logs without its name.
    """
    keys = {
        "held-out accuracy": [f"eval_{name}_accuracy", *["eval_accuracy"] * only],
        "held-out Bradley-Terry NLL": [f"eval_{name}_nll", *["eval_nll"] * only],
        "training accuracy": ["accuracy"],
    }
    runs = {arm: study.arms[arm] for arm in look.arms if study.arms[arm]}
    curves = {title: {arm: curve(mine, names) for arm, mine in runs.items()} for title, names in keys.items()}
    curves = {title: {arm: c for arm, c in of.items() if len(c) > 1} for title, of in curves.items()}
    curves = {title: of for title, of in curves.items() if of}
    if not curves:
        return None
    if look.apart:  # a panel per arm has room for one quantity
        curves = dict(list(curves.items())[:1])
    bands = ", mean over seeds; bands: \u00b11 standard deviation over seeds" * several_seeds(items)
    caption = f"{listed(list(curves))} during training{bands}."
    if "training accuracy" in curves:
        caption += " Training accuracy is of the batches since the previous point."
    return Drawing(draw_curves(curves, look), "Learning curves", f"{caption}{told_apart(look)} {counted(items)}")


def curve(runs: Sequence[Run], keys: Sequence[str]) -> pd.DataFrame:
    """Columns x (epoch), mean, sd over seeds; a row per step at which one of keys was logged."""
    points = [
        (entry["step"], run.seed, entry["epoch"], entry[key])
        for run in runs
        for entry in run.history
        for key in keys
        if key in entry
    ]
    table = pd.DataFrame(points, columns=["step", "seed", "epoch", "value"]).drop_duplicates(
        ["step", "seed"], keep="last"
    )
    by_step = table.groupby("step")
    mean, sd = by_step["value"].mean(), by_step["value"].std().fillna(0.0)
    return pd.DataFrame({"x": by_step["epoch"].mean(), "mean": mean, "sd": sd})


def draw_curves(curves: Mapping[str, Mapping[str, pd.DataFrame]], look: Look) -> Canvas:
    """A panel per quantity, or per arm if there is one quantity and the arms are told apart so."""
    arms = [arm for arm in look.arms if any(arm in of for of in curves.values())]
    if len(curves) == 1:
        title, of = next(iter(curves.items()))
        canvas, shown = panels(look, arms, 2.1)
        for (ax,), those in shown:
            draw_bands(ax, {arm: of[arm] for arm in those}, look)
        label_axes(canvas, [axes[0] for axes, _ in shown], "epoch", title)
        return canvas
    canvas = new_canvas(True, 2.3)
    for ax, (title, of) in zip(canvas.subplots(1, len(curves)), curves.items(), strict=True):
        draw_bands(ax, of, look)
        ax.set(xlabel="epoch", title=title)
    legend(canvas, [Line2D([], [], **line(look, arm)) for arm in arms], [look.names[arm] for arm in arms], look.key)
    return canvas


# ---- two varied values ----


def heat_cells(study: Study, name: str) -> pd.DataFrame | None:
    """Mean accuracy over seeds of every combination of two varied values; NaN where no run finished.

    None unless exactly two keys vary, in every arm, with two values each at least. Down: words, or the key with fewer
    values. Across: the other.
    """
    trained = {arm: values for arm, values in study.values.items() if arm not in study.outside}
    varied = {arm: {key: level(value) for key, value in values.items()} for arm, values in trained.items()}
    keys = list(dict.fromkeys(key for values in varied.values() for key in values))
    if len(keys) != 2 or any(len(values) != 2 for values in varied.values()):
        return None
    levels = {key: in_order([values[key] for values in varied.values()]) for key in keys}
    down, across = sorted(keys, key=lambda key: (all(is_number(v) for v in levels[key]), len(levels[key])))
    if len(levels[down]) < 2 or len(levels[across]) < 2:
        return None
    index, columns = (pd.Index(levels[key], dtype=object, name=key) for key in (down, across))
    cells = pd.DataFrame(np.nan, index=index, columns=columns)
    for arm, values in varied.items():
        found = [run.metrics["eval"].get(name, {}).get("accuracy", np.nan) for run in finished(study.arms[arm])]
        cells.loc[values[down], values[across]] = pd.Series(found, dtype=float).mean()
    return None if cells.isna().to_numpy().all() else cells


def level(value: Any) -> float | str:
    """A number as it is, so that levels are put in order by size; any other value in words."""
    return value if is_number(value) else show(value)


def in_order(values: Sequence[float | str]) -> list[float | str]:
    """Numbers by size, then words in the order in which they come."""
    unique = list(dict.fromkeys(values))
    return [*sorted(v for v in unique if not isinstance(v, str)), *(v for v in unique if isinstance(v, str))]


def heatmap(study: Study, name: str, items: Items) -> Drawing | None:
    """A cell for every combination of two varied values."""
    cells = heat_cells(study, name)
    if cells is None:
        return None
    values, down, across = cells.to_numpy(float), [*map(show, cells.index)], [*map(show, cells.columns)]
    canvas = new_canvas(len(across) > 5, 0.7 + 0.34 * len(down))
    ax = canvas.subplots()
    mesh = ax.pcolormesh(np.ma.masked_invalid(values), cmap="cividis", edgecolors="white", linewidth=1)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (y, x), value in np.ndenumerate(values):
        write_cell(ax, x, y, value, dark=value < middle)
    ax.set_xticks(np.arange(len(across)) + 0.5, [wrapped(text, 14) for text in across])
    ax.set_yticks(np.arange(len(down)) + 0.5, [wrapped(text, 24) for text in down])
    ax.set(xlabel=cells.columns.name, ylabel=cells.index.name)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    canvas.colorbar(mesh, label="accuracy").outline.set_visible(False)
    caption = f"Mean accuracy over seeds{'; missing: no finished run' * bool(np.isnan(values).any())}. "
    caption += seeds_of(((run.arm, run.seed) for run in study.finished), "cell")
    title = f"Accuracy by {cells.index.name} and {cells.columns.name}"
    return Drawing(canvas, title, f"{caption}, {size_of(items, decided=True)}")


def write_cell(ax: Axes, x: int, y: int, value: float, dark: bool) -> None:
    """The value in cell (x, y), three decimals; NaN is hatched. dark: the cell is, so the text is white."""
    missing = np.isnan(value)
    if missing:
        ax.add_patch(Rectangle((x, y), 1, 1, facecolor="#f0f0f0", hatch="////", edgecolor="#c8c8c8", lw=0))
    colour = "white" if dark and not missing else "black"
    text = "missing" if missing else f"{value:.3f}"
    ax.text(x + 0.5, y + 0.5, text, color=colour, fontsize=7, ha="center", va="center")
