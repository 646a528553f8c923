"""What a finished run prints: its metrics as a table, and where everything is."""

from collections.abc import Mapping
from typing import Any

from rmlab.runner.directory import RunDirectory

SHOWN = ("loss", "accuracy", "bayes_accuracy", "ties", "nll", "brier", "ece", "gap_mean", "length_correlation")


def print_table(metrics: Mapping[str, Any], out: RunDirectory, seconds: float) -> None:
    """A row per metric of SHOWN that any column has, then the path of each thing that the run left in `out`."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(out.name)}, {seconds / 60:.1f} min")
    table.add_column("metric")
    columns = columns_of(metrics)
    for name in columns:
        table.add_column(escape(name), justify="right")  # a subset may be called [/b]
    for metric in SHOWN:
        cells = [f"{c[metric]:.4f}" if isinstance(c.get(metric), float) else "" for c in columns.values()]
        if any(cells):
            table.add_row(metric, *cells)
    table.add_row("comparisons", *(f"{c['comparisons']:,}" if "comparisons" in c else "" for c in columns.values()))
    Console().print(table)
    for name, place in out.contents().items():
        print(f"{name:14}{place}")


def columns_of(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A column per evaluation set and subset, and one of training."""
    columns: dict[str, Mapping[str, Any]] = {}
    for name, values in metrics["eval"].items():
        columns[name] = values
        columns.update({f"{name}/{subset}": part for subset, part in values.get("subsets", {}).items()})
    return {**columns, "train (last logged)": metrics["train"]}
