"""Figures of a study, each as PDF for print, PNG and SVG. A figure whose data is not there is left out.

Up to six arms share a panel. More are told apart by a sequential colour where they are values of one number, and else
get a panel each, with the baseline in dark grey for comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from rmlab.report.figures.arms import accuracy, bayes_accuracy, heatmap, learning_curves
from rmlab.report.figures.best_of_n import best_of_n
from rmlab.report.figures.by_length import length_accuracy
from rmlab.report.figures.calibration import Scored, calibration
from rmlab.report.figures.items import length, rewards, strength
from rmlab.report.figures.look import STYLE, UNDATED, Drawing, Look, look_of
from rmlab.report.figures.power_law import power_law
from rmlab.report.figures.suites import suite_figures
from rmlab.report.items import Items
from rmlab.report.power_law import PowerLaw
from rmlab.report.study import Study


@dataclass
class Figure:
    """Saved as NAME.pdf, NAME.png and NAME.svg."""

    name: str
    title: str
    caption: str


def draw(
    study: Study,
    items: Mapping[str, Items],
    rows: pd.DataFrame,
    folder: Path,
    grid: Study | None = None,
    width: float = 397,
    suites: pd.DataFrame | None = None,
    scored: Mapping[str, Scored] | None = None,
    laws: Sequence[PowerLaw] = (),
) -> list[Figure]:
    """Every figure that the study has data for, saved in folder; width: of a page's text, in points.

    rows: of `compare`; suites: of `compare_suites`; scored: by set or suite, the comparisons of each arm's runs. grid:
    the study before `tuned` chose from it, for the heat map. laws: of `power_laws`. Figures of one evaluation set among
    several are called NAME_SET.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures, several = [], len(items) > 1
    with mpl.rc_context({**STYLE, "figure.figsize": (width / 72, width / 144)}):
        for name, of_set in items.items():
            drawn = of_one_set(study, name, of_set, rows, grid or study, only=not several)
            told = diagnostics((scored or {}).get(name, {}), look_of(study), of_set.unit)
            told["power_law"] = power_law([law for law in laws if law.set == name])
            for kind, drawing in {**drawn, **told}.items():
                if drawing:
                    title = f"{drawing.title} on {name}" if several else drawing.title
                    figures.append(Figure(f"{kind}_{name}" if several else kind, title, drawing.caption))
                    save(drawing.canvas, folder, figures[-1].name)
        for name, drawing in (suite_figures(suites, look_of(study)) if suites is not None else {}).items():
            figures.append(Figure(f"suite_{name}", drawing.title, drawing.caption))
            save(drawing.canvas, folder, figures[-1].name)
        for name, of_suite in (scored or {}).items():
            if name not in items and (curves := best_of_n(of_suite, look_of(study))):
                figures.append(Figure(f"best_of_n_{name}", f"{curves.title} on {name}", curves.caption))
                save(curves.canvas, folder, figures[-1].name)
    return figures


def of_one_set(
    study: Study, name: str, items: Items, rows: pd.DataFrame, grid: Study, only: bool
) -> dict[str, Drawing | None]:
    """The figures of an evaluation set by name, None where its data is not there. only: the study has no other set."""
    look = look_of(study)
    scored = items.of_arms(~np.isnan(items.gap).any(axis=1))  # scores from outside may lack items
    rewarded = scored.of_arms(~np.isin(scored.arm, sorted(items.verdicts)))
    return {
        "accuracy": accuracy(
            items, rows[(rows["set"] == name) & (rows["subset"] == "")], look, bayes_accuracy(items.runs, name)
        ),
        "heatmap": heatmap(grid, name, items),
        "learning_curves": learning_curves(study, name, items, look, only),
        "strength": strength(scored, look) if len(scored.arm) else None,
        "length": length(rewarded, look) if len(rewarded.arm) else None,
        "rewards": rewards(rewarded, look) if len(rewarded.arm) else None,
    }


def diagnostics(scored: Scored, look: Look, unit: str) -> dict[str, Drawing | None]:
    """The figures of what each run has scored; none where that is not there. unit: of lengths."""
    if not scored:
        return {}
    return {
        "calibration": calibration(scored, look),
        "length_accuracy": length_accuracy(scored, look) if unit == "tokens" else None,
        "best_of_n": best_of_n(scored, look),
    }


def save(canvas: Canvas, folder: Path, name: str) -> None:
    """NAME.pdf, NAME.png and NAME.svg in the folder, without a date: the same data makes the same files."""
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")  # laid out once for all formats: that takes a third of the time
    for kind, metadata in UNDATED.items():
        canvas.savefig(folder / f"{name}.{kind}", metadata=metadata)
