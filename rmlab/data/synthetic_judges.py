"""The annotators of synthetic preferences: what they see in a response, prefer, and rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmlab.data.synthetic_texts import ATTRIBUTES, weighted


@dataclass(frozen=True)
class Annotator:
    """One of them. taste: what each attribute is worth to it beyond its gold weight; temperature: of its choices."""

    user: int
    taste: dict[str, float]
    temperature: float

    def sees(self, gold: Sequence[float], attributes: Sequence[Mapping[str, float]]) -> np.ndarray:
        """(K,) what the responses are worth to it, in units of its temperature."""
        liked = [value + weighted(self.taste, of) for value, of in zip(gold, attributes, strict=True)]
        return np.array(liked) / self.temperature


def hired(
    rng: np.random.Generator, temperature: float, biases: Mapping[str, float], options: Mapping[str, Any]
) -> list[Annotator]:
    """Options count, taste and care, see `synthetic`; without any, one whose taste is the biases."""
    count = options.get("count", 1)
    own = rng.normal(size=(count, len(ATTRIBUTES))) * options.get("taste", 0.0)
    care = np.exp(rng.normal(size=count) * options.get("care", 0.0))
    tastes = [{name: biases.get(name, 0.0) + row[n] for n, name in enumerate(ATTRIBUTES)} for row in own]
    return [Annotator(u, taste, temperature * float(care[u])) for u, taste in enumerate(tastes)]


def judge(
    rng: np.random.Generator, i: int, j: int, perceived: float, grades: int, tie_width: float, label_noise: float
) -> dict[str, Any]:
    """The preference that an annotator states, who perceives response i better than j by `perceived`.

    `flipped` is there, and true, where label noise turned it round: no reader of rows looks at it.
    """
    if abs(perceived) < tie_width:
        return {"better": i, "worse": j, "strength": 0.0, "probability": 0.5}
    flipped = rng.random() < label_noise
    if flipped:
        perceived = -perceived
    better, worse = (i, j) if perceived > 0 else (j, i)
    strength = min(np.ceil(abs(perceived)), grades) / grades
    stated = {"better": better, "worse": worse, "strength": float(strength), "probability": 1.0}
    return {**stated, "flipped": True} if flipped else stated


def rated(
    rng: np.random.Generator,
    gold: Sequence[float],
    attributes: Sequence[Mapping[str, float]],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """`ratings` (K, A) of the attributes asked for, and `rating_variance` (K,) of the noise that is in them.

    The sd of the noise is `noise`, times e^`growth` per hedging word: raters agree less on an answer that hedges.
    """
    sd = [options["noise"] * float(np.exp(options["growth"] * of["hedge"])) for of in attributes]
    true = [[{**of, "gold": g}[name] for name in options["attributes"]] for g, of in zip(gold, attributes, strict=True)]
    ratings = [[float(value + s * rng.normal()) for value in values] for values, s in zip(true, sd, strict=True)]
    return {"ratings": ratings, "rating_variance": [s * s for s in sd]}
