"""How figures look: sizes, colours, panels, legends, and the words of captions."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from rmlab.report.arms import show
from rmlab.report.items import OUTSIDE, Items
from rmlab.report.runs import Run
from rmlab.report.study import Study

COLUMN = 0.62  # of the width of a page's text: what a figure of one panel takes
TOGETHER = 6  # arms that can be told apart in one panel
BASELINE, FAINT = "#404040", "#909090"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito, for the colour-blind
MARKERS = "osD^vP"
Place = Literal["outside lower center", "outside upper center"]
STYLE: dict[Any, Any] = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#606060",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,  # an arm may have a $ in its name
    "pdf.fonttype": 42,  # text stays text, and journals take it
    "svg.fonttype": "none",
    "svg.hashsalt": "rmlab",  # the same bytes for the same data
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
}
UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {}, "svg": {"Date": None}}


@dataclass
class Drawing:
    """A figure that is drawn but not saved, with what stands above and below it on the page."""

    canvas: Canvas
    title: str
    caption: str


@dataclass(frozen=True)
class Look:
    """How the arms of a study are told apart.

    key, names: what legends are headed with and call the arms. apart: a panel each.
    """

    arms: list[str]
    baseline: str
    colours: dict[str, str]
    markers: dict[str, str]
    key: str
    names: dict[str, str]
    apart: bool


def look_of(study: Study) -> Look:
    """Up to six arms have colours and markers; more have shades if one number tells them apart, else a panel each.

    Only arms with a finished run or scores from outside, the baseline first and always in dark grey.
    """
    arms = [arm for arm, runs in study.arms.items() if finished(runs) or arm in study.outside]
    others = [arm for arm in arms if arm != study.baseline]
    few, number = len(arms) <= TOGETHER, only_number([study.values[arm] for arm in arms])
    colours, names = [PALETTE[0]] * len(others), {arm: arm for arm in arms}
    if few:
        colours = list(PALETTE[: len(others)])
    elif number:
        colours = [to_hex(colour) for colour in mpl.colormaps["viridis"](np.linspace(0.12, 0.95, len(others)))]
        names = {arm: show(study.values[arm][number]) for arm in arms}
    markers = dict(zip(arms, MARKERS if few else "o" * len(arms), strict=False))
    drawn = {study.baseline: BASELINE, **dict(zip(others, colours, strict=True))}
    return Look(arms, study.baseline, drawn, markers, "" if few else number, names, apart=not few and not number)


def finished(runs: Sequence[Run]) -> list[Run]:
    """The runs that have metrics, in the order given."""
    return [run for run in runs if run.state == "finished"]


def only_number(values: Sequence[Mapping[str, Any]]) -> str:
    """The one key that tells these arms apart if all its values are numbers; else empty."""
    keys = {key for each in values for key in each}
    numbers = all(values) and all(is_number(value) for each in values for value in each.values())
    return keys.pop() if len(keys) == 1 and numbers else ""


def is_number(value: Any) -> bool:
    """Whether a value of the config can be put on an axis; true and false cannot."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def panels(
    look: Look,
    arms: Sequence[str],
    height: float,
    parts: Sequence[float] = (1,),
    notes: Mapping[str, str] | None = None,
) -> tuple[Canvas, list[tuple[list[Axes], list[str]]]]:
    """A figure and its panels with the arms that each shows: all in one, or each in its own with the baseline.

    notes: words to add to the name of each arm.
    """
    names = [f"{look.names[arm]} ({notes[arm]})" if notes else look.names[arm] for arm in arms]
    if look.apart:
        canvas, axes = small_multiples(names, 3, 1.45 * sum(parts), parts)
        shown = [list(dict.fromkeys([*{look.baseline} & {*arms}, arm])) for arm in arms]
        return canvas, list(zip(axes, shown, strict=True))
    canvas, axes = small_multiples([""], 1, height, parts)
    legend(canvas, [Line2D([], [], **line(look, arm)) for arm in arms], names, look.key)
    return canvas, [(axes[0], list(arms))]


def small_multiples(
    titles: Sequence[str], columns: int, height: float, parts: Sequence[float] = (1,), shared: bool = True
) -> tuple[Canvas, list[list[Axes]]]:
    """Panels, at most `columns` in a row, each of parts one below the other, heights as given; shared: their axes."""
    columns = -(-len(titles) // -(-len(titles) // columns))  # rows of equal length where that is possible
    titles = [wrapped(title, letters(0.92 / columns)) for title in titles]
    height += 0.11 * max(title.count("\n") for title in titles)
    ratios = list(parts) * -(-len(titles) // columns)
    canvas = new_canvas(columns > 1, height * len(ratios) / len(parts) + 0.4)
    grid = canvas.subplots(len(ratios), columns, sharex=shared, squeeze=False, height_ratios=ratios)
    axes = [list(row) for rows in np.split(grid, len(ratios) // len(parts)) for row in rows.T]
    for place, panel in enumerate(axes):
        for ax, first in zip(panel, axes[0], strict=True):
            ax.set_visible(place < len(titles))
            if place and shared:
                ax.sharey(first)
            ax.tick_params(labelleft=place % columns == 0 or not shared, labelbottom=not shared)
        panel[-1].tick_params(labelbottom=place + columns >= len(titles) or not shared)  # also with no panel below
    for title, panel in zip(titles, axes, strict=False):
        panel[0].set_title(title, fontsize=7)
    return canvas, axes[: len(titles)]


def new_canvas(wide: bool, height: float) -> Canvas:
    """An empty figure of the width of a page's text (rc figure.figsize), or of a part of it; height in inches."""
    width = mpl.rcParams["figure.figsize"][0]
    return Canvas(figsize=(width if wide else COLUMN * width, height))


def is_leftmost(ax: Axes) -> bool:
    """Whether a panel is in the first column, where the y axis is labelled."""
    place = ax.get_subplotspec()
    return place is not None and place.is_first_col()


def label_axes(canvas: Canvas, axes: Sequence[Axes], x: str, y: str = "") -> None:
    """One label for all panels; an empty one leaves what is there."""
    if len(axes) == 1:
        axes[0].set_xlabel(x)
        axes[0].set_ylabel(y or axes[0].get_ylabel())
    else:
        canvas.supxlabel(x, fontsize=7.5)
        canvas.supylabel(y, fontsize=7.5)


def letters(share: float) -> int:
    """How many letters of the size of titles fit in a share of a page's width."""
    return max(8, int(mpl.rcParams["figure.figsize"][0] * 72 * share / 4.1))


def wrapped(text: str, width: int) -> str:
    """Lines of at most this width, broken at spaces, and in a long word after a sign such as = or _ if there is one."""
    words = [word if len(word) <= width else re.sub(r"([=_/.-])(?=\w)", "\\1\0 ", word) for word in text.split(" ")]
    return textwrap.fill(" ".join(words), width).replace("\0 ", "").replace("\0", "")


def line(look: Look, arm: str) -> dict[str, Any]:
    """Colour and marker of an arm, as arguments of matplotlib's plot."""
    return {"color": look.colours[arm], "marker": look.markers[arm]}


def legend(
    canvas: Canvas, handles: Sequence[Artist], names: Sequence[str], title: str = "", above: bool = False
) -> None:
    """Above or below all panels, in as many columns as the longest name leaves room for. The figure grows by it."""
    fitting = max(1, int(canvas.get_figwidth() * 17 / (max(map(len, names)) + 8)))
    rows = -(-len(names) // fitting)
    canvas.set_figheight(canvas.get_figheight() + 0.16 * (rows + bool(title)))
    place: Place = "outside upper center" if above else "outside lower center"
    canvas.legend(handles, names, loc=place, ncols=-(-len(names) // rows), title=title or None, title_fontsize=7)


def draw_bands(ax: Axes, curves: Mapping[str, pd.DataFrame], look: Look) -> None:
    """Lines with a band of one sd either side."""
    for arm, points in curves.items():
        colour, marker = look.colours[arm], look.markers[arm] if len(points) <= 12 else ""
        low, high = points["mean"] - points["sd"], points["mean"] + points["sd"]
        ax.plot(points["x"], points["mean"], color=colour, marker=marker)
        ax.fill_between(points["x"], low, high, color=colour, alpha=0.15 if len(curves) < 4 else 0.08, lw=0)


# ---- words of captions ----


def told_apart(look: Look) -> str:
    """A sentence for captions, with a space before it, where arms have a panel each; else empty."""
    return f" One panel per arm; dark grey: the baseline, {look.baseline}." if look.apart else ""


def seeds_of(runs: Iterable[tuple[str, int]], per: str = "arm") -> str:
    """`5 seeds per arm`, `4 to 5 seeds per arm`; `no seeds` of scores from outside. runs: arm and seed of each."""
    numbers = Counter(arm for arm, seed in set(runs) if seed != OUTSIDE).values()
    if not numbers:
        return "no seeds"
    low, high = min(numbers), max(numbers)
    return (f"{low} to {high}" if low < high else str(low)) + f" seed{'s' * (high != 1)} per {per}"


def counted(items: Items, decided: bool = False) -> str:
    """`5 seeds per arm, 1,000 prompts, 1,031 decided preferences.`"""
    return f"{seeds_of(zip(items.arm.tolist(), items.seed.tolist(), strict=True))}, {size_of(items, decided)}"


def size_of(items: Items, decided: bool) -> str:
    """`1,000 prompts, 1,031 decided preferences.` decided: do not count ties; the word is there if there are any."""
    used = (items.probability != 0.5) | (not decided)
    kind = "" if used.all() else "decided "
    return f"{len(np.unique(items.prompt[used])):,} prompts, {used.sum():,} {kind}preferences."


def several_seeds(items: Items) -> bool:
    """Whether there is a spread over seeds to draw."""
    return len({*items.seed.tolist()} - {OUTSIDE}) > 1


def listed(names: Sequence[str]) -> str:
    """`A, b and c`, the first letter in upper case."""
    text = ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]
    return text[0].upper() + text[1:]
