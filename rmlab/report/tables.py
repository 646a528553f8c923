"""The long table, cut for readers: terminal, Markdown, LaTeX, CSV."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import pandas as pd

TITLES = {"accuracy": "Accuracy", "nll": "Bradley-Terry NLL", "brier": "Brier score"}
WISHES = {"accuracy": "higher is better", "nll": "lower is better", "brier": "lower is better"}
NEEDS = {"McNemar p (Holm)": 140, "detectable": 116, "seeds": 100}  # columns left out of narrower terminals
Tables = list[tuple[str, pd.DataFrame]]


def readable(rows: pd.DataFrame, baseline: str) -> Tables:
    """(title, table of strings) of each set and metric; the first column is the arm."""
    sets = list(dict.fromkeys(rows["set"]))
    tables = []
    for name in sets:
        for metric in TITLES:
            part = rows[(rows["set"] == name) & (rows["metric"] == metric)]
            title = TITLES[metric] + f" on {name}" * (len(sets) > 1) + f" ({WISHES[metric]})"
            tables.append((title, pd.DataFrame([cells(row, metric, baseline) for _, row in part.iterrows()])))
    return tables


def cells(row: "pd.Series[Any]", metric: str, baseline: str) -> dict[str, str]:
    """Texts by column title, empty where a number is missing; the McNemar test is there for accuracy only."""
    is_baseline = row["arm"] == baseline
    shown = {
        "arm": row["arm"] + " (baseline)" * is_baseline,
        "seeds": str(row["seeds"])
        + f", {row['pairs']:.0f} paired" * (known(row["pairs"]) and row["pairs"] < row["seeds"]),
        "mean ± sd": number(row["mean"]) + (f" ± {number(row['sd'])}" if known(row["sd"]) else ""),
        "difference [95% CI]": signed(row["difference"]) + interval(row["diff_low"], row["diff_high"]),
        "p (Holm)": p_value(row["p_holm"]),
        "verdict": verdict(row),
        "detectable": number(row["detectable"]),
    }
    if metric == "accuracy":
        counts = f" ({row['only_arm']:.0f}:{row['only_baseline']:.0f})" if known(row["mcnemar"]) else ""
        shown["McNemar p (Holm)"] = p_value(row["mcnemar_holm"]) + counts
    return shown


def verdict(row: "pd.Series[Any]") -> str:
    """`better`, `worse` or `none found`; `one seed`, which allows no verdict; empty where nothing was tested."""
    if not known(row["p_holm"]):
        return ""
    return "one seed" if row["pairs"] == 1 else row["verdict"] or "none found"


def known(value: float | None) -> TypeGuard[float]:
    """Whether a cell of the long table has a number: neither None nor NaN."""
    return value is not None and not math.isnan(value)


def number(value: float | None) -> str:
    """Four decimals; empty where there is no number."""
    return f"{value:.4f}" if known(value) else ""


def signed(value: float | None) -> str:
    """Four decimals after a + or -, as differences are written; empty where there is no number."""
    return f"{value:+.4f}" if known(value) else ""


def interval(low: float | None, high: float | None) -> str:
    """` [low, high]`, with a space to follow the difference; empty where there is none."""
    return f" [{low:+.4f}, {high:+.4f}]" if known(low) else ""


def p_value(value: float | None) -> str:
    """Three decimals, or `< 0.001`; empty where nothing was tested."""
    return "" if not known(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


# ---- formats ----


def write_tables(
    rows: pd.DataFrame, tables: Tables, title: str, facts: Sequence[str], notes: Sequence[str], folder: Path
) -> None:
    """table.csv (every number of the long table), table.md and table.tex."""
    rows.assign(verdict=[verdict(row) for _, row in rows.iterrows()]).to_csv(folder / "table.csv", index=False)
    (folder / "table.md").write_text(markdown(tables, title, facts, notes), encoding="utf-8")
    (folder / "table.tex").write_text(latex(tables, facts), encoding="utf-8")


def markdown(tables: Tables, title: str, facts: Sequence[str], notes: Sequence[str]) -> str:
    """Title, notes, a table with its heading per set and metric, then the facts."""
    parts = [f"# {title}", *(f"**Note:** {note}" for note in notes)]
    for heading, table in tables:
        table = table.map(lambda text: text.replace("|", "\\|"))
        lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
        parts += [f"**{heading}**", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join([*parts, *facts]) + "\n"


def latex(tables: Tables, facts: Sequence[str]) -> str:
    """booktabs tabulars with captions; needs \\usepackage{booktabs}."""
    parts = ["% \\usepackage{booktabs}"]
    for heading, table in tables:
        style = table.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
        text = style.to_latex(
            hrules=True, column_format="l" + "r" * (len(table.columns) - 1), caption=tex(heading), position="t"
        )
        parts.append(
            text.replace("±", "$\\pm$")
            .replace("< 0.001", "$<$ 0.001")
            .replace("\\begin{tabular}", "\\centering\n\\begin{tabular}")
        )
    return "\n".join([*parts, *(f"% {fact}" for fact in facts)]) + "\n"


def tex(text: str) -> str:
    """Text with its %, _, & and # escaped."""
    return text.replace("%", "\\%").replace("_", "\\_").replace("&", "\\&").replace("#", "\\#")


def print_tables(tables: Tables, title: str, facts: Sequence[str], notes: Sequence[str]) -> None:
    """To the terminal, better arms in green and worse in red; a narrow one has fewer columns (NEEDS)."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=shutil.get_terminal_size((144, 24)).columns)
    console.print(f"\n[bold]{escape(title)}[/bold]\n")
    colours = {"better": "green", "worse": "red"}
    for heading, frame in tables:
        table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
        shown = frame.drop(columns=[c for c, width in NEEDS.items() if c in frame and console.width < width])
        for place, column in enumerate(shown.columns):
            table.add_column(column, justify="right" if place else "left", no_wrap=bool(place), overflow="fold")
        for line in shown.to_dict("records"):
            table.add_row(*(escape(text) for text in line.values()), style=colours.get(line["verdict"]))
        console.print(table)
    for fact in facts:
        console.print(escape(fact), highlight=False, style="dim")
    for note in notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}", highlight=False)
