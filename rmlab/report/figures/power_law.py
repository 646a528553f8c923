"""Losses over sizes on logarithmic axes, with the power law that was fitted to them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rmlab.report.figures.look import BASELINE, FAINT, MARKERS, PALETTE, TOGETHER, Drawing, legend, new_canvas
from rmlab.report.power_law import AHEAD, METRICS, PowerLaw


def power_law(laws: Sequence[PowerLaw]) -> Drawing | None:
    """A panel per metric, a colour per group of arms; None without laws, or with more groups than can be told apart."""
    groups = list(dict.fromkeys(law.group for law in laws))
    if not laws or len(groups) > TOGETHER:
        return None
    colours = [BASELINE] if len(groups) == 1 else list(PALETTE[: len(groups)])
    metrics = [metric for metric in METRICS if any(law.metric == metric for law in laws)]
    canvas = new_canvas(len(metrics) > 1, 2.4)
    for ax, metric in zip(canvas.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for law in [law for law in laws if law.metric == metric]:
            draw_law(ax, law, colours[groups.index(law.group)], MARKERS[groups.index(law.group)])
        scale(ax, [law for law in laws if law.metric == metric])
        ax.set(title=METRICS[metric][1], xlabel=laws[0].key)
    if len(groups) > 1:
        handles = [Line2D([], [], color=c, marker=m) for c, m in zip(colours, MARKERS, strict=False)]
        legend(canvas, handles, groups)
    seeds = laws[0].runs.shape[1]
    caption = (
        f"Dots: mean over {seeds} seed{'s' * (seeds > 1)}; light dots: single seeds" if seeds > 1 else "Dots: runs"
    )
    caption += (
        "; line: a N^-b + c, fitted, with its 95% band over prompts and seeds, dashed beyond the sizes that were run"
    )
    return Drawing(canvas, f"Power law of {laws[0].key}", f"{caption}; dotted: c, which more of it does not take away.")


def draw_law(ax: Axes, law: PowerLaw, colour: str, marker: str) -> None:
    """Points, line and band of a group."""
    within = np.geomspace(law.sizes[0], law.sizes[-1], 60)
    beyond = np.geomspace(law.sizes[-1], law.sizes[-1] * AHEAD, 20)
    for sizes, style in ((within, "-"), (beyond, "--")):
        value, low, high = law.predicted(sizes)
        ax.plot(sizes, value, style, color=colour, lw=1.1)
        ax.fill_between(sizes, low, high, color=colour, alpha=0.12, lw=0)
    if law.runs.shape[1] > 1:
        spread = np.repeat(law.sizes, law.runs.shape[1])
        ax.plot(spread, law.runs.ravel(), "o", ms=2.2, color=colour, alpha=0.4, mew=0)
    ax.plot(law.sizes, law.runs.mean(axis=1), marker, ms=4, color=colour, mew=0)
    if law.fit[2] > 0.5 * law.runs.mean(axis=1).min():  # else it lies far below all points
        ax.axhline(law.fit[2], color=colour if colour != BASELINE else FAINT, lw=0.8, ls=":")


def scale(ax: Axes, laws: Sequence[PowerLaw]) -> None:
    """Logarithmic, with plain numbers at the sizes and at a few losses."""
    ax.set(xscale="log", yscale="log")
    sizes = sorted({size for law in laws for size in law.sizes})
    ax.set_xticks(sizes, [short(size) for size in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(subs=[1, 1.5, 2, 3, 4, 5, 6, 7, 8]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def short(size: float) -> str:
    """`875`, `1.75k`, `14k`."""
    return f"{size:g}" if size < 1000 else f"{size / 1000:.3g}k"
