"""Flips: the preferences that two arms decide differently, with their texts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from rmlab.metrics.evaluate import decisions
from rmlab.report.items import Items
from rmlab.report.tables import Table, Tables

COLUMNS = [
    *("set", "subset", "id", "comparison", "better", "worse"),
    *("arm", "baseline", "baseline_gap", "arm_gap", "right", "size"),
]
SHOWN = 10  # of each arm


def flips(items: Mapping[str, Items], arms: Sequence[str], baseline: str) -> pd.DataFrame:
    """One row per set, arm and preference that the arm and the baseline decide differently, the worst of an arm first.

    What an arm decides is what most of its runs do, or their mean gap where they are split evenly. better, worse: the
    responses, by their place; better is the one that was preferred. baseline_gap, arm_gap: mean reward of better minus
    worse. right: `arm`, `baseline`, or `neither` for an undecided preference. size: how sure both are of it, the
    product of their gaps in units of the standard deviation of an arm's gaps.
    """
    parts = [
        flips_of(of_set, arm, baseline).assign(set=name, arm=arm, baseline=baseline)
        for name, of_set in items.items()
        for arm in arms
        if arm != baseline and {arm, baseline} <= set(of_set.arm)
    ]
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def flips_of(items: Items, arm: str, baseline: str) -> pd.DataFrame:
    """Those of one arm and set."""
    (mine, my_gap, my_size), (theirs, their_gap, their_size) = (decided_by(items, name) for name in (arm, baseline))
    places = np.flatnonzero(mine * theirs < 0)  # never of NaN
    side = np.sign(items.probability - 0.5)[places]
    found = items.key.iloc[places][["id", "better", "worse"]].assign(
        subset=items.subset[places],
        baseline_gap=their_gap[places],
        arm_gap=my_gap[places],
        right=np.where(side == 0, "neither", np.where(side * mine[places] > 0, "arm", "baseline")),
        size=-(my_size * their_size)[places],
        comparison=items.key["comparison"].to_numpy()[places],
    )
    return found.sort_values("size", ascending=False, kind="stable")


def decided_by(items: Items, arm: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(decision, mean gap, the same in units of its standard deviation) of an arm, (I,) each.

    A decision is 1 for the better response, -1 for the worse, 0 for neither; NaN where there is no score.
    """
    gaps = items.gap[items.arm == arm]
    mean, signs = gaps.mean(axis=0), decisions(gaps).sum(axis=0)
    return np.where(signs == 0, decisions(mean), np.sign(signs)), mean, mean / (np.nanstd(mean) or 1.0)


# ---- for readers ----


def flips_tables(found: pd.DataFrame, texts: Callable[[str], pd.DataFrame | None], several: bool) -> Tables:
    """A table of the worst flips per set and arm, those that the baseline had right first.

    found: of `flips`. texts: excerpts of a set; None where none are kept. several: sets.
    """
    tables, known = Tables(), {str(name): texts(str(name)) for name in found["set"].unique()}
    for (name, arm), part in found.groupby(["set", "arm"], sort=False):
        shown = worst(part)
        gained, lost = (int((part["right"] == who).sum()) for who in ("arm", "baseline"))
        against = f"Flips, {arm} against {part['baseline'].iloc[0]}{f' on {name}' * several}"
        title = f"{against}: {gained:,} gained, {lost:,} lost"
        rest = f"; the {len(shown)} that both are surest of (all in flips.csv)" if len(shown) < len(part) else ""
        tables.append(Table(title + rest, with_texts(shown, known[str(name)]), "flips", str(name)))
    return tables


def worst(part: pd.DataFrame) -> pd.DataFrame:
    """The first SHOWN flips, lost and gained in turn; then sorted by who is right."""
    turn = part.groupby("right").cumcount()
    chosen = part.assign(turn=turn).sort_values(["turn", "size"], ascending=[True, False], kind="stable").head(SHOWN)
    order = {"baseline": 0, "arm": 1, "neither": 2}
    return chosen.sort_values("right", key=lambda column: column.map(order), kind="stable")


def with_texts(shown: pd.DataFrame, texts: pd.DataFrame | None) -> pd.DataFrame:
    """Cells of a table: id, subset if there are any, who is right, both gaps, and the texts where they are known."""
    told: dict[int, tuple[str, Sequence[str]]] = {}
    if texts is not None:
        those = texts[texts["comparison"].isin(shown["comparison"])]
        told = {int(c): (prompt, responses) for c, prompt, responses in those.itertuples(index=False)}
    lines = []
    for _, row in shown.iterrows():
        name = {"arm": row["arm"], "baseline": row["baseline"]}.get(row["right"], "neither: undecided")
        line = {"id": str(row["id"]), "subset": str(row["subset"]), "right": name}
        line |= {f"gap of {row[of]}": f"{row[f'{of}_gap']:+.4g}" for of in ("baseline", "arm")}
        if row["comparison"] in told:
            prompt, responses = told[row["comparison"]]
            line |= {"prompt": prompt, "preferred": responses[row["better"]], "other": responses[row["worse"]]}
        lines.append(line)
    cells = pd.DataFrame(lines).fillna("")
    return cells if shown["subset"].astype(bool).any() else cells.drop(columns="subset")
