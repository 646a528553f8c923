"""Preference data as a study without runs: what scores from outside are compared on where nothing was trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rmlab.data.columns import read_rows, where_of
from rmlab.data.excerpts import said, texts_of
from rmlab.data.rows import check_columns, to_comparison
from rmlab.data.sources import load
from rmlab.data.trees import prompt_id
from rmlab.messages import UserError
from rmlab.report.items import KEY, Items, subsets_of
from rmlab.report.study import Study
from rmlab.runner.scores import TEXTS


def gold_study(data: str) -> Study:
    """A study without arms, called after its data."""
    return Study([], None, [], {}, {}, "", [], [], called=Path(data).name.partition(".")[0] or data)


def gold_items(data: str, columns: Mapping[str, Any]) -> tuple[Items, pd.DataFrame]:
    """The preferences of a file, folder or hub name in any accepted format, not scored yet, and the texts of its rows.

    columns: rmlab's name -> theirs, as data.columns. A comparison is called by its `id`, else by the number of its row,
    as `rmlab-score` calls them. Lengths are in characters. UserError for a bad row, naming it.
    """
    try:
        rows = list(read_rows(load(path=data, columns=columns)))
        check_columns(rows[0], data)
    except UserError as error:
        raise UserError(str(error).replace("data.path", "--gold").replace("data.columns.", "--columns ")) from error
    comparisons = [to_comparison(row, where_of(data, n)) for n, row in enumerate(rows)]
    if any(c.tokenised for c in comparisons):
        raise UserError(f"--gold: {data} holds token ids; give the rows as text")
    each = [(n, c, p) for n, c in enumerate(comparisons) for p in c.preferences]
    key = [(n, str(n) if c.id is None else c.id, p.better, p.worse, len(c.responses)) for n, c, p in each]
    prompts = [prompt_id(c) for c in comparisons]
    lengths = [[len(said(response)) for response in c.responses] for c in comparisons]
    items = Items(
        runs=[],
        arm=np.array([], dtype=object),
        seed=np.array([], dtype=int),
        better=np.empty((0, len(each))),
        worse=np.empty((0, len(each))),
        length=np.array([[lengths[n][p.better], lengths[n][p.worse]] for n, _, p in each]).T,
        prompt=pd.factorize(np.array([prompts[n] for n, _, _ in each]))[0],
        strength=np.array([p.strength for _, _, p in each]),
        probability=np.array([p.probability for _, _, p in each]),
        subset=subsets_of(pd.Series([c.subset or "" for _, c, _ in each])),
        key=pd.DataFrame(key, columns=KEY),
        unit="characters",
        gold={n: c.gold for n, c in enumerate(comparisons) if c.gold is not None},
    )
    excerpts = [texts_of(c)[1] for c in comparisons]
    texts = [(n, prompt, responses) for n, (prompt, *responses) in enumerate(excerpts)]
    return items, pd.DataFrame(texts, columns=list(TEXTS))
