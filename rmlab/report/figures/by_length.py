"""How often models are right by how much longer the better response is."""

from collections.abc import Sequence

import numpy as np

from rmlab.metrics.correlation import of_differences
from rmlab.metrics.pairs import Pairs
from rmlab.metrics.scored import ScoredComparison
from rmlab.report.figures.calibration import Scored
from rmlab.report.figures.items import mean_and_error
from rmlab.report.figures.look import FAINT, Drawing, Look, label_axes, line, panels, seeds_of, told_apart

BINS = 6  # of equal mass on both sides of an equal length together
LEAST = 10  # preferences that a bin needs
CAPTION = (
    "Accuracy by how many tokens the better response is longer than the worse one; left of 0 it is shorter, and a "
    "model that goes by length is wrong. Points: means of bins of equal mass; bars: \u00b11 standard error over "
    "prompts and seeds together; horizontal line: chance. \u03c1: Spearman's correlation of the difference in reward "
    "with that in length, mean over seeds."
)


def length_accuracy(scored: Scored, look: Look) -> Drawing | None:
    """Accuracy by how many tokens longer the better response is than the worse one, a line per arm."""
    runs = {arm: [Pairs.of(one) for one in scored[arm]] for arm in look.arms if scored.get(arm)}
    if not runs:
        return None
    first = next(iter(runs.values()))[0]
    longer = (first.lengths[0] - first.lengths[1])[first.decided]
    bins, x = bins_of(longer)
    if len(x) < 2:
        return None
    points = {arm: accuracies(of, bins) for arm, of in runs.items()}
    notes = {arm: f"\u03c1\u00a0=\u00a0{pull(scored[arm])}" for arm in runs}
    canvas, shown = panels(look, list(runs), 2.4, notes=notes)
    for (ax,), those in shown:
        ax.axhline(0.5, color=FAINT, lw=0.8, zorder=1)
        ax.axvline(0, color=FAINT, lw=0.8, zorder=1)
        for i, arm in enumerate(those):
            aside = (i - (len(those) - 1) / 2) * 0.008 * np.ptp(x)  # error bars do not cover each other
            ax.errorbar(x + aside, *points[arm], lw=1, elinewidth=0.8, **line(look, arm))
    label_axes(canvas, [axes[0] for axes, _ in shown], "better longer than worse (tokens)", "accuracy")
    seeds = seeds_of((arm, seed) for arm, of in runs.items() for seed in range(len(of)))
    size = f"{len(np.unique(first.prompt[first.decided])):,} prompts, {len(longer):,} decided preferences"
    return Drawing(canvas, "Accuracy and length", f"{CAPTION}{told_apart(look)} {seeds}, {size}.")


def bins_of(longer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bin of each difference (P,), the mean of each bin): of equal mass, negative and positive ones apart.

    Differences of 0, and those of bins that hold fewer than LEAST, are in none: -1.
    """
    bins, means = np.full(len(longer), -1), list[float]()
    for side in (longer < 0, longer > 0):
        if side.sum() < LEAST:
            continue
        number = min(max(1, round(BINS * side.mean())), int(side.sum()) // LEAST)
        edges = np.unique(np.quantile(longer[side], np.linspace(0, 1, number + 1)[1:-1]))
        inside = np.unique(np.searchsorted(edges, longer[side]), return_inverse=True)[1]
        bins[side] = len(means) + inside
        means += list(np.bincount(inside, weights=longer[side]) / np.bincount(inside))
    return bins, np.array(means)


def accuracies(runs: Sequence[Pairs], bins: np.ndarray) -> np.ndarray:
    """(2, B) mean accuracy of the decided preferences in each bin, and its standard error over prompts and seeds."""
    decided = runs[0].decided
    right, prompt = np.stack([run.right[decided] for run in runs]), runs[0].prompt[decided]
    each = [mean_and_error(right[:, bins == b], prompt[bins == b]) for b in range(bins.max() + 1)]
    return np.transpose(each)


def pull(runs: Sequence[Sequence[ScoredComparison]]) -> str:
    """Mean over runs of the correlation of gap and difference in length, with its sign; `none` where there is none."""
    pairs = [Pairs.of(one) for one in runs]
    found = [of_differences(p.gap, p.lengths[0] - p.lengths[1], p.prompt) for p in pairs]
    values = [one["value"] for one in found if one is not None]
    return f"{np.mean(values):+.2f}".replace("-", "\u2212") if values else "none"
