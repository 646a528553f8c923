"""What suites say, as tables: a row per suite at the end of a run, a table per suite of `rmlab-eval`."""

from collections.abc import Mapping, Sequence
from typing import Any

from rmlab.runner.summary import LEAST, printable, shortened

COLUMNS = ("items", "value [95%]", "chance", "ties")
WIDEST = 36  # of a name

Numbers = Mapping[str, Any]  # a suites/NAME.json


def print_totals(results: Mapping[str, Numbers]) -> None:
    """The score of each suite in a row."""
    rows = [row(f"{name}: {said['overall']}", said["totals"][said["overall"]]) for name, said in results.items()]
    show("suite", rows)


def print_suite(name: str, said: Numbers) -> None:
    """A suite: its subsets, then its totals."""
    subsets = [row(f"  {subset}", numbers) for subset, numbers in said["subsets"].items()]
    show(name, [*subsets, *(row(total, numbers) for total, numbers in said["totals"].items())])


def row(name: str, numbers: Numbers) -> list[str]:
    """A name and its numbers in the order of COLUMNS."""
    value = f"{numbers['value']:.3f} [{numbers['low']:.3f}, {numbers['high']:.3f}]"
    rest = ["" if numbers.get(key) is None else f"{numbers[key]:.3f}" for key in ("chance", "ties")]
    return [name, f"{numbers['items']:,}", value, *rest]


def show(first: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table of the rows, at least as wide as a narrow terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, LEAST)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in (first, *COLUMNS):
        table.add_column(column, justify="right" if column in ("items", "chance", "ties") else "left", no_wrap=True)
    for name, *cells in rows:
        table.add_row(Text(shortened(printable(name, console.encoding), WIDEST)), *cells)
    console.print(table)
