"""Everything that a scored set can tell of a reward model beyond how often it is right."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmlab.metrics.best_of_n import best_of_n
from rmlab.metrics.calibration import calibration
from rmlab.metrics.length import length, style
from rmlab.metrics.pairs import Number, Pairs, Responses
from rmlab.metrics.scale import scale
from rmlab.metrics.scored import ScoredComparison

FEW = 6  # distinct strengths that are told one by one


def diagnose(
    comparisons: Sequence[ScoredComparison], reference: tuple[float, float] | None = None
) -> dict[str, dict[str, Any] | list[Any]]:
    """calibration, strength, length, style, scale and best_of_n of a set: plain numbers, none of them NaN.

    A part that the set cannot tell is left out. Intervals are of 95%, with prompts drawn whole.

    Args:
        comparisons: with preferences or, as of responses that are only scored, without.
        reference: (mean, sd) of the rewards on another set, to tell how far they have moved.
    """
    pairs, responses = Pairs.of(comparisons), Responses.of(comparisons)
    parts: dict[str, dict[str, Any] | list[Any]] = {
        "calibration": calibration(pairs) if len(pairs.gap) else {},
        "strength": by_strength(pairs),
        "length": length(pairs, responses),
        "style": style(pairs, responses),
        "scale": scale(pairs, responses, reference),
        "best_of_n": best_of_n(comparisons),
    }
    return {name: part for name, part in parts.items() if part}


def by_strength(pairs: Pairs) -> list[Number]:
    """Accuracy from weak to strong preferences, {from, to, value, low, high, n}; empty where all are as strong.

    Of each strength where there are at most six, else of thirds.
    """
    strength = np.abs(pairs.strength)
    told = np.unique(strength[pairs.decided])
    if len(told) > FEW:
        edges = np.unique(np.quantile(strength[pairs.decided], [1 / 3, 2 / 3]))
        bins = np.searchsorted(edges, strength)
    else:
        bins = np.searchsorted(told, strength)
    groups = [(bins == b) & pairs.decided for b in np.unique(bins[pairs.decided])]
    if len(groups) < 2:
        return []
    ends = [{"from": float(strength[those].min()), "to": float(strength[those].max())} for those in groups]
    return [{**end, **pairs.accuracy(those)} for end, those in zip(ends, groups, strict=True)]
