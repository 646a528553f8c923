"""What a response's length and style do to its reward, and to how often that is right."""

from typing import Any

import numpy as np

from rmlab.data.style import STYLE
from rmlab.metrics.correlation import of_differences, within_prompts
from rmlab.metrics.pairs import Pairs, Responses

MATCHED = 0.1  # lengths within 10% of each other count as equal
LEAST = 30  # preferences on a side, for its accuracy to be told


def length(pairs: Pairs, responses: Responses) -> dict[str, Any]:
    """Correlation of reward and length within prompts, and accuracy where the better response is shorter, or as long.

    correlation: of rewards and tokens. gap_correlation: of the gap and the difference in tokens. shorter, longer: the
    better response is, in tokens. matched: the lengths are within 10% of each other.
    """
    better, worse = pairs.lengths
    ratio = np.abs(np.log(np.maximum(better, 1) / np.maximum(worse, 1)))
    found = {
        "correlation": within_prompts(responses.reward, responses.length, responses.prompt),
        "gap_correlation": of_differences(pairs.gap, better - worse, pairs.prompt),
    }
    sides = {"shorter": better < worse, "longer": better > worse, "matched": ratio <= np.log(1 + MATCHED)}
    accuracy = {name: pairs.accuracy(those) for name, those in sides.items()}
    return {k: v for k, v in {**found, **accuracy}.items() if v is not None and v["n"]}


def style(pairs: Pairs, responses: Responses) -> dict[str, Any]:
    """For each kind of style: accuracy where the better response has more of it, or less, and its correlation.

    The correlation is of reward and count within prompts. A kind is left out where fewer than LEAST preferences are
    decided for the side that has more of it, or for the one that has less.
    """
    if pairs.style is None or responses.style is None:
        return {}
    found = {}
    for s, name in enumerate(STYLE):
        better, worse = pairs.style[:, :, s]
        more, fewer = pairs.accuracy(better > worse), pairs.accuracy(better < worse)
        if min(more["n"], fewer["n"]) >= LEAST:
            correlation = within_prompts(responses.reward, responses.style[:, s], responses.prompt)
            found[name] = {"more": more, "fewer": fewer, **({"correlation": correlation} if correlation else {})}
    return found
