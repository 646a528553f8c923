"""Scored comparisons, written by hand."""

from rmlab.metrics.scored import ScoredComparison


def scored(rewards, better, worse, probability=None, subset="", gold=(), lengths=None, strength=None):
    count = len(better)
    return ScoredComparison(
        index=0,
        id="a",
        prompt_id="p",
        subset=subset,
        rewards=rewards,
        lengths=lengths or list(range(len(rewards))),
        gold=list(gold),
        better=better,
        worse=worse,
        strength=strength or [1.0] * count,
        probability=probability or [1.0] * count,
    )
