"""The report as one HTML file that needs nothing else: no script, no request, figures inside."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from rmlab.report.figures import Figure
from rmlab.report.runs import Run
from rmlab.report.study import Study
from rmlab.report.tables import Table, Tables, Words

TEMPLATE = Path(__file__).with_name("page.html.j2")
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="#0072b2" d="M1 9h4v6H1z"/>'
    '<path fill="#d55e00" d="M6 1h4v14H6z"/><path fill="#009e73" d="M11 5h4v10h-4z"/></svg>'
)


def write_page(
    study: Study,
    tables: Tables,
    figures: Sequence[Figure],
    folder: Path,
    words: Words,
) -> Path:
    """folder/index.html. figures: saved in folder/figures."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=study.title,
        icon=data_uri(ICON.encode()),
        summary=summary(study),
        notes=words.notes,
        tables=[
            {"title": t.title, "columns": t.cells.columns, "rows": table_rows(t, study.baseline), "kind": t.kind}
            for t in tables
        ],
        figures=[embedded(figure, folder / "figures") for figure in figures],
        runs=[run_row(run) for run in by_arm(study.runs)],
        first_set=first_set(study),
        facts=words.facts,
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def summary(study: Study) -> dict[str, str]:
    """What was done, in short."""
    done, seeds = study.finished, sorted({run.seed for run in study.finished})
    minutes = f"{sum(run.environment.get('seconds', 0) for run in done) / 60:,.0f}"
    told = {
        "Study" if study.runs else "Data": study.name,
        "Baseline": study.baseline,
        "Arms": f"{len(study.arms)}: {', '.join(study.arms)}" if len(study.arms) <= 6 else str(len(study.arms)),
    }
    if study.runs:
        told |= {
            "Seeds": f"{len(seeds)}: {', '.join(map(str, seeds))}" if len(seeds) <= 10 else str(len(seeds)),
            "Runs": f"{len(done)} finished of {len(study.runs)}, {minutes} minutes of training and evaluation in all",
        }
    return told | {f"Outside: {arm}": file for arm, file in study.outside.items()}


def table_rows(table: Table, baseline: str) -> list[dict[str, Any]]:
    """Cells and the class of each, and whether the row is the baseline's."""
    rows = []
    for cells in table.cells.astype(str).to_numpy().tolist():
        classes = [class_of(column, cell, table.kind) for column, cell in zip(table.cells.columns, cells, strict=True)]
        is_baseline = f"{baseline} (baseline)" in cells or cells[0] == baseline
        rows.append({"cells": list(zip(cells, classes, strict=True)), "baseline": is_baseline})
    return rows


def class_of(column: str, cell: str, kind: str) -> str:
    """CSS class of a cell."""
    called = {"better": "better", "agrees": "better", "worse": "worse", "disagrees": "worse"}
    if column == "verdict" and cell in called:
        return called[cell]
    return "words" if column in ("arm", "effect", "measured here") or kind == "arms" else ""


def embedded(figure: Figure, folder: Path) -> dict[str, Any]:
    """A figure with its SVG as a data URI, its width in CSS pixels, and links to its files."""
    svg = (folder / f"{figure.name}.svg").read_bytes()
    size = re.search(rb'<svg [^>]*width="([\d.]+)pt"', svg)
    points = float(size[1]) if size else 500
    return {
        "title": figure.title,
        "caption": figure.caption,
        "source": data_uri(svg),
        "width": round(points * 4 / 3 * 1.45),  # larger than in print, for screens are farther away
        "wide": points > 300,
        "files": [(kind.upper(), f"figures/{quote(figure.name)}.{kind}") for kind in ("pdf", "png", "svg")],
    }


def data_uri(svg: bytes) -> str:
    """An address that holds the SVG itself, so that the page needs no other file."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def first_set(study: Study) -> str:
    """The evaluation set whose accuracy stands in the table of runs; empty if no run was evaluated."""
    return next((name for run in study.finished for name in run.metrics["eval"]), "")


def by_arm(runs: Sequence[Run]) -> list[Run]:
    """Sorted by arm, arms in the order in which they first come, then by seed."""
    arms = list(dict.fromkeys(run.arm for run in runs))
    return sorted(runs, key=lambda run: (arms.index(run.arm), run.seed))


def run_row(run: Run) -> dict[str, Any]:
    """A line of the table of runs. Empty where the run did not get that far."""
    sets: list[dict[str, Any]] = list(run.metrics.get("eval", {}).values())
    accuracy = sets[0].get("accuracy") if sets else None
    seconds = run.environment.get("seconds")
    return {
        "arm": run.arm,
        "seed": run.seed,
        "state": run.state,
        "accuracy": "" if accuracy is None else f"{accuracy:.4f}",
        "minutes": "" if seconds is None else f"{seconds / 60:.1f}",
        "error": run.error,
        "directory": run.out.name,
    }
