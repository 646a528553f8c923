"""Preference data as a study without runs: what scores from outside are measured by where nothing was trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rmlab.data import Comparison
from rmlab.data.columns import read_rows, where_of
from rmlab.data.rows import to_comparison
from rmlab.data.sources import load
from rmlab.data.trees import prompt_id
from rmlab.messages import UserError
from rmlab.report.items import KEY, Items
from rmlab.report.study import Study


def gold_study(data: str) -> tuple[Study, str]:
    """A study without arms, called after its data, and the name of its one set."""
    name = Path(data).name.partition(".")[0] or data
    return Study([], None, [], {}, {}, "", [], [], called=name), name


def gold_items(data: str, name: str) -> tuple[Items, pd.DataFrame]:
    """The preferences of a file, folder or hub name in any accepted format, without rewards, and the texts of its rows.

    A comparison is called by its `id`, else by the number of its row, as `rmlab-score` calls them. UserError for a bad
    row, naming it.
    """
    comparisons = list(read(data))
    rows = [
        (c, n, preference) for n, c in enumerate(comparisons) for preference in c.preferences
    ]
    key = [(n, c.id or str(n), p.better, p.worse, len(c.responses)) for c, n, p in rows]
    subset = np.array([c.subset or "" for c, _, _ in rows], dtype=object)
    nothing = np.empty((0, len(rows)))
    items = Items(
        runs=[],
        arm=np.array([], dtype=object),
        seed=np.array([], dtype=int),
        better=nothing,
        worse=nothing,
        length=np.array([[len(said(c.responses[side])) for side in (p.better, p.worse)] for c, _, p in rows]).T,
        prompt=pd.factorize(np.array([prompt_id(c) for c, _, _ in rows]))[0],
        strength=np.array([p.strength for _, _, p in rows]),
        probability=np.array([p.probability for _, _, p in rows]),
        subset=subset,
        key=pd.DataFrame(key, columns=KEY),
    )
