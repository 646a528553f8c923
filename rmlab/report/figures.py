"""Figures of a study, each as PDF for print, PNG and SVG. A figure whose data is not there is left out.

Up to six arms share a panel. More are told apart by a sequential colour where they are values of one number, and else
get a panel each, with the baseline in dark grey for comparison.
"""

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from scipy.stats import spearmanr

from rmlab.metrics import calibration_error, confidence_and_outcome
from rmlab.report.items import Items
from rmlab.report.study import Run, Study, show

COLUMN, PAGE = 3.4, 7.0  # inches: a column, and the width of two
TOGETHER = 6  # arms that can be told apart in one panel
BASELINE, FAINT = "#404040", "#909090"
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
UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {}, "svg": {"Date": None}}


@dataclass
class Figure:
    """Saved as NAME.pdf, NAME.png and NAME.svg."""

    name: str
    title: str
    caption: str


@dataclass
class Drawing:
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


def draw(
    study: Study, items: Mapping[str, Items], rows: pd.DataFrame, folder: Path, grid: Study | None = None
) -> list[Figure]:
    """Every figure that the study has data for, saved in folder.

    rows: of `compare`. grid: the study before `tuned` chose from it, for the heat map. Figures of one evaluation set
    among several are called NAME_SET.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures, several = [], len(items) > 1
    with mpl.rc_context(STYLE):
        for name, of_set in items.items():
            for kind, drawing in of_one_set(study, name, of_set, rows, grid or study, only=not several).items():
                if drawing:
                    title = f"{drawing.title} on {name}" if several else drawing.title
                    figures.append(Figure(f"{kind}_{name}" if several else kind, title, drawing.caption))
                    save(drawing.canvas, folder, figures[-1].name)
    return figures


def of_one_set(
    study: Study, name: str, items: Items, rows: pd.DataFrame, grid: Study, only: bool
) -> dict[str, Drawing | None]:
    look = look_of(study)
    return {
        "accuracy": accuracy(items, rows[rows["set"] == name], look, bayes_accuracy(items.runs, name)),
        "heatmap": heatmap(grid, name, items),
        "learning_curves": learning_curves(study, name, items, look, only),
        "strength": strength(items, look),
        "reliability": reliability(items, look),
        "length": length(items, look),
        "rewards": rewards(items, look),
    }


def save(canvas: Canvas, folder: Path, name: str) -> None:
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")  # laid out once for all formats: that takes a third of the time
    for kind, metadata in UNDATED.items():
        canvas.savefig(folder / f"{name}.{kind}", metadata=metadata)


# ---- arms and panels ----


def look_of(study: Study) -> Look:
    arms = [arm for arm, runs in study.arms.items() if finished(runs)]
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
    return [run for run in runs if run.state == "finished"]


def only_number(values: Sequence[Mapping[str, Any]]) -> str:
    """The one key that tells these arms apart if all its values are numbers; else empty."""
    keys = {key for each in values for key in each}
    numbers = all(is_number(value) for each in values for value in each.values())
    return keys.pop() if len(keys) == 1 and numbers else ""


def is_number(value: Any) -> bool:
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
        canvas, axes = small_multiples(names, 4, 1.45 * sum(parts), parts)
        shown = [list(dict.fromkeys([*{look.baseline} & {*arms}, arm])) for arm in arms]
        return canvas, list(zip(axes, shown, strict=True))
    canvas, axes = small_multiples([""], 1, height, parts)
    legend(canvas, [Line2D([], [], **line(look, arm)) for arm in arms], names, look.key)
    return canvas, [(axes[0], list(arms))]


def small_multiples(
    titles: Sequence[str], columns: int, height: float, parts: Sequence[float] = (1,)
) -> tuple[Canvas, list[list[Axes]]]:
    """Panels that share their axes, at most `columns` in a row, each of parts one below the other, heights as given."""
    columns = -(-len(titles) // -(-len(titles) // columns))  # rows of equal length where that is possible
    titles = [wrapped(title, 28 if columns > 3 else 36) for title in titles]
    height += 0.11 * max(title.count("\n") for title in titles)
    ratios = list(parts) * -(-len(titles) // columns)
    canvas = new_canvas(columns > 1, height * len(ratios) / len(parts) + 0.4)
    grid = canvas.subplots(len(ratios), columns, sharex=True, squeeze=False, height_ratios=ratios)
    axes = [list(row) for rows in np.split(grid, len(ratios) // len(parts)) for row in rows.T]
    for place, panel in enumerate(axes):
        for ax, first in zip(panel, axes[0], strict=True):
            ax.set_visible(place < len(titles))
            if place:
                ax.sharey(first)
            ax.tick_params(labelleft=place % columns == 0, labelbottom=False)
        panel[-1].tick_params(labelbottom=place + columns >= len(titles))  # also where no panel is below
    for title, panel in zip(titles, axes, strict=False):
        panel[0].set_title(title, fontsize=7)
    return canvas, axes[: len(titles)]


def new_canvas(wide: bool, height: float) -> Canvas:
    return Canvas(figsize=(PAGE if wide else COLUMN, height))


def is_leftmost(ax: Axes) -> bool:
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


def wrapped(text: str, width: int) -> str:
    """Lines of at most this width, broken at spaces, and in a long word after its `=` if there is one."""
    words = [word if len(word) <= width else word.replace("=", "= ") for word in text.split(" ")]
    return textwrap.fill(" ".join(words), width)


def line(look: Look, arm: str) -> dict[str, Any]:
    return {"color": look.colours[arm], "marker": look.markers[arm]}


def legend(
    canvas: Canvas, handles: Sequence[Artist], names: Sequence[str], title: str = "", above: bool = False
) -> None:
    """Above or below all panels, in as many columns as the longest name leaves room for. The figure grows by it."""
    fitting = max(1, int(canvas.get_figwidth() * 16 / (max(map(len, names)) + 9)))
    rows = -(-len(names) // fitting)
    canvas.set_figheight(canvas.get_figheight() + 0.16 * (rows + bool(title)))
    place: Place = "outside upper center" if above else "outside lower center"
    canvas.legend(handles, names, loc=place, ncols=-(-len(names) // rows), title=title or None, title_fontsize=7)


# ---- words of captions ----


def told_apart(look: Look) -> str:
    return f" One panel per arm; dark grey: the baseline, {look.baseline}." if look.apart else ""


def seeds_of(runs: Iterable[tuple[str, int]], per: str = "arm") -> str:
    """`5 seeds per arm`, `4 to 5 seeds per arm`. runs: arm and seed of each."""
    numbers = Counter(arm for arm, _ in set(runs)).values()
    low, high = min(numbers), max(numbers)
    return (f"{low} to {high}" if low < high else str(low)) + f" seed{'s' * (high != 1)} per {per}"


def counted(items: Items, decided: bool = False) -> str:
    """`5 seeds per arm, 1,000 prompts, 1,031 decided preferences.`"""
    return f"{seeds_of(zip(items.arm.tolist(), items.seed.tolist(), strict=True))}, {size_of(items, decided)}"


def size_of(items: Items, decided: bool) -> str:
    used = (items.probability != 0.5) | (not decided)
    kind = "" if used.all() else "decided "
    return f"{len(np.unique(items.prompt[used])):,} prompts, {used.sum():,} {kind}preferences."


def several_seeds(items: Items) -> bool:
    return len(set(items.seed)) > 1


def listed(names: Sequence[str]) -> str:
    text = ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]
    return text[0].upper() + text[1:]


# ---- accuracy ----


def accuracy(items: Items, rows: pd.DataFrame, look: Look, bayes: float | None) -> Drawing | None:
    """Mean accuracy per arm with its interval and seeds; beside it the difference to the baseline."""
    part = rows[rows["metric"] == "accuracy"].set_index("arm").reindex(look.arms).dropna(subset="mean")
    if part.empty:
        return None
    paired = bool(part["difference"].notna().any())
    names = [wrapped(str(arm), 32) for arm in part.index]
    lines = max(name.count("\n") for name in names) + 1
    canvas = new_canvas(paired, 0.6 + (0.16 + 0.1 * lines) * len(part))
    axes = canvas.subplots(1, 1 + paired, sharey=True, squeeze=False)[0]
    axes[0].set_yticks(range(len(part)), names)
    axes[0].set_ylim(len(part) - 0.5, -0.5)
    draw_means(axes[0], part, items, look, bayes)
    if paired:
        draw_differences(axes[1], part, look)
    caption = "Accuracy with its 95% interval over prompts"
    if several_seeds(items):
        caption = "Mean accuracy over seeds with its 95% interval over prompts and seeds; light dots: single seeds"
    caption += f"; dotted line: accuracy of the true rewards, {bayes:.3f}. " if bayes else ". "
    if paired:
        caption += "Right: paired difference to the baseline, filled where p < 0.05 after Holm's correction. "
    return Drawing(canvas, "Accuracy", caption + counted(items, decided=True))


def draw_means(ax: Axes, part: pd.DataFrame, items: Items, look: Look, bayes: float | None) -> None:
    of_run = np.nanmean(items.values()[:, 0], axis=1)
    for place, (arm, row) in enumerate(part.iterrows()):
        mine = of_run[items.arm == arm]
        colour = look.colours[str(arm)]
        if len(mine) > 1:
            ax.plot(mine, np.full(len(mine), place + 0.22), "o", ms=2.5, color=colour, alpha=0.45, mew=0)
        interval(ax, row[["mean", "low", "high"]], place, colour)
        if arm == look.baseline:
            ax.axvline(row["mean"], color=BASELINE, lw=0.8, zorder=1)
    if bayes:
        ax.axvline(bayes, color="#606060", lw=1, ls=":")
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("accuracy")


def draw_differences(ax: Axes, part: pd.DataFrame, look: Look) -> None:
    for place, (arm, row) in enumerate(part.iterrows()):
        found = isinstance(row["verdict"], str) and bool(row["verdict"])
        interval(ax, row[["difference", "diff_low", "diff_high"]], place, look.colours[str(arm)], filled=found)
    ax.axvline(0, color=BASELINE, lw=0.8, zorder=1)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(wrapped(f"difference to {look.baseline}", 50))


def interval(ax: Axes, numbers: "pd.Series[float]", place: float, colour: str, filled: bool = True) -> None:
    """numbers: value, low, high; nothing is drawn where they are NaN."""
    value, low, high = numbers.astype(float)
    ax.plot([low, high], [place, place], color=colour, lw=1.4, solid_capstyle="butt")
    ax.plot([value], [place], "o", ms=4.5, color=colour, mfc=colour if filled else "white", mew=1.2)


def bayes_accuracy(runs: Sequence[Run], name: str) -> float | None:
    known = [run.metrics["eval"].get(name, {}).get("bayes_accuracy") for run in runs]
    return next((float(value) for value in known if value is not None), None)


# ---- learning curves ----


def learning_curves(study: Study, name: str, items: Items, look: Look, only: bool) -> Drawing | None:
    """Accuracy and nll during training, over epochs. Not the arms' own losses, which cannot be compared.

    only: this is the one evaluation set, which Trainer then logs without its name.
    """
    keys = {
        "held-out accuracy": [f"eval_{name}_accuracy", *["eval_accuracy"] * only],
        "held-out Bradley-Terry NLL": [f"eval_{name}_nll", *["eval_nll"] * only],
        "training accuracy": ["accuracy"],
    }
    runs = {arm: study.arms[arm] for arm in look.arms}
    curves = {title: {arm: curve(mine, names) for arm, mine in runs.items()} for title, names in keys.items()}
    curves = {title: {arm: c for arm, c in of.items() if len(c) > 1} for title, of in curves.items()}
    curves = {title: of for title, of in curves.items() if of}
    if not curves:
        return None
    if look.apart:  # a panel per arm has room for one quantity
        curves = dict(list(curves.items())[:1])
    bands = ", mean over seeds; bands: \u00b11 standard deviation over seeds" * several_seeds(items)
    caption = f"{listed(list(curves))} during training{bands}."
    if "training accuracy" in curves:
        caption += " Training accuracy is of the batches since the previous point."
    return Drawing(draw_curves(curves, look), "Learning curves", f"{caption}{told_apart(look)} {counted(items)}")


def curve(runs: Sequence[Run], keys: Sequence[str]) -> pd.DataFrame:
    """Columns x (epoch), mean, sd over seeds; a row per step at which one of keys was logged."""
    points = [
        (entry["step"], run.seed, entry["epoch"], entry[key])
        for run in runs
        for entry in run.history
        for key in keys
        if key in entry
    ]
    table = pd.DataFrame(points, columns=["step", "seed", "epoch", "value"]).drop_duplicates(
        ["step", "seed"], keep="last"
    )
    by_step = table.groupby("step")
    mean, sd = by_step["value"].mean(), by_step["value"].std().fillna(0.0)
    return pd.DataFrame({"x": by_step["epoch"].mean(), "mean": mean, "sd": sd})


def draw_curves(curves: Mapping[str, Mapping[str, pd.DataFrame]], look: Look) -> Canvas:
    """A panel per quantity, or per arm if there is one quantity and the arms are told apart so."""
    arms = [arm for arm in look.arms if any(arm in of for of in curves.values())]
    if len(curves) == 1:
        title, of = next(iter(curves.items()))
        canvas, shown = panels(look, arms, 2.1)
        for (ax,), those in shown:
            draw_bands(ax, {arm: of[arm] for arm in those}, look)
        label_axes(canvas, [axes[0] for axes, _ in shown], "epoch", title)
        return canvas
    canvas = new_canvas(True, 2.3)
    for ax, (title, of) in zip(canvas.subplots(1, len(curves)), curves.items(), strict=True):
        draw_bands(ax, of, look)
        ax.set(xlabel="epoch", title=title)
    legend(canvas, [Line2D([], [], **line(look, arm)) for arm in arms], [look.names[arm] for arm in arms], look.key)
    return canvas


def draw_bands(ax: Axes, curves: Mapping[str, pd.DataFrame], look: Look) -> None:
    """Lines with a band of one sd either side."""
    for arm, points in curves.items():
        colour, marker = look.colours[arm], look.markers[arm] if len(points) <= 12 else ""
        low, high = points["mean"] - points["sd"], points["mean"] + points["sd"]
        ax.plot(points["x"], points["mean"], color=colour, marker=marker)
        ax.fill_between(points["x"], low, high, color=colour, alpha=0.15 if len(curves) < 4 else 0.08, lw=0)


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
    """(bin of each value, names of the bins): the values themselves, or quartiles where there are more than six."""
    unique = np.unique(values)
    if len(unique) <= 6:
        return np.searchsorted(unique, values), [f"{value:.3g}" for value in unique]
    edges = np.unique(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    bins = np.searchsorted(edges[1:-1], values, side="right")
    return bins, [f"{low:.3g}\u2013{high:.3g}" for low, high in itertools.pairwise(edges)]


def tick_labels(names: Sequence[str], sizes: np.ndarray, narrow: bool) -> list[str]:
    """Names of bins over their sizes; in a narrow panel a range takes two lines."""
    names = [name.replace("\u2013", "\u2013\n") if narrow else name for name in names]
    return [f"{name}\n({size:,})" for name, size in zip(names, sizes, strict=True)]


def by_strength(correct: np.ndarray, prompt: np.ndarray, bins: np.ndarray) -> Iterable[tuple[float, float]]:
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


# ---- calibration ----


def reliability(items: Items, look: Look) -> Drawing | None:
    """What the model claims of the side it prefers, against how often that side was preferred."""
    arms = [arm for arm in look.arms if arm in items.arm]
    claims = {arm: claims_of(items, arm) for arm in arms}
    binned = {arm: reliability_bins(*claims[arm]) for arm in arms}
    if not any(len(points) for points, _ in binned.values()):
        return None
    errors = {arm: f"ECE\u00a0{np.mean([*map(calibration_error, *claims[arm])]):.3f}" for arm in arms}
    canvas, shown = panels(look, arms, 2.8, (1, 0.35), errors)
    for (ax, below), those in shown:
        for arm in those:
            points, shares = binned[arm]
            ax.plot(*points.T, **line(look, arm))
            below.stairs(shares, np.linspace(0.5, 1, 11), color=look.colours[arm], lw=1)
        ax.plot([0.5, 1], [0.5, 1], color=FAINT, lw=0.8, ls="--", zorder=1)
        if is_leftmost(ax):
            ax.set_ylabel("share preferred")
            below.set_ylabel("share")
    shown[0][0][1].set_ylim(0, 1.08 * max(shares.max() for _, shares in binned.values()))
    label_axes(canvas, [axes[1] for axes, _ in shown], "confidence")
    caption = (
        "How often the side that a model prefers was preferred, against the probability that it claims; ten bins, "
        f"seeds pooled, bins of fewer than {LEAST} left out; dashed: perfect calibration. Below: share of preferences "
        f"in each bin. ECE: expected calibration error, mean over seeds.{told_apart(look)} "
    )
    return Drawing(canvas, "Calibration", caption + counted(items))


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
    canvas, axes = small_multiples(arms, 4 if look.apart else 3, 1.45)
    for (ax,), arm in zip(axes, arms, strict=True):
        for values, colour in ((chosen, PALETTE[0]), (rejected, PALETTE[1])):
            inside = np.clip(values[items.arm == arm], bins[0], bins[-1]).ravel()
            ax.hist(inside, bins, density=True, histtype="stepfilled", color=colour, alpha=0.25)
            ax.hist(inside, bins, density=True, histtype="step", color=colour, lw=1)
    label_axes(canvas, [ax for (ax,) in axes], "reward", "density")
    handles = [Rectangle((0, 0), 1, 1, facecolor=to_hex(c) + "40", edgecolor=c) for c in PALETTE[:2]]
    legend(canvas, handles, ["chosen", "rejected"], above=True)
    caption = "Rewards of chosen and rejected responses, seeds pooled; the outermost bins hold what lies beyond them. "
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
    label_axes(canvas, [axes[0] for axes, _ in shown], "response length (tokens)", "standardised reward")
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


# ---- two varied values ----


def heat_cells(study: Study, name: str) -> pd.DataFrame | None:
    """Mean accuracy over seeds of every combination of two varied values; NaN where no run finished.

    None unless exactly two keys vary, in every arm, with two values each at least. Down: words, or the key with fewer
    values. Across: the other.
    """
    varied = {arm: {key: level(value) for key, value in values.items()} for arm, values in study.values.items()}
    keys = list(dict.fromkeys(key for values in varied.values() for key in values))
    if len(keys) != 2 or any(len(values) != 2 for values in varied.values()):
        return None
    levels = {key: in_order([values[key] for values in varied.values()]) for key in keys}
    down, across = sorted(keys, key=lambda key: (all(is_number(v) for v in levels[key]), len(levels[key])))
    if len(levels[down]) < 2 or len(levels[across]) < 2:
        return None
    index, columns = (pd.Index(levels[key], dtype=object, name=key) for key in (down, across))
    cells = pd.DataFrame(np.nan, index=index, columns=columns)
    for arm, values in varied.items():
        found = [run.metrics["eval"].get(name, {}).get("accuracy", np.nan) for run in finished(study.arms[arm])]
        cells.loc[values[down], values[across]] = pd.Series(found, dtype=float).mean()
    return None if cells.isna().to_numpy().all() else cells


def level(value: Any) -> float | str:
    return value if is_number(value) else show(value)


def in_order(values: Sequence[float | str]) -> list[float | str]:
    """Numbers by size, then words in the order in which they come."""
    unique = list(dict.fromkeys(values))
    return [*sorted(v for v in unique if not isinstance(v, str)), *(v for v in unique if isinstance(v, str))]


def heatmap(study: Study, name: str, items: Items) -> Drawing | None:
    """A cell for every combination of two varied values."""
    cells = heat_cells(study, name)
    if cells is None:
        return None
    values, down, across = cells.to_numpy(float), [*map(show, cells.index)], [*map(show, cells.columns)]
    canvas = new_canvas(len(across) > 5, 0.7 + 0.34 * len(down))
    ax = canvas.subplots()
    mesh = ax.pcolormesh(np.ma.masked_invalid(values), cmap="cividis", edgecolors="white", linewidth=1)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (y, x), value in np.ndenumerate(values):
        write_cell(ax, x, y, value, dark=value < middle)
    ax.set_xticks(np.arange(len(across)) + 0.5, [wrapped(text, 14) for text in across])
    ax.set_yticks(np.arange(len(down)) + 0.5, [wrapped(text, 24) for text in down])
    ax.set(xlabel=cells.columns.name, ylabel=cells.index.name)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    canvas.colorbar(mesh, label="accuracy").outline.set_visible(False)
    caption = f"Mean accuracy over seeds{'; missing: no finished run' * bool(np.isnan(values).any())}. "
    caption += seeds_of(((run.arm, run.seed) for run in study.finished), "cell")
    title = f"Accuracy by {cells.index.name} and {cells.columns.name}"
    return Drawing(canvas, title, f"{caption}, {size_of(items, decided=True)}")


def write_cell(ax: Axes, x: int, y: int, value: float, dark: bool) -> None:
    missing = np.isnan(value)
    if missing:
        ax.add_patch(Rectangle((x, y), 1, 1, facecolor="#f0f0f0", hatch="////", edgecolor="#c8c8c8", lw=0))
    colour = "white" if dark and not missing else "black"
    text = "missing" if missing else f"{value:.3f}"
    ax.text(x + 0.5, y + 0.5, text, color=colour, fontsize=7, ha="center", va="center")
