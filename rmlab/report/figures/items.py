"""Figures of the items: by strength, rewards, length."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from scipy.stats import spearmanr

from rmlab.report.figures.look import (
    FAINT,
    PALETTE,
    Drawing,
    Look,
    counted,
    draw_bands,
    label_axes,
    legend,
    line,
    panels,
    small_multiples,
    told_apart,
)
from rmlab.report.items import Items

# ---- by strength ----


def strength(items: Items, look: Look) -> Drawing | None:
    """Accuracy on preferences from weak to strong."""
    decided = items.probability != 0.5
    bins, names = strength_bins(np.abs(items.strength[decided]))
    if len(names) < 2:
        return None
    correct, prompt = items.values()[:, 0][:, decided], items.prompt[decided]
    arms = [arm for arm in look.arms if arm in items.arm]
    points = {arm: np.transpose([*by_strength(correct[items.arm == arm], prompt, bins)]) for arm in arms}
    canvas, shown = panels(look, arms, 2.2)
    for (ax,), those in shown:
        for i, arm in enumerate(those):
            aside = (i - (len(those) - 1) / 2) * min(0.1, 0.5 / len(those))  # error bars do not cover each other
            mean, error = points[arm]
            ax.errorbar(np.arange(len(names)) + aside, mean, error, lw=0.8, elinewidth=1, **line(look, arm))
        ax.set_xticks(range(len(names)), tick_labels(names, np.bincount(bins), narrow=look.apart))
        ax.grid(visible=False, axis="x")
    label_axes(canvas, [axes[0] for axes, _ in shown], "strength of preference (number of preferences)", "accuracy")
    caption = (
        "Accuracy by strength of preference, mean over seeds. Bars: \u00b11 standard error over prompts (with all "
        f"their preferences) and seeds together.{told_apart(look)} "
    )
    return Drawing(canvas, "Accuracy by strength of preference", caption + counted(items, decided=True))


def strength_bins(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(bin of each value, names of the bins): the values themselves, or quartiles where there are more than six.

    A quartile is called by the lowest and the highest value in it, so that no value is in two.
    """
    unique = np.unique(values)
    if len(unique) <= 6:
        return np.searchsorted(unique, values), [f"{value:.3g}" for value in unique]
    edges = np.unique(np.quantile(values, [0.25, 0.5, 0.75]))
    bins = np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1]
    ends = [(values[bins == b].min(), values[bins == b].max()) for b in range(bins.max() + 1)]
    return bins, [f"{low:.3g}" if low == high else f"{low:.3g}\u2013{high:.3g}" for low, high in ends]


def tick_labels(names: Sequence[str], sizes: np.ndarray, narrow: bool) -> list[str]:
    """Names of bins over their sizes; in a narrow panel a range takes two lines."""
    names = [name.replace("\u2013", "\u2013\n") if narrow else name for name in names]
    return [f"{name}\n({size:,})" for name, size in zip(names, sizes, strict=True)]


def by_strength(correct: np.ndarray, prompt: np.ndarray, bins: np.ndarray) -> Iterable[tuple[float, float]]:
    """(mean, standard error) of each bin in turn. correct (S, I): S seeds, I items; prompt, bins (I,)."""
    for b in range(bins.max() + 1):
        yield mean_and_error(correct[:, bins == b], prompt[bins == b])


def mean_and_error(correct: np.ndarray, prompt: np.ndarray) -> tuple[float, float]:
    """Mean of correct (S, I) over seeds and items, and its standard error.

    The error of the mean over prompts, which are drawn with all their items, and that of the mean over seeds, as the
    root of the sum of their squares.
    """
    each = correct.mean(axis=0)
    mean = float(each.mean())
    of_prompts = np.square(np.bincount(prompt, weights=each - mean)).sum() / len(each) ** 2
    of_seeds = correct.mean(axis=1).var(ddof=1) / len(correct) if len(correct) > 1 else 0.0
    return mean, float(np.sqrt(of_prompts + of_seeds))


# ---- rewards ----


def rewards(items: Items, look: Look) -> Drawing | None:
    """Distributions of the rewards of chosen and rejected responses, a panel per arm."""
    decided, turned = items.probability != 0.5, items.probability < 0.5
    if not decided.any():
        return None
    arms = [arm for arm in look.arms if arm in items.arm]
    chosen = np.where(turned, items.worse, items.better)[:, decided]
    rejected = np.where(turned, items.better, items.worse)[:, decided]
    ranges = {arm: most_of(np.stack([chosen, rejected])[:, items.arm == arm]) for arm in arms}
    together = most_of(np.concatenate([chosen, rejected]))
    shared = len(arms) > 1 and min(high - low for low, high in ranges.values()) > (together[1] - together[0]) / 4
    canvas, axes = small_multiples(arms, 3, 1.45, shared=shared)
    for (ax,), arm in zip(axes, arms, strict=True):
        bins = np.linspace(*(together if shared else ranges[arm]), 41).tolist()
        for values, colour in ((chosen, PALETTE[0]), (rejected, PALETTE[1])):
            inside = np.clip(values[items.arm == arm], bins[0], bins[-1]).ravel()
            ax.hist(inside, bins, density=True, histtype="stepfilled", color=colour, alpha=0.25)
            ax.hist(inside, bins, density=True, histtype="step", color=colour, lw=1)
    label_axes(canvas, [ax for (ax,) in axes], "reward", "density")
    handles = [Rectangle((0, 0), 1, 1, facecolor=to_hex(c) + "40", edgecolor=c) for c in PALETTE[:2]]
    legend(canvas, handles, ["chosen", "rejected"], above=True)
    caption = "Rewards of chosen and rejected responses, seeds pooled; the outermost bins hold what lies beyond them"
    caption += ". " if shared or len(arms) == 1 else "; every arm has a scale of its own. "
    return Drawing(canvas, "Rewards", caption + counted(items, decided=True))


def most_of(values: np.ndarray) -> tuple[float, float]:
    """A range that leaves out only what lies so far away that it would flatten all the rest."""
    low, high = (float(v) for v in np.quantile(values, [0.01, 0.99]))
    low, high = max(float(values.min()), 2 * low - high), min(float(values.max()), 2 * high - low)
    return low, high if high > low else low + 1


# ---- length ----


def length(items: Items, look: Look) -> Drawing | None:
    """Mean standardised reward in deciles of response length."""
    values, tokens = responses(items)
    bins, x = deciles(tokens)
    if len(x) < 2:
        return None
    arms = [arm for arm in look.arms if arm in items.arm]
    points = {arm: by_bin(values[items.arm == arm], bins, x) for arm in arms}
    correlations = {arm: f"\u03c1\u00a0=\u00a0{rank_correlation(values[items.arm == arm], tokens)}" for arm in arms}
    canvas, shown = panels(look, arms, 2.2, notes=correlations)
    for (ax,), those in shown:
        ax.axhline(0, color=FAINT, lw=0.8, zorder=1)
        draw_bands(ax, {arm: points[arm] for arm in those}, look)
    label_axes(canvas, [axes[0] for axes, _ in shown], f"response length ({items.unit})", "standardised reward")
    caption = (
        "Mean reward, standardised within each run, by deciles of response length; bands: \u00b11 standard "
        "deviation over seeds. \u03c1: Spearman's correlation of reward and length, mean over seeds."
        f"{told_apart(look)} "
    )
    size = counted(items).replace(" preferences.", f" preferences, {len(tokens):,} responses.")
    return Drawing(canvas, "Reward and length", caption + size)


def responses(items: Items) -> tuple[np.ndarray, np.ndarray]:
    """(rewards (R, N), lengths (N,)) of the responses, each once however many preferences it is in.

    Two of one prompt with the same length and the same reward in every run are taken to be the same one.
    """
    sides = zip(items.length, (items.better, items.worse), strict=True)
    unique = np.unique(np.hstack([np.vstack([items.prompt, tokens, of]) for tokens, of in sides]), axis=1)
    return unique[2:], unique[1]


def deciles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bin of each value, mean of each bin); fewer bins where many values are the same."""
    edges = np.unique(np.quantile(values, np.linspace(0.1, 0.9, 9)))
    bins = np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)[1]
    return bins, np.bincount(bins, weights=values) / np.bincount(bins)


def by_bin(values: np.ndarray, bins: np.ndarray, x: np.ndarray) -> pd.DataFrame:
    """Mean and sd over runs of their means in each bin; values (S, N) are standardised within each run."""
    spread = values.std(axis=1, keepdims=True)
    standard = (values - values.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    of_run = np.stack([np.bincount(bins, weights=one) for one in standard]) / np.bincount(bins)
    sd = of_run.std(axis=0, ddof=1) if len(of_run) > 1 else np.zeros(len(x))
    return pd.DataFrame({"x": x, "mean": of_run.mean(axis=0), "sd": sd})


def rank_correlation(values: np.ndarray, tokens: np.ndarray) -> str:
    """Mean over runs; a run whose rewards are all the same has none."""
    each = [spearmanr(one, tokens).statistic for one in values if np.ptp(one) > 0]
    return f"{np.mean(each):+.2f}".replace("-", "\u2212") if each else "none"
