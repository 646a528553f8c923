"""A figure per benchmark suite: every arm on every total and subset."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from rmlab.report.figures.look import BASELINE, FAINT, TOGETHER, Drawing, Look, legend, letters, new_canvas, wrapped


def suite_figures(rows: pd.DataFrame, look: Look) -> dict[str, Drawing]:
    """By suite; only of those on which two arms at least were scored. rows: of `compare_suites`."""
    found = {}
    for name, part in rows.groupby("suite", sort=False):
        arms = [arm for arm in look.arms if arm in set(part["arm"])]
        if len(arms) < 2:
            continue
        names = list(dict.fromkeys(zip(part["kind"], part["number"], strict=True)))
        table = part.set_index(["kind", "number", "arm"])
        few = len(arms) <= TOGETHER
        canvas = dots(table, names, arms, look) if few else cells(table, names, arms)
        how = "Dots: mean over seeds; bars: 95% interval" if few else "Mean over seeds"
        seeds = part["seeds"].dropna()
        number = f"{seeds.min()} to {seeds.max()}" if seeds.nunique() > 1 else f"{seeds.max()}"
        caption = f"{how}. Totals first, then subsets with their items"
        caption += "; dotted: what random rewards reach" if few and part["chance"].notna().any() else ""
        title = f"Suite {name}"
        found[str(name)] = Drawing(canvas, title, f"{caption}. {number} seed{'s' * (number != '1')} per arm.")
    return found


def labels_of(table: pd.DataFrame, names: list[tuple[str, str]], arms: list[str], share: float) -> list[str]:
    """Of totals and subsets, these with their items."""
    told = []
    for kind, name in names:
        items = next(table.loc[(kind, name, arm), "items"] for arm in arms if (kind, name, arm) in table.index)
        told.append(wrapped(name if kind == "total" else f"{name} ({items:,})", letters(share)))
    return told


def dots(table: pd.DataFrame, names: list[tuple[str, str]], arms: list[str], look: Look) -> Canvas:
    """A line per number, a dot with its interval per arm."""
    step = 0.8 / len(arms)
    canvas = new_canvas(True, 0.6 + len(names) * max(0.2, 0.09 * len(arms)))
    ax = canvas.subplots()
    for place, (kind, name) in enumerate(names):
        for n, arm in enumerate(arm for arm in arms if (kind, name, arm) in table.index):
            row, y = table.loc[(kind, name, arm)], place + (n - (len(arms) - 1) / 2) * step
            ax.plot([row["low"], row["high"]], [y, y], color=look.colours[arm], lw=1.2, solid_capstyle="butt")
            ax.plot([row["mean"]], [y], look.markers[arm], ms=3.5, color=look.colours[arm], mew=0)
            if n == 0 and pd.notna(row["chance"]):
                ax.plot([row["chance"]] * 2, [place - 0.4, place + 0.4], color=FAINT, lw=0.8, ls=":", zorder=1)
    ax.set_yticks(range(len(names)), labels_of(table, names, arms, 0.3))
    ax.set_ylim(len(names) - 0.5, -0.5)
    totals = sum(kind == "total" for kind, _ in names)
    if 0 < totals < len(names):
        ax.axhline(totals - 0.5, color=BASELINE, lw=0.8)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("score")
    handles = [Line2D([], [], color=look.colours[arm], marker=look.markers[arm]) for arm in arms]
    legend(canvas, handles, [look.names[arm] for arm in arms], look.key)
    return canvas


def cells(table: pd.DataFrame, names: list[tuple[str, str]], arms: list[str]) -> Canvas:
    """A line per arm, a cell per number, shaded within its column: best dark."""
    values = np.array([[table["mean"].get((*name, arm), np.nan) for name in names] for arm in arms])
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    canvas = new_canvas(True, 0.9 + 0.17 * len(arms))
    ax = canvas.subplots()
    shades = np.ma.masked_invalid((values - low) / np.where(high > low, high - low, 1))
    ax.pcolormesh(shades, cmap="Blues", vmin=-0.1, vmax=1.6, edgecolors="white", linewidth=1)
    if len(names) <= 14:
        for (y, x), value in np.ndenumerate(values):
            if not np.isnan(value):
                ax.text(x + 0.5, y + 0.5, f"{value:.3f}".lstrip("0"), fontsize=6, ha="center", va="center")
    ax.set_yticks(np.arange(len(arms)) + 0.5, [wrapped(arm, letters(0.3)) for arm in arms])
    ax.set_xticks(np.arange(len(names)) + 0.5, labels_of(table, names, arms, 0.2), rotation=90)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    totals = sum(kind == "total" for kind, _ in names)
    if 0 < totals < len(names):
        ax.axvline(totals, color=BASELINE, lw=0.8)
    return canvas
