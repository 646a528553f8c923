"""Any preference data as a suite: rows in every format that is trained on, with a column `subset` or without.

A preference is right as in evaluation sets: the preferred response has more reward; a tie of rewards counts half, as
a coin would be right. Undecided preferences are not counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rmlab.data.columns import read_rows
from rmlab.data.prepare import check_first_rows
from rmlab.data.sources import load
from rmlab.evaluation import SUITES, Item, Suite
from rmlab.evaluation.items import Totals, over_items, over_subsets
from rmlab.metrics.evaluate import per_preference, sides
from rmlab.metrics.scored import ScoredComparison


@SUITES.register
def rows(
    *,
    path: str | None,
    name: str | None = None,
    split: str = "train",
    revision: str | None = None,
    columns: Mapping[str, Any] | None = None,
    prompt_separator: str | None = None,
) -> Suite:
    """The options are those of data sources, see `rmlab.data.sources.load`."""
    dataset = load(
        path=path, name=name, split=split, revision=revision, columns=columns, prompt_separator=prompt_separator
    )
    check_first_rows(dataset, str(path))
    return Suite(list(read_rows(dataset)), items, totals)


def items(scored: Sequence[ScoredComparison]) -> list[Item]:
    """An item for each decided preference."""
    return [
        Item(f"{c.id}-{n}" if len(c.better) > 1 else c.id, c.prompt_id, c.subset or "none", value, (c.index,))
        for c in scored
        for n, value in enumerate(values_of(c))
        if not np.isnan(value)
    ]


def values_of(comparison: ScoredComparison) -> list[float]:
    """Of each preference 1, 0 or 0.5; NaN of an undecided one."""
    if not comparison.better:
        return []
    better, worse = sides([comparison], [comparison.rewards])
    return per_preference(better - worse, np.array(comparison.probability))["accuracy"].tolist()


def totals(counts: Mapping[str, int]) -> Totals:
    """The accuracy over all, and the mean of subsets where there are several."""
    macro = {"macro": over_subsets(counts)} if len(counts) > 1 else {}
    return {"accuracy": over_items(counts), **macro}
