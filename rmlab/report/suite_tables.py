"""Tables of benchmark suites: the score of every arm, then all totals and subsets."""

from typing import Any

import pandas as pd

from rmlab.report.tables import Table, Tables, difference, interval, known, mean_and_sd, number, p_value, verdict


def suite_tables(rows: pd.DataFrame, baseline: str) -> Tables:
    """Two tables of each suite; rows: of `compare_suites`."""
    tables = Tables()
    for name, part in rows.groupby("suite", sort=False):
        numbers = part.groupby(["kind", "number"], sort=False).ngroups
        if part["kind"].iloc[0] == "total" or numbers == 1:
            tables.append(score_table(str(name), part, baseline))
        if numbers > 1:
            title = f"Suite {name}: totals and subsets (mean over seeds [95% CI], without correction)"
            tables.append(Table(title, matrix(part, baseline), "matrix", str(name)))
    return tables


def score_table(name: str, part: pd.DataFrame, baseline: str) -> Table:
    """The first number of a suite, a line per arm, and what random rewards reach."""
    score = part[(part["kind"] == part["kind"].iloc[0]) & (part["number"] == part["number"].iloc[0])]
    lines = [score_cells(row, baseline) for _, row in score.iterrows()]
    if known(score["chance"].iloc[0]):
        lines.append({"arm": "chance", "mean ± sd": number(score["chance"].iloc[0])})
    cells = pd.DataFrame(lines, columns=list(lines[0])).fillna("")
    title = f"Suite {name}: {score['number'].iloc[0]} (higher is better; {score['items'].iloc[0]:,} items)"
    return Table(title, cells, "suite", name)


def score_cells(row: "pd.Series[Any]", baseline: str) -> dict[str, str]:
    """The line of an arm."""
    paired = known(row["pairs"]) and row["pairs"] < row["seeds"]
    return {
        "arm": row["arm"] + " (baseline)" * (row["arm"] == baseline),
        "seeds": str(row["seeds"]) + f", {row['pairs']:.0f} paired" * paired,
        "mean ± sd": mean_and_sd(row),
        "95% CI": interval(row["low"], row["high"], "{:.4f}"),
        "difference [95% CI]": difference(row),
        "p (Holm)": p_value(row["p_holm"]),
        "verdict": verdict(row),
    }


def matrix(part: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Arms by numbers; a line of what there are more of."""
    arms, numbers = (
        list(dict.fromkeys(part["arm"])),
        list(dict.fromkeys(zip(part["kind"], part["number"], strict=True))),
    )
    cells: dict[str, dict[str, str]] = {arm: {} for arm in arms}
    chance: dict[str, str] = {}
    for _, row in part.iterrows():
        name = named(row)
        cells[row["arm"]][name] = f"{row['mean']:.3f} {interval(row['low'], row['high'], '{:.3f}')}".rstrip()
        chance[name] = f"{row['chance']:.3f}" if known(row["chance"]) else ""
    whole = pd.DataFrame({**cells, "chance": chance}).fillna("")
    whole = whole.drop(columns="chance") if not any(chance.values()) else whole
    whole = whole.rename(columns={baseline: f"{baseline} (baseline)"})
    if len(arms) > len(numbers):
        return whole.T.rename_axis("arm").reset_index()
    return whole.rename_axis("total or subset (items)").reset_index()


def named(row: "pd.Series[Any]") -> str:
    """`total` or `subset (134)`, with its items."""
    return row["number"] if row["kind"] == "total" else f"{row['number']} ({row['items']:,})"
