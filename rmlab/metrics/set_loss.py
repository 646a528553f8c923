"""The training loss of a whole evaluation set, from its scored comparisons."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmlab.losses import BUILT_IN, Column, Preferences, Term, as_column, columns_read
from rmlab.losses.reduce import Weights, term_means
from rmlab.metrics.scored import ScoredComparison


def set_loss(terms: Sequence[Term], comparisons: Sequence[ScoredComparison], pair_weighting: str) -> float:
    """The training loss over a whole evaluation set at once; NaN where the set lacks what a term reads."""
    columns = columns_read(terms)
    if any(all(map(unknown, (c.columns[column.name] for c in comparisons))) for column in columns):
        return float("nan")
    if not all({"logps", "reference_logps"} & term.built_in <= comparisons[0].columns.keys() for term in terms):
        return float("nan")
    preferences, weights = as_batch(comparisons, pair_weighting, columns)
    means = term_means(terms, preferences, weights, weights.totals())
    return sum(term.weight * mean.item() for term, mean in zip(terms, means, strict=True))


def as_batch(
    comparisons: Sequence[ScoredComparison], pair_weighting: str, columns: Sequence[Column] = ()
) -> tuple[Preferences, Weights]:
    """All comparisons as one batch, for losses. columns: of them, that the terms read."""
    counts, pairs = [len(c.rewards) for c in comparisons], [len(c.better) for c in comparisons]
    start = np.repeat(np.cumsum([0, *counts[:-1]]), pairs)  # of each pair: where its responses begin
    by_prompt = pair_weighting == "prompt"

    def joined(values: Sequence[Sequence[Any]]) -> Tensor:
        return torch.from_numpy(np.concatenate([np.asarray(v) for v in values]))

    supplied = [Column(name, kind) for name, kind in BUILT_IN.items() if name in comparisons[0].columns]

    several = comparisons[0].outputs
    outputs = joined([c.outputs for c in comparisons]).float() if several else None

    def of(column: Column) -> Tensor:
        values = [v for c in comparisons for v in c.columns[column.name]]
        return as_column(values, column.kind, len(several[0]) if several else 1)

    own = [np.asarray(c.weight) if c.weight else np.ones(len(c.better)) for c in comparisons]
    mean = np.array([w.mean() for w in own])
    weights = Weights(
        pair=torch.from_numpy(np.concatenate(own) / (np.repeat(pairs, pairs) if by_prompt else 1.0)),
        response=torch.from_numpy(np.repeat(mean / counts if by_prompt else mean, counts)),
        comparison=torch.from_numpy(mean),
    )
    preferences = Preferences(
        rewards=joined([c.rewards for c in comparisons]).float(),
        better=joined([c.better for c in comparisons]) + torch.from_numpy(start),
        worse=joined([c.worse for c in comparisons]) + torch.from_numpy(start),
        strength=joined([c.strength for c in comparisons]).float(),
        probability=joined([c.probability for c in comparisons]).float(),
        prompt=torch.from_numpy(np.repeat(np.arange(len(comparisons)), counts)),
        outputs=outputs,
        columns={
            "weight": weights.pair,
            "lengths": joined([c.lengths for c in comparisons]).float(),
            **{column.name: of(column) for column in (*columns, *supplied)},
        },
    )
    return preferences, weights


def unknown(values: Sequence[Sequence[float]]) -> bool:
    """Whether none of a column's numbers of a comparison is known."""
    return all(math.isnan(number) for numbers in values for number in numbers)
