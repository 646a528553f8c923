"""What choosing the best of n responses by reward brings, in true reward and in its own."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from rmlab.metrics.best_of_n import Curves, auditable, kl
from rmlab.metrics.scored import ScoredComparison
from rmlab.report.figures.calibration import Scored
from rmlab.report.figures.look import (
    FAINT,
    Drawing,
    Look,
    draw_bands,
    label_axes,
    legend,
    line,
    new_canvas,
    panels,
    seeds_of,
    told_apart,
)

CAPTION = (
    "The response with the most reward among n, over all choices of n of the responses to a prompt: its gold reward, "
    "between that of the best one (dashed) and of a random one (dotted){right}. Mean over seeds; bands: \u00b11 "
    "standard deviation over seeds. Percentages: recovery, how much of the best one's gain over a random pick is won "
    "at the largest n.{apart}"
)
RIGHT = "; right: its own reward, standardised by the mean and sd of all rewards of a run"
TICKS = (1, 2, 3, 4, 6, 8, 16, 32, 64, 128, 256, 512, 1024)


def best_of_n(scored: Scored, look: Look) -> Drawing | None:
    """Gold and reward of the best of n by reward, a line per arm, between a random pick and the best by gold."""
    audited = {arm: [auditable(one) for one in scored[arm]] for arm in look.arms if scored.get(arm)}
    runs = {arm: [Curves.of(one) for one in of] for arm, of in audited.items() if all(of)}
    if not runs:
        return None
    canvas = draw_panels(runs, look) if look.apart else draw_both(runs, audited, look)
    first = next(iter(runs.values()))[0]
    seeds = seeds_of((arm, seed) for arm, of in runs.items() for seed in range(len(of)))
    size = f"{len(np.unique(first.prompt)):,} prompts, {sum(map(len, first.top)):,} responses"
    caption = CAPTION.format(right="" if look.apart else RIGHT, apart=told_apart(look))
    return Drawing(canvas, "Best of n", f"{caption} {seeds}, {size}.")


def draw_panels(runs: Mapping[str, Sequence[Curves]], look: Look) -> Canvas:
    """Gold alone, a panel per arm with the baseline."""
    first = next(iter(runs.values()))[0]
    canvas, shown = panels(look, list(runs), 2.2, notes={arm: recovered(of) for arm, of in runs.items()})
    for (ax,), those in shown:
        draw_gold(ax, {arm: gold_of(runs[arm]) for arm in those}, first, look)
        mark_n(ax, first.largest)
    label_axes(canvas, [axes[0] for axes, _ in shown], "n", "gold reward of the pick")
    return canvas


def draw_both(
    runs: Mapping[str, Sequence[Curves]], audited: Mapping[str, Sequence[Sequence[ScoredComparison]]], look: Look
) -> Canvas:
    """Gold on the left, reward on the right, all arms together."""
    first = next(iter(runs.values()))[0]
    canvas = new_canvas(True, 2.5)
    left, right = canvas.subplots(1, 2)
    draw_gold(left, {arm: gold_of(of) for arm, of in runs.items()}, first, look)
    draw_bands(right, {arm: standardised(of, audited[arm]) for arm, of in runs.items()}, look)
    left.set(ylabel="gold reward of the pick")
    right.set(ylabel="its reward, standardised")
    for ax in (left, right):
        ax.set_xlabel("n (KL in nats)")
        mark_n(ax, first.largest, with_kl=True)
    names = [f"{look.names[arm]} ({recovered(of)})" for arm, of in runs.items()]
    legend(canvas, [Line2D([], [], **line(look, arm)) for arm in runs], names, look.key)
    return canvas


def draw_gold(ax: Axes, gold: Mapping[str, pd.DataFrame], first: Curves, look: Look) -> None:
    """The curves of some arms between the best and a random pick, which are the same for all."""
    n = np.arange(1, first.largest + 1)
    ax.plot(n, first.best.mean(axis=1), color=FAINT, lw=0.9, ls="--", zorder=1)
    ax.axhline(first.picked[0].mean(), color=FAINT, lw=0.9, ls=":", zorder=1)
    draw_bands(ax, gold, look)


def mark_n(ax: Axes, largest: int, with_kl: bool = False) -> None:
    """A logarithmic axis of n, with its KL below each number."""
    ax.set_xscale("log", base=2)
    ticks = [n for n in TICKS if n <= largest and (largest <= 8 or n not in (3, 6))]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([f"{n}\n({kl(n):.2g})" if with_kl else str(n) for n in ticks])


def over_seeds(values: Sequence[np.ndarray]) -> pd.DataFrame:
    """Columns x (n), mean and sd over seeds of curves (N,)."""
    each = np.stack(values)
    sd = each.std(axis=0, ddof=1) if len(each) > 1 else np.zeros(each.shape[1])
    return pd.DataFrame({"x": np.arange(1, each.shape[1] + 1), "mean": each.mean(axis=0), "sd": sd})


def gold_of(runs: Sequence[Curves]) -> pd.DataFrame:
    """The gold of what is picked of n."""
    return over_seeds([run.picked.mean(axis=1) for run in runs])


def standardised(runs: Sequence[Curves], audited: Sequence[Sequence[ScoredComparison]]) -> pd.DataFrame:
    """The rewards of what is picked of n, from the mean of all rewards of a run, in its sds."""
    spread = [np.concatenate([c.rewards for c in one]).std() or 1.0 for one in audited]
    each = [run.reward.mean(axis=1) for run in runs]
    return over_seeds([(one - one[0]) / sd for one, sd in zip(each, spread, strict=True)])


def recovered(runs: Sequence[Curves]) -> str:
    """`63%` at the largest n, mean over seeds."""
    found = [run.recovery(run.largest) for run in runs]
    return f"{np.mean([one['value'] for one in found if one]):.0%}"
