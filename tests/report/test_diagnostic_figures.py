"""Figures of diagnostics: what is drawn is what metrics say."""

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from comparisons import random_set, scored

from rmlab.metrics.best_of_n import best_of_n as audit
from rmlab.metrics.calibration import tempered
from rmlab.metrics.diagnostics import diagnose
from rmlab.metrics.pairs import Pairs
from rmlab.report.figures.best_of_n import best_of_n
from rmlab.report.figures.by_length import bins_of, length_accuracy
from rmlab.report.figures.calibration import calibration
from rmlab.report.figures.look import STYLE, Look

LOOK = Look(["a", "b"], "a", {"a": "#404040", "b": "#0072B2"}, {"a": "o", "b": "s"}, "", {"a": "a", "b": "b"}, False)
RUNS = {arm: [random_set(60, 4, seed=0, labels=1.0, noise=1.0 + k) for k in range(2)] for arm in "ab"}


@pytest.fixture(autouse=True)
def house_style():
    with mpl.rc_context({**STYLE, "figure.figsize": (5.5, 2.75)}):
        yield


def lines(ax):
    return [np.array(line.get_ydata(), dtype=float) for line in ax.lines]


@pytest.mark.parametrize("apart", [False, True])
def test_the_gold_of_the_pick_is_drawn_for_every_n(apart):
    drawing = best_of_n(RUNS, replace(LOOK, apart=apart))
    found = [audit(run) for run in RUNS["a"]]
    drawn = lines(drawing.canvas.axes[0])
    best, picked = (
        [np.mean([f["curve"][n][name]["value"] for f in found]) for n in range(4)] for name in ("best", "gold")
    )
    assert drawn[0] == pytest.approx(best)
    assert any(line.shape == (4,) and line == pytest.approx(picked) for line in drawn[2:])
    recovered = f"{np.mean([f['curve'][3]['recovery']['value'] for f in found]):.0%}"
    words = [text.get_text() for text in drawing.canvas.findobj(mpl.text.Text)]
    assert any(recovered in word for word in words)
    assert "2 seeds per arm, 60 prompts, 240 responses" in drawing.caption


def test_the_temperature_and_the_errors_are_those_of_metrics():
    drawing = calibration(RUNS, LOOK)
    found = [tempered(Pairs.of(run)) for run in RUNS["a"]]
    temperature, before, after = (np.mean([f[key] for f in found]) for key in ("value", "ece_before", "ece_after"))
    said = [text.get_text() for text in drawing.canvas.axes[0].texts]
    assert said == [f"T {temperature:.2f}\nECE {before:.3f} to {after:.3f}"]
    assert "30 prompts, 180 preferences" in drawing.caption


def test_accuracy_is_drawn_by_length_difference():
    """All of the shorter ones are right, none of the longer ones."""
    rows = [
        scored([gap, 0.0], [0], [1], lengths=[10 + n, 50], prompt=str(n))
        for n, gap in enumerate([1.0] * 40 + [0.0] + [-1.0] * 40)
    ]
    drawing = length_accuracy({"a": [rows]}, LOOK)
    (ax,) = drawing.canvas.axes
    (drawn,) = [line for line in lines(ax) if len(line) == 6]
    assert drawn.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    pull = diagnose(rows)["length"]["gap_correlation"]["value"]
    assert f"{pull:+.2f}".replace("-", "\u2212") in "".join(t.get_text() for t in drawing.canvas.findobj(mpl.text.Text))


def test_bins_of_length_never_hold_both_signs_nor_too_few():
    bins, x = bins_of(np.array([-3] * 30 + [0] * 9 + [1] * 9 + [4, 5] * 20))
    assert bins[30:39].tolist() == [-1] * 9
    assert set(bins[:30]) == {0}
    assert x[0] == -3
    assert min(np.bincount(bins[bins >= 0])) >= 9
    assert bins_of(np.array([-1.0] * 5 + [1.0] * 20))[0][:5].tolist() == [-1] * 5


@pytest.mark.parametrize("figure", [calibration, length_accuracy, best_of_n])
def test_what_cannot_be_drawn_is_left_out(figure):
    few = [scored([1.0, 0.0], [0], [1], prompt=str(n)) for n in range(4)]
    assert figure({"a": [few]}, LOOK) is None
    assert figure({}, LOOK) is None
