"""The long table, cut for readers: terminal, Markdown, CSV. LaTeX is in latex.py."""

import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import pandas as pd

TITLES = {"accuracy": "Accuracy", "nll": "Bradley-Terry NLL", "brier": "Brier score"}
WISHES = {"accuracy": "higher is better", "nll": "lower is better", "brier": "lower is better"}
# Columns left out of narrower terminals.
NEEDS = {
    "mean reward": 200,
    "sd of rewards": 200,
    "drift of the mean": 200,
    "McNemar p (Holm)": 160,
    "95% CI": 140,
    "detectable": 120,
    "seeds": 100,
    "p (Holm)": 92,
}
WORDY = ("arm", "subset", "effect", "key", "claim", "measured here")  # columns of words, which stand at the left
LONGEST = 45  # rows of a table that a terminal shows
WORDS = 200  # characters of a text that table.md shows


@dataclass(frozen=True)
class Table:
    """cells: of strings, by column title. kind: `comparison` (an arm a line), `subsets`, `effects`, `suite` (its
    score), `matrix` (its other numbers), `published`, `claims`, `flips` or `arms`.

    set, metric: what it is of, empty where it is of no one.
    """

    title: str
    cells: pd.DataFrame
    kind: str = "comparison"
    set: str = ""
    metric: str = ""


Tables = list[Table]


def readable(rows: pd.DataFrame, references: pd.DataFrame, baseline: str) -> Tables:
    """A table of each set and metric, what needs no model below the arms; then those by subset.

    rows: of `compare`; references: of `references_of`.
    """
    tables, whole = Tables(), rows[rows["subset"] == ""]
    for name, metric, part in parts_of(whole):
        lines = [cells(row, baseline) for _, row in part.iterrows()]
        lines += [reference(row) for _, row in picked(references, name, metric).iterrows() if row["subset"] == ""]
        number = f"{WISHES[metric]}; {part['n'].max():,} preferences"
        cut = pd.DataFrame(lines, columns=list(lines[0])).fillna("")
        tables.append(Table(f"{title_of(rows, name, metric)} ({number})", cut, "comparison", name, metric))
    for name, metric, part in parts_of(rows[rows["subset"] != ""]):
        if metric == "brier":
            continue
        lines = []
        for subset, of_subset in part.groupby("subset"):
            lines += [subset_cells(str(subset), row, baseline) for _, row in of_subset.iterrows()]
            these = picked(references, name, metric)
            lines += [
                subset_cells(str(subset), row.rename({"name": "arm"}), "")
                for _, row in these[(these["subset"] == subset) & (these["name"] != "chance")].iterrows()
            ]
        title = (
            f"{title_of(rows, name, metric)} by subset ({WISHES[metric]}; intervals as they are, without correction)"
        )
        tables.append(Table(title, pd.DataFrame(lines), "subsets", name, metric))
    return tables


def parts_of(rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """(set, metric, its rows), in the order of the sets and of TITLES."""
    found = [(name, metric, picked(rows, name, metric)) for name in dict.fromkeys(rows["set"]) for metric in TITLES]
    return [(name, metric, part) for name, metric, part in found if len(part)]


def picked(rows: pd.DataFrame, name: str, metric: str) -> pd.DataFrame:
    """Those of one set and metric."""
    return rows[(rows["set"] == name) & (rows["metric"] == metric)]


def title_of(rows: pd.DataFrame, name: str, metric: str) -> str:
    """`Accuracy`, and `on SET` if there are several sets."""
    return TITLES[metric] + f" on {name}" * (rows["set"].nunique() > 1)


def cells(row: "pd.Series[Any]", baseline: str) -> dict[str, str]:
    """Texts by column title, empty where a number is missing; the McNemar test is there for accuracy only."""
    is_baseline = row["arm"] == baseline
    shown = {
        "arm": row["arm"] + " (baseline)" * is_baseline,
        "seeds": "outside" if row["outside"] else seeds_of(row),
        "mean ± sd": mean_and_sd(row),
        "95% CI": interval(row["low"], row["high"], "{:.4f}"),
        "difference [95% CI]": difference(row),
        "p (Holm)": p_value(row["p_holm"]),
        "verdict": verdict(row),
        "detectable": detectable_in_words(row["detectable"]),
    }
    if row["metric"] == "accuracy":
        counts = f" ({row['only_arm']:.0f}:{row['only_baseline']:.0f})" if known(row["mcnemar"]) else ""
        shown["McNemar p (Holm)"] = p_value(row["mcnemar_holm"]) + counts
    return shown


def detectable_in_words(value: float | None) -> str:
    """A number; `> 1` of one that no accuracy can differ by."""
    return "> 1" if known(value) and value > 1 else number(value)


def seeds_of(row: "pd.Series[Any]") -> str:
    """`5`, or `5, 3 paired` where the baseline has fewer."""
    paired = known(row["pairs"]) and row["pairs"] < row["seeds"]
    return str(row["seeds"]) + f", {row['pairs']:.0f} paired" * paired


def reference(row: "pd.Series[Any]") -> dict[str, str]:
    """The same of what needs no model."""
    return {"arm": row["name"], "mean ± sd": number(row["mean"]), "95% CI": interval(row["low"], row["high"], "{:.4f}")}


def subset_cells(subset: str, row: "pd.Series[Any]", baseline: str) -> dict[str, str]:
    """A line of a table by subset."""
    return {
        "subset": subset,
        "arm": row["arm"] + " (baseline)" * (row["arm"] == baseline),
        "n": f"{row['n']:,}",
        "mean ± sd": mean_and_sd(row),
        "95% CI": interval(row["low"], row["high"], "{:.4f}"),
        "difference [95% CI]": difference(row),
    }


def verdict(row: "pd.Series[Any]") -> str:
    """`better` or `worse`; `none found`, and `none after Holm` where the interval alone would exclude zero.

    `one seed`, which allows no verdict; empty where nothing was tested.
    """
    if not known(row["p"]):
        return ""
    if row["pairs"] == 1:
        return "one seed"
    return row["verdict"] or ("none after Holm" if row["p"] < 0.05 else "none found")


def known(value: float | None) -> TypeGuard[float]:
    """Whether a cell of the long table has a number: neither None nor NaN."""
    return value is not None and not math.isnan(value)


def number(value: float | None) -> str:
    """Four decimals; empty where there is no number."""
    return f"{value:.4f}" if known(value) else ""


def mean_and_sd(row: "pd.Series[Any]") -> str:
    """`0.7123 ± 0.0031`; the mean alone where there is no sd."""
    return number(row["mean"]) + (f" ± {number(row['sd'])}" if known(row.get("sd")) else "")


def difference(row: "pd.Series[Any]") -> str:
    """`+0.0123 [-0.0012, +0.0258]`; empty where there is none."""
    if not known(row.get("difference")):
        return ""
    return f"{row['difference']:+.4f} {interval(row['diff_low'], row['diff_high'], '{:+.4f}')}".rstrip()


def interval(low: float | None, high: float | None, style: str) -> str:
    """`[low, high]`; empty where there is none."""
    return f"[{style.format(low)}, {style.format(high)}]" if known(low) and known(high) else ""


def p_value(value: float | None) -> str:
    """Three decimals, or `< 0.001`; empty where nothing was tested."""
    return "" if not known(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def effects_tables(effects: pd.DataFrame) -> Tables:
    """Main effects and interactions of two swept values, for accuracy and NLL."""
    tables = Tables()
    for name, metric, part in parts_of(effects):
        lines = [
            {"effect": r["effect"], "difference [95% CI]": difference(r), "p (Holm)": p_value(r["p_holm"])}
            for _, r in part.iterrows()
        ]
        if metric != "brier":
            title = f"Two values at once: {title_of(effects, name, metric)}"
            tables.append(Table(title, pd.DataFrame(lines), "effects", name, metric))
    return tables


# ---- formats ----


@dataclass(frozen=True)
class Words:
    """title: of the whole. facts: how the numbers were made. notes: what to know before believing them."""

    title: str
    facts: Sequence[str]
    notes: Sequence[str]


def markdown(tables: Tables, words: Words) -> str:
    """Title, notes, each table below its heading, then the facts."""
    parts = [f"# {words.title}", *(f"**Note:** {note}" for note in words.notes)]
    for table in tables:
        cells = table.cells.map(in_markdown if table.kind == "flips" else lambda text: text.replace("|", "\\|"))
        lines = [list(cells.columns), ["---"] * len(cells.columns), *cells.to_numpy().tolist()]
        parts += [f"**{table.title}**", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join([*parts, *words.facts]) + "\n"


def in_markdown(text: str) -> str:
    """The beginning of a text of the data as plain words of one line, whatever it holds of HTML and Markdown."""
    line = " ".join(text.split())
    short = line if len(line) <= WORDS else f"{line[:WORDS]}\u2026"
    return re.sub(r"([\\`*_\[\]<>|#!~$&])", r"\\\1", short)


def write_csv(rows: pd.DataFrame, file: Path) -> None:
    """Every number of the long table; verdicts in the words of the other tables."""
    rows.assign(verdict=[verdict(row) for _, row in rows.iterrows()]).to_csv(file, index=False)


def print_tables(tables: Tables, words: Words) -> None:
    """To the terminal, better arms in green and worse in red; a narrow one has fewer columns (NEEDS).

    Of texts, and of a table with too many lines, only the heading.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Printed

    console = Console(width=shutil.get_terminal_size((144, 24)).columns)
    console.print(f"\n[bold]{escape(words.title)}[/bold]\n")
    colours = {"better": "green", "agrees": "green", "worse": "red", "disagrees": "red"}
    for table in tables:
        if max(len(table.cells), 4 * len(table.cells.columns)) > LONGEST or table.kind == "flips":
            number = f"{len(table.cells)} lines, " if table.kind != "flips" else ""
            console.print(f"{escape(table.title)}: {number}in table.md and index.html\n", style="dim")
            continue
        printed = Printed(title=escape(table.title), title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
        shown = table.cells.drop(
            columns=[c for c, width in NEEDS.items() if c in table.cells and console.width < width]
        )
        for place, column in enumerate(shown.columns):
            words_here = not place or column in WORDY or table.kind == "arms"
            printed.add_column(
                escape(column), justify="left" if words_here else "right", no_wrap=not words_here, overflow="fold"
            )
        for line in shown.to_dict("records"):
            printed.add_row(*(escape(text) for text in line.values()), style=colours.get(line.get("verdict", "")))
        console.print(printed)
    for fact in words.facts:
        console.print(escape(fact), highlight=False, style="dim")
    for note in words.notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}", highlight=False)
