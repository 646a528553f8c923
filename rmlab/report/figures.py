"""Figures of a study, each as PDF for print, PNG and SVG. A figure whose data is not there is left out.

Up to six arms share a panel. More are told apart by a sequential colour where they are values of one number, and else
get a panel each, with the baseline in grey for comparison.
"""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from scipy.stats import spearmanr

from rmlab.metrics import calibration_error, confidence_and_outcome
from rmlab.report.items import Items
from rmlab.report.study import Run, Study, show

COLUMN, PAGE = 3.4, 7.0  # inches: a column, and the width of two
TOGETHER = 6  # arms that can be told apart in one panel
BASELINE = "#404040"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito, for the colour-blind
MARKERS = "osD^vP"
Place = Literal["outside lower center", "outside upper center"]
LEAST = 10  # preferences that a point of the reliability diagram needs
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
    "svg.hashsalt": "rmlab",  # the same bytes for the same data
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
}


@dataclass
class Figure:
    """Saved as NAME.pdf, NAME.png and NAME.svg."""

    name: str
    title: str
    caption: str


@dataclass
class Drawing:
    canvas: matplotlib.figure.Figure
    title: str
    caption: str


@dataclass(frozen=True)
class Look:
    """How the arms of a study are told apart. apart: by a panel each."""

    arms: list[str]
    baseline: str
    colours: dict[str, str]
    markers: dict[str, str]
    apart: bool


def draw(
    study: Study, items: Mapping[str, Items], rows: pd.DataFrame, folder: Path, grid: Study | None = None
) -> list[Figure]:
    """Every figure that the study has data for, saved in folder.

    rows: of `compare`. grid: the study before `tuned` chose from it, for the heat map. Figures of one evaluation set
    among several are called NAME_SET.
    """
    folder.mkdir(parents=True, exist_ok=True)
    look = look_of(study)
    figures = []
    with mpl.rc_context(STYLE):
        for name, of_set in items.items():
            several = len(items) > 1
            drawings = {
                "accuracy": accuracy(of_set, rows[rows["set"] == name], look, bayes_accuracy(of_set.runs, name)),
                "heatmap": heatmap(heat_cells(grid or study, name)),
                "learning_curves": learning_curves(study, name, of_set, look, only=not several),
                "strength": strength(of_set, look),
                "reliability": reliability(of_set, look),
                "rewards": rewards(of_set, look),
                "length": length(of_set, look),
            }
            for kind, drawing in drawings.items():
                if drawing:
                    title = f"{drawing.title} on {name}" if several else drawing.title
                    figures.append(Figure(f"{kind}_{name}" if several else kind, title, drawing.caption))
                    save(drawing.canvas, folder / figures[-1].name)
    return figures


def save(canvas: matplotlib.figure.Figure, path: Path) -> None:
    for kind, undated in (("pdf", {"CreationDate": None}), ("png", None), ("svg", {"Date": None})):
        canvas.savefig(path.with_name(f"{path.name}.{kind}"), metadata=undated)


# ---- arms and panels ----


def look_of(study: Study) -> Look:
    arms = [arm for arm, runs in study.arms.items() if any(run.state == "finished" for run in runs)]
    others = [arm for arm in arms if arm != study.baseline]
    colours, apart = dict.fromkeys(others, PALETTE[0]), False
    if len(arms) <= TOGETHER:
        colours = dict(zip(others, PALETTE, strict=False))
    elif is_one_number(study, arms):
        ramp = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(others)))
        colours = {arm: mpl.colors.to_hex(colour) for arm, colour in zip(others, ramp, strict=True)}
    else:
        apart = True
    markers = {arm: MARKERS[i % len(MARKERS)] for i, arm in enumerate(arms)}
    return Look(arms, study.baseline, {study.baseline: BASELINE, **colours}, markers, apart)


def is_one_number(study: Study, arms: Sequence[str]) -> bool:
    values = [study.values[arm] for arm in arms]
    return len({key for each in values for key in each}) == 1 and all(
        is_number(v) for each in values for v in each.values()
    )


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def new_canvas(width: float, height: float) -> matplotlib.figure.Figure:
    return matplotlib.figure.Figure(figsize=(width, height))


def panels(
    look: Look, arms: Sequence[str], labels: Mapping[str, str], height: float, parts: Sequence[float] = (1,)
) -> tuple[matplotlib.figure.Figure, list[tuple[list[Axes], list[str]]]]:
    """A figure and its panels with the arms that each shows: all in one, or each in its own with the baseline."""
    if look.apart:
        canvas, axes = small_multiples([labels[arm] for arm in arms], 4, 1.45 * sum(parts), parts)
        shown = [list(dict.fromkeys([look.baseline, arm])) for arm in arms]
        return canvas, list(zip(axes, ([arm for arm in those if arm in arms] for those in shown), strict=True))
    canvas, axes = small_multiples([""], 1, height, parts)
    legend(canvas, [line(look, arm) for arm in arms], [labels[arm] for arm in arms])
    return canvas, [(axes[0], list(arms))]


def small_multiples(
    titles: Sequence[str], columns: int, height: float, parts: Sequence[float] = (1,)
) -> tuple[matplotlib.figure.Figure, list[list[Axes]]]:
    """Panels that share their axes, `columns` in a row, each of parts with these heights one below the other."""
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    canvas = new_canvas(PAGE if columns > 1 else COLUMN, height * rows + 0.4)
    ratios = list(parts) * rows
    grid = canvas.subplots(len(ratios), columns, sharex=True, squeeze=False, height_ratios=ratios)
    axes = [list(grid[row * len(parts) : (row + 1) * len(parts), c]) for row in range(rows) for c in range(columns)]
    for place, panel in enumerate(axes):
        for ax, first in zip(panel, axes[0], strict=True):
            ax.set_visible(place < len(titles))
            if place:
                ax.sharey(first)
            ax.tick_params(labelleft=place % columns == 0, labelbottom=False)
        panel[-1].tick_params(labelbottom=place + columns >= len(titles))  # also where no panel is below
        panel[0].set_title(
            textwrap.fill(titles[place], 26 if columns > 3 else 36) if place < len(titles) else "", fontsize=7
        )
    return canvas, axes[: len(titles)]


def label_axes(canvas: matplotlib.figure.Figure, axes: Sequence[Axes], x: str, y: str) -> None:
    if len(axes) == 1:
        axes[0].set(xlabel=x, ylabel=y)
    else:
        canvas.supxlabel(x, fontsize=7.5)
        canvas.supylabel(y, fontsize=7.5)


def line(look: Look, arm: str) -> Line2D:
    return Line2D([], [], color=look.colours[arm], marker=look.markers[arm])


def legend(
    canvas: matplotlib.figure.Figure,
    handles: Sequence[Artist],
    labels: Sequence[str],
    place: Place = "outside lower center",
) -> None:
    """Above or below everything, in as many columns as the longest label leaves room for."""
    fitting = int(canvas.get_figwidth() * 16 / (max(map(len, labels)) + 6))
    canvas.legend(handles, labels, loc=place, ncols=max(1, min(fitting, len(labels))))


def told_apart(look: Look) -> str:
    """What a caption says of panels that show one arm each."""
    return f" One panel per arm; dark grey: the baseline, {look.baseline}." if look.apart else ""


def seeds_of(arms: Sequence[str], runs: Iterable[tuple[str, int]]) -> str:
    """`5 seeds per arm`, `4 to 5 seeds per arm`. runs: arm and seed of each."""
    numbers = [sum(of == arm for of, _ in set(runs)) for arm in arms]
    low, high = min(numbers), max(numbers)
    return (f"{low} to {high}" if low < high else str(low)) + f" seed{'s' * (high != 1)} per arm"


def counted(items: Items, arms: Sequence[str], decided: bool) -> str:
    """`5 seeds per arm, 1,000 prompts, 1,031 decided preferences.`"""
    used = items.probability != 0.5 if decided else np.ones(len(items.probability), bool)
    prompts, all_decided = len(np.unique(items.prompt[used])), bool((items.probability != 0.5).all())
    kind = "decided " * (decided and not all_decided)
    return f"{seeds_of(arms, items.arm.tolist())}, {prompts:,} prompts, {used.sum():,} {kind}preferences."


# ---- accuracy ----


def accuracy(items: Items, rows: pd.DataFrame, look: Look, bayes: float | None) -> Drawing | None:
    """Mean accuracy per arm with its interval and seeds; beside it the difference to the baseline."""
    part = rows[rows["metric"] == "accuracy"].set_index("arm").reindex(look.arms).dropna(subset="mean")
    if part.empty:
        return None
    arms = [str(arm) for arm in part.index]
    paired = bool(part["difference"].notna().any())
    canvas = new_canvas(PAGE if paired else COLUMN, 0.8 + 0.24 * len(arms))
    axes = canvas.subplots(1, 1 + paired, sharey=True, squeeze=False)[0]
    place = np.arange(len(arms))
    axes[0].set_yticks(place, [textwrap.fill(arm, 30) for arm in arms])
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    draw_means(axes[0], part, items, look, bayes)
    if paired:
        draw_differences(axes[1], part, look)
    caption = "Mean accuracy over seeds with its 95% interval over prompts and seeds; light dots: single seeds"
    caption += f"; dotted line: accuracy of the true rewards, {bayes:.3f}. " if bayes else ". "
    if paired:
        caption += "Right: paired difference to the baseline, filled where p < 0.05 after Holm's correction. "
    return Drawing(canvas, "Accuracy", caption + counted(items, arms, decided=True))


def draw_means(ax: Axes, part: pd.DataFrame, items: Items, look: Look, bayes: float | None) -> None:
    of_run = np.nanmean(items.values()[:, 0], axis=1)
    for place, (arm, row) in enumerate(part.iterrows()):
        mine = of_run[items.arm == arm]
        colour = look.colours[str(arm)]
        if len(mine) > 1:
            ax.plot(mine, np.full(len(mine), place + 0.2), "o", ms=2.5, color=colour, alpha=0.4, mew=0)
        interval(ax, row, ("mean", "low", "high"), place, colour)
        if arm == look.baseline:
            ax.axvline(row["mean"], color=BASELINE, lw=0.8, zorder=1)
    if bayes:
        ax.axvline(bayes, color="#606060", lw=1, ls=":")
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("accuracy")


def draw_differences(ax: Axes, part: pd.DataFrame, look: Look) -> None:
    for place, (arm, row) in enumerate(part.iterrows()):
        if not np.isnan(row["difference"]):
            found = isinstance(row["verdict"], str) and bool(row["verdict"])
            interval(ax, row, ("difference", "diff_low", "diff_high"), place, look.colours[str(arm)], filled=found)
    ax.axvline(0, color=BASELINE, lw=0.8, zorder=1)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"difference to {textwrap.shorten(look.baseline, 40, placeholder='...')}")


def interval(
    ax: Axes, row: pd.Series, columns: tuple[str, str, str], place: float, colour: str, filled: bool = True
) -> None:
    value, low, high = (float(row[column]) for column in columns)
    ax.plot([low, high], [place, place], color=colour, lw=1.4, solid_capstyle="butt")
    ax.plot([value], [place], "o", ms=4.5, color=colour, mfc=colour if filled else "white", mew=1.2)


def bayes_accuracy(runs: Sequence[Run], name: str) -> float | None:
    known = [run.metrics.get("eval", {}).get(name, {}).get("bayes_accuracy") for run in runs]
    return next((float(value) for value in known if value is not None), None)


# ---- learning curves ----


def learning_curves(study: Study, name: str, items: Items, look: Look, only: bool) -> Drawing | None:
    """Accuracy and nll during training, over epochs. Not the arms' own losses, which cannot be compared."""
    runs = {arm: [run for run in study.arms[arm] if run.history] for arm in look.arms}
    runs = {arm: mine for arm, mine in runs.items() if mine}
    keys = {
        "held-out accuracy": [f"eval_{name}_accuracy", *["eval_accuracy"] * only],
        "held-out nll": [f"eval_{name}_nll", *["eval_nll"] * only],
        "training accuracy": ["accuracy"],
    }
    curves = {title: {arm: curve(mine, found) for arm, mine in runs.items()} for title, found in keys.items()}
    curves = {title: of for title, of in curves.items() if any(len(each) > 1 for each in of.values())}
    if not curves:
        return None
    arms = list(runs)
    canvas = draw_curves(curves, arms, look)
    shown = f"{next(iter(curves)).capitalize()}" if look.apart else sentence(list(curves))
    caption = f"{shown} during training, mean over seeds; bands: one standard deviation of seeds either side."
    if "training accuracy" in curves and not (look.apart and len(curves) > 1):
        caption += " Training accuracy is that of the batches since the last point."
    seeds = seeds_of(arms, [arm for arm in arms for _ in runs[arm]])
    size = f"{items.prompt.max() + 1:,} held-out prompts, {len(items.prompt):,} preferences."
    return Drawing(canvas, "Learning curves", f"{caption}{told_apart(look)} {seeds}, {size}")


def curve(runs: Sequence[Run], keys: Sequence[str]) -> pd.DataFrame:
    """Columns x (epoch), mean, sd over seeds; one row per step at which the first of keys that is there was logged."""
    points = [
        (entry["step"], run.seed, entry["epoch"], next(entry[key] for key in keys if key in entry))
        for run in runs
        for entry in run.history
        if any(key in entry for key in keys)
    ]
    table = pd.DataFrame(points, columns=["step", "seed", "epoch", "value"]).drop_duplicates(
        ["step", "seed"], keep="last"
    )
    grouped = table.groupby("step")
    return pd.DataFrame(
        {"x": grouped["epoch"].mean(), "mean": grouped["value"].mean(), "sd": grouped["value"].std().fillna(0.0)}
    )


def draw_curves(
    curves: Mapping[str, Mapping[str, pd.DataFrame]], arms: Sequence[str], look: Look
) -> matplotlib.figure.Figure:
    """A panel per quantity; with one panel per arm the first quantity alone."""
    title = next(iter(curves))
    if look.apart or len(curves) == 1:
        canvas, shown = panels(look, arms, {arm: arm for arm in arms}, 2.2)
        for (ax,), those in shown:
            draw_bands(ax, {arm: curves[title][arm] for arm in those}, look)
        label_axes(canvas, [axes[0] for axes, _ in shown], "epoch", title)
        return canvas
    canvas = new_canvas(PAGE, 2.5)
    for ax, (title, of) in zip(canvas.subplots(1, len(curves)), curves.items(), strict=True):
        draw_bands(ax, of, look)
        ax.set(xlabel="epoch", title=title)
    legend(canvas, [line(look, arm) for arm in arms], arms)
    return canvas


def draw_bands(ax: Axes, curves: Mapping[str, pd.DataFrame], look: Look) -> None:
    for arm, points in curves.items():
        low, high = points["mean"] - points["sd"], points["mean"] + points["sd"]
        few = look.markers[arm] if len(points) <= 15 else ""
        ax.plot(points["x"], points["mean"], color=look.colours[arm], marker=few)
        ax.fill_between(points["x"], low, high, color=look.colours[arm], alpha=0.15, lw=0)


def sentence(names: Sequence[str]) -> str:
    text = ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]
    return text[0].upper() + text[1:]


# ---- by strength ----


def strength(items: Items, look: Look) -> Drawing | None:
    """Accuracy on preferences from weak to strong."""
    decided = items.probability != 0.5
    bins, names = strength_bins(np.abs(items.strength[decided]))
    if len(names) < 2:
        return None
    arms = [arm for arm in look.arms if arm in items.arm]
    correct, prompt = items.values()[:, 0][:, decided], items.prompt[decided]
    canvas, shown = panels(look, arms, {arm: arm for arm in arms}, 2.4)
    for (ax,), those in shown:
        for i, arm in enumerate(those):
            aside = 0.5 * ((i + 0.5) / len(those) - 0.5)  # so that error bars do not cover each other
            points = [
                mean_and_error(correct[items.arm == arm][:, bins == b], prompt[bins == b]) for b in range(len(names))
            ]
            mean, error = np.array(points).T
            x = np.arange(len(names)) + aside
            style = {"color": look.colours[arm], "marker": look.markers[arm], "lw": 0.8, "elinewidth": 1}
            ax.errorbar(x, mean, yerr=error, **style)  # type: ignore[arg-type]
        sizes = np.bincount(bins, minlength=len(names))
        ax.set_xticks(range(len(names)), [f"{name}\n({size:,})" for name, size in zip(names, sizes, strict=True)])
        ax.grid(visible=False, axis="x")
    label_axes(canvas, [axes[0] for axes, _ in shown], "strength of preference (number of preferences)", "accuracy")
    caption = (
        "Accuracy by strength of preference, mean over seeds. Bars: one standard error either side, of prompts (with "
    )
    caption += f"all their preferences) and of seeds together.{told_apart(look)} "
    return Drawing(canvas, "Accuracy by strength of preference", caption + counted(items, arms, decided=True))


def strength_bins(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(bin of each value, names of the bins): the values themselves if they are six at most, else up to four quantiles."""
    unique = np.unique(values)
    if len(unique) <= 6:
        return np.searchsorted(unique, values), [f"{value:.3g}" for value in unique]
    edges = np.unique(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return bins, [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)]


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


# ---- calibration ----


def reliability(items: Items, look: Look) -> Drawing | None:
    """What the model claims of the side it prefers, against how often that side was preferred."""
    arms = [arm for arm in look.arms if arm in items.arm]
    claims = {arm: claims_of(items, arm) for arm in arms}
    binned = {arm: reliability_bins(*claims[arm]) for arm in arms}
    if not any(len(points) for points, _ in binned.values()):
        return None
    errors = {arm: np.mean([calibration_error(*claim) for claim in zip(*claims[arm], strict=True)]) for arm in arms}
    labels = {arm: f"{arm} (ECE {errors[arm]:.3f})" for arm in arms}
    canvas, shown = panels(look, arms, labels, 2.8, (1, 0.35))
    for (ax, below), those in shown:
        for arm in those:
            points, shares = binned[arm]
            ax.plot(*points.T, color=look.colours[arm], marker=look.markers[arm])
            below.stairs(shares, np.linspace(0.5, 1, 11), color=look.colours[arm], lw=1)
        ax.plot([0.5, 1], [0.5, 1], color="#909090", lw=0.8, ls="--", zorder=1)
    label_axes(canvas, [axes[0] for axes, _ in shown], "", "share preferred")
    label_axes(canvas, [axes[1] for axes, _ in shown], "confidence", "share" if len(shown) == 1 else "share preferred")
    caption = "How often the side that the model prefers was preferred, by the probability it claims (ten bins, seeds pooled, "
    caption += (
        f"bins of {LEAST} preferences at least); dashed: perfect calibration. Below: share of preferences per bin. "
    )
    caption += f"ECE: expected calibration error, mean over seeds.{told_apart(look)} "
    return Drawing(canvas, "Calibration", caption + counted(items, arms, decided=False))


def claims_of(items: Items, arm: str) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and outcome (S, I) of an arm's runs."""
    gap = items.gap[items.arm == arm]
    return confidence_and_outcome(gap, np.broadcast_to(items.probability, gap.shape))


def reliability_bins(confidence: np.ndarray, outcome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((N, 2) mean confidence and outcome of the bins that hold enough, share of preferences in each of ten bins)."""
    bins = np.minimum(((confidence.ravel() - 0.5) * 20).astype(int), 9)
    number = np.bincount(bins, minlength=10)
    sums = [np.bincount(bins, weights=values.ravel(), minlength=10) for values in (confidence, outcome)]
    enough = number >= LEAST
    return np.stack(sums, axis=1)[enough] / number[enough, None], number / number.sum()


# ---- rewards ----


def rewards(items: Items, look: Look) -> Drawing | None:
    """Distributions of the rewards of chosen and rejected responses, a panel per arm."""
    decided, turned = items.probability != 0.5, items.probability < 0.5
    if not decided.any():
        return None
    arms = [arm for arm in look.arms if arm in items.arm]
    chosen = np.where(turned, items.worse, items.better)[:, decided]
    rejected = np.where(turned, items.better, items.worse)[:, decided]
    bins = np.linspace(*most_of(np.concatenate([chosen, rejected])), 41).tolist()
    canvas, axes = small_multiples(arms, 4 if look.apart else 3, 1.6)
    for (ax,), arm in zip(axes, arms, strict=True):
        for values, colour in ((chosen, PALETTE[0]), (rejected, PALETTE[1])):
            inside = np.clip(values[items.arm == arm], bins[0], bins[-1]).ravel()
            ax.hist(inside, bins, density=True, histtype="stepfilled", color=colour, alpha=0.25)
            ax.hist(inside, bins, density=True, histtype="step", color=colour, lw=1)
    label_axes(canvas, [ax for (ax,) in axes], "reward", "density")
    legend(
        canvas,
        [Line2D([], [], color=c, lw=4, alpha=0.6) for c in PALETTE[:2]],
        ["chosen", "rejected"],
        "outside upper center",
    )
    caption = "Rewards of chosen and rejected responses, seeds pooled; the outermost bins hold what lies beyond them. "
    return Drawing(canvas, "Rewards", caption + counted(items, arms, decided=True))


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
    labels = {arm: f"{arm} (\u03c1 = {rank_correlation(values[items.arm == arm], tokens)})" for arm in arms}
    points = {arm: by_bin(values[items.arm == arm], bins, x) for arm in arms}
    canvas, shown = panels(look, arms, labels, 2.4)
    for (ax,), those in shown:
        ax.axhline(0, color="#909090", lw=0.8, zorder=1)
        draw_bands(ax, {arm: points[arm] for arm in those}, look)
    label_axes(canvas, [axes[0] for axes, _ in shown], "response length (tokens)", "standardised reward")
    caption = (
        "Mean reward, standardised within each run, by deciles of response length; bands: one standard deviation of "
        "seeds either side. \u03c1: Spearman's correlation of reward and length, mean over seeds."
    )
    seeds, prompts = seeds_of(arms, items.arm.tolist()), len(np.unique(items.prompt))
    size = f"{seeds}, {prompts:,} prompts, {len(tokens):,} responses."
    return Drawing(canvas, "Reward and length", f"{caption}{told_apart(look)} {size}")


def deciles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bin of each value, mean of each bin); fewer bins where many values are the same."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, 11)))
    place = np.searchsorted(edges[1:-1], values, side="right")
    bins = np.unique(place, return_inverse=True)[1]
    return bins, np.bincount(bins, weights=values) / np.bincount(bins)


def by_bin(values: np.ndarray, bins: np.ndarray, x: np.ndarray) -> pd.DataFrame:
    """Mean and sd over runs of their mean in each bin, values (S, N) standardised within runs."""
    spread = values.std(axis=1, keepdims=True)
    standard = (values - values.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    of_run = np.stack([np.bincount(bins, weights=one) for one in standard]) / np.bincount(bins)
    sd = of_run.std(axis=0, ddof=1) if len(of_run) > 1 else np.zeros(len(x))
    return pd.DataFrame({"x": x, "mean": of_run.mean(axis=0), "sd": sd})


def responses(items: Items) -> tuple[np.ndarray, np.ndarray]:
    """(rewards (R, N), lengths (N,)) of the responses, each once however many preferences it is in.

    Two of one prompt with the same length and the same reward in every run are taken to be the same one.
    """
    sides = [
        np.vstack([items.prompt, items.length[i], rewards]) for i, rewards in enumerate((items.better, items.worse))
    ]
    unique = np.unique(np.hstack(sides), axis=1)
    return unique[2:], unique[1]


def rank_correlation(values: np.ndarray, tokens: np.ndarray) -> str:
    """Mean over runs, signed and with two decimals; a run whose rewards are all the same has none."""
    each = [spearmanr(one, tokens).statistic for one in values if np.ptp(one) > 0]
    return f"{np.mean(each):+.2f}".replace("-", "\u2212") if each else "none"


# ---- two varied values ----


def heat_cells(study: Study, name: str) -> pd.DataFrame | None:
    """Mean accuracy over seeds of every combination of two varied values; NaN where no run finished.

    None unless exactly two keys vary, in every arm, and make more than three cells. Down: words, or the key with fewer
    values. Across: the other.
    """
    keys = list(dict.fromkeys(key for values in study.values.values() for key in values))
    if len(keys) != 2 or any(len(values) != 2 for values in study.values.values()):
        return None
    levels = {key: sorted_levels([values[key] for values in study.values.values()]) for key in keys}
    down, across = sorted(keys, key=lambda key: (all(is_number(v) for v in levels[key]), len(levels[key])))
    if len(levels[down]) < 2 or len(levels[across]) < 2 or len(levels[down]) * len(levels[across]) < 4:
        return None
    cells = pd.DataFrame(np.nan, index=pd.Index(levels[down], name=down), columns=pd.Index(levels[across], name=across))
    for arm, values in study.values.items():
        found = [run.metrics.get("eval", {}).get(name, {}).get("accuracy") for run in study.arms[arm]]
        known = [value for value in found if value is not None]
        cells.loc[values[down], values[across]] = np.mean(known) if known else np.nan
    return None if cells.isna().all(axis=None) else cells


def sorted_levels(values: Sequence[Any]) -> list[Any]:
    """Numbers by size, then words in the order in which they come."""
    unique = list(dict.fromkeys(values))
    return sorted(v for v in unique if is_number(v)) + [v for v in unique if not is_number(v)]


def heatmap(cells: pd.DataFrame | None) -> Drawing | None:
    if cells is None:
        return None
    rows, columns = cells.shape
    canvas = new_canvas(COLUMN if columns <= 5 else PAGE, 0.7 + 0.34 * rows)
    ax = canvas.subplots()
    ax.set_facecolor("#e8e8e8")
    mesh = ax.pcolormesh(np.ma.masked_invalid(cells), cmap="cividis", edgecolors="white", linewidth=1)
    for (down, across), value in np.ndenumerate(cells.to_numpy(float)):
        missing = np.isnan(value)
        dark = not missing and mesh.norm(value) < 0.5
        text = "missing" if missing else f"{value:.3f}"
        ax.text(
            across + 0.5, down + 0.5, text, ha="center", va="center", fontsize=7, color="white" if dark else "black"
        )
        if missing:
            ax.add_patch(Rectangle((across, down), 1, 1, fill=False, hatch="////", ec="#c0c0c0", lw=0))
    ax.set_xticks(np.arange(columns) + 0.5, [show(v) for v in cells.columns])
    ax.set_yticks(np.arange(rows) + 0.5, [textwrap.fill(show(v), 24) for v in cells.index])
    ax.set(xlabel=cells.columns.name, ylabel=cells.index.name)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    canvas.colorbar(mesh, label="accuracy", shrink=0.9).outline.set_visible(False)
    return Drawing(canvas, f"Accuracy by {cells.index.name} and {cells.columns.name}", "Mean accuracy over seeds.")
