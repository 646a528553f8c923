"""The figure of over-optimisation: gold and proxy by n for each arm, and gold for the ensembles of its seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rmlab.lab.gains import SINGLE
from rmlab.lab.optimised import Proxy
from rmlab.report.figures import save
from rmlab.report.figures.best_of_n import mark_n
from rmlab.report.figures.look import BASELINE, FAINT, PALETTE, STYLE, legend, letters, new_canvas, wrapped

NAME = "overoptimisation"
ROW = 1.55  # inches
PROXY = PALETTE[1]


def draw_overoptimisation(found: Sequence[Proxy], curves: pd.DataFrame, folder: Path, width: float = 397) -> None:
    """A row of panels per arm, saved as pdf, png and svg. curves: of `curves_table`; width: in points."""
    arms = list(dict.fromkeys(proxy.arm for proxy in found))
    ensembles = list(dict.fromkeys(proxy.by for proxy in found if proxy.by != SINGLE))
    colours = {SINGLE: BASELINE, **dict(zip(ensembles, [c for c in PALETTE if c != PROXY], strict=False))}
    with mpl.rc_context({**STYLE, "figure.figsize": (width / 72, width / 144)}):
        canvas = new_canvas(bool(ensembles), ROW * len(arms) + 0.5)
        axes = canvas.subplots(len(arms), 1 + bool(ensembles), sharex=True, sharey="col", squeeze=False)
        for row, arm in zip(axes, arms, strict=True):
            of_arm = [proxy for proxy in found if proxy.arm == arm]
            draw_single(row[0], of_arm[0], curves[(curves["arm"] == arm) & (curves["by"] == SINGLE)])
            row[0].set_title(wrapped(arm, letters(0.45)), fontsize=7)
            for ax in row[1:]:
                draw_ensembles(ax, of_arm, colours)
        for ax in axes[-1]:
            ax.set_xlabel("n (KL in nats)")
            mark_n(ax, int(found[0].gains.n[-1]), with_kl=True)
        canvas.supylabel("gain over a random answer, in sd", fontsize=7.5)
        for ax in axes[0][1:]:
            ax.set_title("gold of the ensembles of its seeds", fontsize=7)
        lines = [line(color=BASELINE), line(color=PROXY, ls="--"), line(color=BASELINE, ls=":", lw=0.9)]
        lines += [line(color=BASELINE, marker="v", ls=""), *(line(color=colours[by]) for by in ensembles)]
        legend(canvas, lines, ["gold, single models", "proxy", "fit", "peak, if gold falls", *ensembles])
        save(canvas, folder, NAME)


def line(**drawn: Any) -> Line2D:
    """For the legend."""
    return Line2D([], [], **drawn)


def draw_single(ax: Axes, proxy: Proxy, curve: pd.DataFrame) -> None:
    """Gold and proxy of single models with their intervals; dotted: the fit; faint: choosing by gold."""
    n = proxy.gains.n
    ax.plot(n, curve["best"], color=FAINT, lw=0.9, zorder=1)
    ax.annotate("by gold", (n[-1], curve["best"].iloc[-1]), fontsize=6, color=FAINT, ha="right", va="bottom")
    for name, ls, colour in (("gold", "-", BASELINE), ("proxy", "--", PROXY)):
        ax.fill_between(n, curve[f"{name}_low"], curve[f"{name}_high"], color=colour, alpha=0.15, lw=0)
        ax.plot(n, curve[name], color=colour, ls=ls)
    d = np.linspace(0, proxy.gains.d[-1], 100)
    ax.plot(np.interp(d, proxy.gains.d, n), proxy.fit.at(d), color=BASELINE, ls=":", lw=0.9)
    mark_peak(ax, proxy, BASELINE)
    ax.axhline(0, color=FAINT, lw=0.6, zorder=0)


def draw_ensembles(ax: Axes, of_arm: Sequence[Proxy], colours: dict[str, str]) -> None:
    """Gold alone, of single models and of each ensemble."""
    for proxy in of_arm:
        ax.plot(proxy.gains.n, proxy.gains.gold.mean(axis=(0, 1)), color=colours[proxy.by])
        mark_peak(ax, proxy, colours[proxy.by])
    ax.axhline(0, color=FAINT, lw=0.6, zorder=0)


def mark_peak(ax: Axes, proxy: Proxy, colour: str) -> None:
    """At the n of the most gold, where gold is known to fall towards the largest n."""
    if proxy.end.high < 0:
        top = proxy.gains.gold.mean(axis=(0, 1)).max()
        ax.plot([proxy.best_n.value], [top + 0.02 * np.ptp(ax.get_ylim())], color=colour, marker="v", ls="")
