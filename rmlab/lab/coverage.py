"""The figure of what is left without what is doubted most."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rmlab.lab.beliefs import Belief
from rmlab.metrics.selective import kept
from rmlab.report.figures import save
from rmlab.report.figures.look import BASELINE, FAINT, PALETTE, STYLE, label_axes, legend, small_multiples

GRID = np.linspace(0.1, 1, 37)  # of coverage: of fewer, accuracy is noise
LINES = {"sd": (PALETTE[1], "-"), "gap / sd": (PALETTE[0], "-"), "small gap": (BASELINE, "--")}
NAMES = {"sd": "sd of the gap", "gap / sd": "gap / sd", "small gap": "small gap (one model has it too)"}
WIDTH = 397  # points: of a page's text, as reports have it


def save_figure(beliefs: Sequence[Belief], folder: Path, name: str) -> None:
    """NAME.pdf, .png and .svg: accuracy over coverage, a panel for each belief."""
    with mpl.rc_context({**STYLE, "figure.figsize": (WIDTH / 72, WIDTH / 144)}):
        titles = [f"{belief.arm}: {belief.of}" for belief in beliefs]
        canvas, panels = small_multiples(titles, 3, 2.2)
        for (ax,), belief in zip(panels, beliefs, strict=True):
            draw(ax, belief)
        label_axes(canvas, [ax for (ax,) in panels], "share of preferences kept", "accuracy of those kept")
        handles = [Line2D([], [], color=colour, ls=style) for colour, style in LINES.values()]
        legend(canvas, handles, [NAMES[name] for name in LINES], "left out first: what is doubted most, by", above=True)
        save(canvas, folder, name)


def draw(ax: Axes, belief: Belief) -> None:
    """A line per doubt, with the 95% interval of sd's; dotted: leaving out at random."""
    those = belief.pairs.decided
    right, prompt = belief.pairs.right[those], belief.pairs.prompt[those]
    ax.axhline(right.mean(), color=FAINT, lw=0.9, ls=":", zorder=1)
    for name, (colour, style) in LINES.items():
        numbers = [kept(belief.doubts[name][those], right, prompt, part) for part in GRID]
        ax.plot(GRID, [n["value"] for n in numbers], color=colour, ls=style)
        if name == "sd":
            low, high = ([n[key] for n in numbers] for key in ("low", "high"))
            ax.fill_between(GRID, low, high, color=colour, alpha=0.15, lw=0)
    ax.set_xlim(1, GRID[0])
