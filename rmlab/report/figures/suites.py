"""A figure per benchmark suite: every arm on every total and subset."""

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from rmlab.report.figures.look import BASELINE, FAINT, TOGETHER, Drawing, Look, legend, letters, new_canvas, wrapped

Number: TypeAlias = tuple[str, str]  # total or subset, and its name
Lines: TypeAlias = dict[tuple[Number, str], dict[str, Any]]  # of each number and arm
FIT = 14  # numbers whose values can be written side by side


def suite_figures(rows: pd.DataFrame, look: Look) -> dict[str, Drawing]:
    """By suite; only of those on which two arms at least were scored. rows: of `compare_suites`."""
    found = {}
    for suite, part in rows.groupby("suite", sort=False):
        lines: Lines = {((r["kind"], r["number"]), r["arm"]): r for r in part.to_dict("records")}  # type: ignore[misc]
        arms = [arm for arm in look.arms if arm in {arm for _, arm in lines}]
        if len(arms) > 1:
            found[str(suite)] = drawn(str(suite), lines, arms, look)
    return found


def drawn(suite: str, lines: Lines, arms: list[str], look: Look) -> Drawing:
    """Dots with intervals where arms can be told apart in one panel, else shaded cells."""
    few, numbers = len(arms) <= TOGETHER, list(dict.fromkeys(number for number, _ in lines))
    canvas = dots(lines, numbers, arms, look) if few else cells(lines, numbers, arms)
    caption = "Dots: mean over seeds; bars: 95% interval" if few else "Mean over seeds"
    caption += ". Totals first, then subsets with their items"
    caption += "; dotted: what random rewards reach" if few and has_chance(lines) else ""
    seeds = sorted({line["seeds"] for line in lines.values()})
    told = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    return Drawing(canvas, f"Suite {suite}", f"{caption}. {told} seed{'s' * (seeds != [1])} per arm.")


def has_chance(lines: Lines) -> bool:
    """Whether what random rewards reach is known of some number."""
    return any(pd.notna(line["chance"]) for line in lines.values())


def labels_of(lines: Lines, numbers: list[Number], share: float) -> list[str]:
    """Of totals and subsets, these with their items, no wider than a share of the page."""
    items = {number: line["items"] for (number, _), line in lines.items()}
    told = [name if kind == "total" else f"{name} ({items[kind, name]:,})" for kind, name in numbers]
    return [wrapped(text, letters(share)) for text in told]


def totals_of(numbers: list[Number]) -> int:
    """How many of them are totals, if there are subsets too; else 0."""
    totals = sum(kind == "total" for kind, _ in numbers)
    return totals if totals < len(numbers) else 0


def dots(lines: Lines, numbers: list[Number], arms: list[str], look: Look) -> Canvas:
    """A row per number, a dot with its interval per arm."""
    canvas = new_canvas(True, 0.6 + len(numbers) * max(0.2, 0.09 * len(arms)))
    ax = canvas.subplots()
    for place, number in enumerate(numbers):
        for n, arm in enumerate(arms):
            if (number, arm) in lines:
                aside = (n - (len(arms) - 1) / 2) * 0.8 / len(arms)
                draw_dot(ax, lines[number, arm], place + aside, look.colours[arm], look.markers[arm])
        chance = next(line["chance"] for (of, _), line in lines.items() if of == number)
        if pd.notna(chance):
            ax.plot([chance] * 2, [place - 0.4, place + 0.4], color=FAINT, lw=0.8, ls=":", zorder=1)
    ax.set_yticks(range(len(numbers)), labels_of(lines, numbers, 0.3))
    ax.set_ylim(len(numbers) - 0.5, -0.5)
    if totals := totals_of(numbers):
        ax.axhline(totals - 0.5, color=BASELINE, lw=0.8)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("score")
    handles = [Line2D([], [], color=look.colours[arm], marker=look.markers[arm]) for arm in arms]
    legend(canvas, handles, [look.names[arm] for arm in arms], look.key)
    return canvas


def draw_dot(ax: Axes, line: dict[str, Any], place: float, colour: str, marker: str) -> None:
    """A mean with its interval, at a height."""
    ax.plot([line["low"], line["high"]], [place, place], color=colour, lw=1.2, solid_capstyle="butt")
    ax.plot([line["mean"]], [place], marker, ms=3.5, color=colour, mew=0)


def cells(lines: Lines, numbers: list[Number], arms: list[str]) -> Canvas:
    """A row per arm, a cell per number, shaded within its column: the best is dark."""
    values = np.array([[lines.get((number, arm), {}).get("mean", np.nan) for number in numbers] for arm in arms])
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    canvas = new_canvas(True, 0.9 + 0.17 * len(arms))
    ax = canvas.subplots()
    shades = np.ma.masked_invalid((values - low) / np.where(high > low, high - low, 1))
    ax.pcolormesh(shades, cmap="Blues", vmin=-0.1, vmax=1.6, edgecolors="white", linewidth=1)
    for (y, x), value in np.ndenumerate(values):
        if len(numbers) <= FIT and not np.isnan(value):
            ax.text(x + 0.5, y + 0.5, f"{value:.3f}".lstrip("0"), fontsize=6, ha="center", va="center")
    ax.set_yticks(np.arange(len(arms)) + 0.5, [wrapped(arm, letters(0.3)) for arm in arms])
    ax.set_xticks(np.arange(len(numbers)) + 0.5, labels_of(lines, numbers, 0.2), rotation=90)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if totals := totals_of(numbers):
        ax.axvline(totals, color=BASELINE, lw=0.8)
    return canvas
