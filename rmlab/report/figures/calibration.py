"""What models claim against what is so, before and after one number divides their rewards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rmlab.metrics.calibration import binned_error, equal_mass, temperature
from rmlab.metrics.evaluate import confidence_and_outcome
from rmlab.metrics.pairs import Pairs
from rmlab.metrics.scored import ScoredComparison
from rmlab.report.figures.look import (
    FAINT,
    Drawing,
    Look,
    is_leftmost,
    label_axes,
    legend,
    line,
    seeds_of,
    small_multiples,
)

BINS = 10  # of equal mass
LEAST = 50  # preferences that are tried, for a panel
MARKS: tuple[dict[str, Any], ...] = ({"ls": "-"}, {"ls": ":", "lw": 1, "mfc": "white"})  # before and after
CAPTION = (
    "How often the side that a model prefers was preferred, against the probability that it claims, before and after "
    "its rewards are divided by a temperature. The temperature is fitted on half of the prompts, all else is of the "
    f"other half; {BINS} bins of equal mass, seeds pooled; bars: \u00b11 standard error over prompts; dashed: perfect "
    "calibration. Below: number of preferences by confidence, per seed. T: temperature; ECE: over bins of equal mass, "
    "before and after; means over seeds."
)

# Arm -> the comparisons that each of its runs has scored.
Scored: TypeAlias = Mapping[str, Sequence[Sequence[ScoredComparison]]]


@dataclass(frozen=True)
class Claims:
    """Of an arm's runs, on the half of the prompts that no temperature was fitted on: (S, P) each, and (P,) prompts."""

    before: tuple[np.ndarray, np.ndarray]  # confidence and outcome
    after: tuple[np.ndarray, np.ndarray]
    prompt: np.ndarray
    temperatures: list[float]

    @classmethod
    def of(cls, runs: Sequence[Sequence[ScoredComparison]]) -> "Claims | None":
        """None where fewer than LEAST preferences are tried, or a run has no temperature."""
        pairs = [Pairs.of(comparisons) for comparisons in runs]
        tried = pairs[0].prompt % 2 == 1
        fitted = [temperature(p.gap[~tried], p.probability[~tried]) for p in pairs]
        known = [value for value in fitted if value is not None]
        if tried.sum() < LEAST or len(known) < len(pairs):
            return None
        gap, probability = (np.stack([getattr(p, name)[tried] for p in pairs]) for name in ("gap", "probability"))
        return cls(
            before=confidence_and_outcome(gap, probability),
            after=confidence_and_outcome(gap / np.reshape(known, (-1, 1)), probability),
            prompt=pairs[0].prompt[tried],
            temperatures=known,
        )


def calibration(scored: Scored, look: Look) -> Drawing | None:
    """A reliability diagram per arm, on prompts that its temperature was not fitted on, before and after it."""
    found = {arm: Claims.of(scored[arm]) for arm in look.arms if scored.get(arm)}
    claims = {arm: of for arm, of in found.items() if of is not None}
    if not claims:
        return None
    canvas, panels = small_multiples([look.names[arm] for arm in claims], 3, 2.3, (1, 0.3))
    for (ax, below), (arm, of) in zip(panels, claims.items(), strict=True):
        ax.plot([0.5, 1], [0.5, 1], color=FAINT, lw=0.8, ls="--", zorder=1)
        for (confidence, outcome), mark in zip((of.before, of.after), MARKS, strict=True):
            draw_points(ax, confidence, outcome, of.prompt, {**line(look, arm), **mark})
            draw_counts(below, confidence, look.colours[arm], mark["ls"])
        ax.text(0.03, 0.97, numbers(of), transform=ax.transAxes, fontsize=6.5, va="top")
        if is_leftmost(ax):
            ax.set_ylabel("share preferred")
            below.set_ylabel("number")
    label_axes(canvas, [below for _, below in panels], "confidence")
    handles = [Line2D([], [], color="#404040", marker="o", **mark) for mark in MARKS]
    legend(canvas, handles, ["as scored", "divided by the temperature"], above=True)
    seeds = seeds_of((arm, seed) for arm in claims for seed in range(len(scored[arm])))
    prompt = next(iter(claims.values())).prompt
    size = f"{len(np.unique(prompt)):,} prompts, {len(prompt):,} preferences"
    return Drawing(canvas, "Calibration and temperature", f"{CAPTION} {seeds}, {size}.")


def numbers(claims: Claims) -> str:
    """`T 1.84` over `ECE 0.081 to 0.020`, means over seeds."""
    errors = [
        np.mean([binned_error(c, o, equal_mass(c)) for c, o in zip(*side, strict=True)])
        for side in (claims.before, claims.after)
    ]
    return f"T {np.mean(claims.temperatures):.2f}\nECE {errors[0]:.3f} to {errors[1]:.3f}"


def draw_points(
    ax: Axes, confidence: np.ndarray, outcome: np.ndarray, prompt: np.ndarray, style: Mapping[str, Any]
) -> None:
    """Mean outcome of bins of confidence (S, P) with its standard error, prompts (P,) drawn whole."""
    prompts, confidence, outcome = np.tile(prompt, len(confidence)), confidence.ravel(), outcome.ravel()
    bins = equal_mass(confidence, BINS)
    points = []
    for b in range(bins.max() + 1):
        inside = bins == b
        mean = outcome[inside].mean()
        error = np.sqrt((np.bincount(prompts[inside], weights=outcome[inside] - mean) ** 2).sum()) / inside.sum()
        points.append((confidence[inside].mean(), mean, error))
    x, y, error = np.transpose(points)
    ax.errorbar(x, y, error, elinewidth=0.8, **style)


def draw_counts(ax: Axes, confidence: np.ndarray, colour: str, style: str) -> None:
    """Preferences per seed in each of ten equal bins of confidence (S, P)."""
    counts = np.histogram(confidence, np.linspace(0.5, 1, BINS + 1))[0] / len(confidence)
    ax.stairs(counts, np.linspace(0.5, 1, BINS + 1), color=colour, lw=1, ls=style)
