"""Scored comparisons, written by hand or at random."""

import itertools

import numpy as np

from rmlab.metrics.scored import ScoredComparison


def scored(
    rewards, better, worse, probability=None, subset="", gold=(), lengths=None, strength=None, prompt="p", style=(),
    index=0,
):  # fmt: skip
    count = len(better)
    return ScoredComparison(
        index=index,
        id="a",
        prompt_id=prompt,
        subset=subset,
        rewards=rewards,
        lengths=lengths or list(range(len(rewards))),
        gold=list(gold),
        better=better,
        worse=worse,
        strength=strength or [1.0] * count,
        probability=probability or [1.0] * count,
        style=list(style),
    )


def random_set(count=120, responses=4, seed=0, noise=1.0, labels=0.0, prompts=None, **more):
    """Prompts of K responses with gold, proxy rewards around it, all pairs; some ties of rewards, gold and labels.

    labels: of so much noise are they read off gold. more: of each comparison, by number and generator.
    """
    rng = np.random.default_rng(seed)
    made = []
    for n in range(count):
        gold = np.round(rng.normal(size=responses), 1)
        rewards = np.round(gold + noise * rng.normal(size=responses), 1)
        judged = gold + labels * rng.normal(size=responses)
        pairs = [(i, j) if judged[i] >= judged[j] else (j, i) for i, j in itertools.combinations(range(responses), 2)]
        probability = [0.5 if judged[i] == judged[j] else 1.0 for i, j in pairs]
        made.append(
            scored(
                rewards.tolist(), *map(list, zip(*pairs, strict=True)), probability, gold=gold.tolist(), index=n,
                strength=[float(judged[i] - judged[j]) for i, j in pairs], prompt=f"p{n % (prompts or count):03}",
                lengths=rng.integers(1, 60, responses).tolist(),
                style=rng.integers(0, 3, (responses, 6)).tolist(), **more,
            )
        )  # fmt: skip
    return made
