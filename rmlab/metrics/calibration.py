"""Whether rewards mean what they claim: sigma(gap) as the probability that the better response is preferred.

Each preference is read both ways round, (gap, p) and (-gap, 1 - p), so nothing depends on which side is called the
better one; all that is said of a bin on [0.5, 1] holds for its mirror image too.

Naeini et al. 2015 (ECE), Murphy 1973 (the parts of Brier), Guo et al. 2017 (temperature).
"""

from typing import Any

import numpy as np

from rmlab.metrics.evaluate import BINS, calibration_error, confidence_and_outcome, per_preference
from rmlab.metrics.pairs import Pairs, share


def calibration(pairs: Pairs) -> dict[str, Any]:
    """ECE over bins of equal width and of equal mass, Brier and its parts, the bins, and a temperature."""
    confidence, outcome = confidence_and_outcome(pairs.gap, pairs.probability)
    bins = equal_mass(confidence)
    found = {
        "ece": calibration_error(confidence, outcome),
        "ece_equal_mass": binned_error(confidence, outcome, bins),
        "brier": brier_parts(pairs.gap, pairs.probability),
        "bins": [one_bin(confidence, outcome, pairs.prompt, bins == b) for b in range(bins.max() + 1)],
    }
    temperature = tempered(pairs)
    return {**found, "temperature": temperature} if temperature else found


def equal_mass(confidence: np.ndarray, number: int = BINS) -> np.ndarray:
    """(P,) bin of each: edges at the quantiles, equal values in one bin; counted from 0, none of them empty."""
    edges = np.quantile(confidence, np.linspace(0, 1, number + 1)[1:-1])
    return np.unique(np.searchsorted(edges, confidence), return_inverse=True)[1]


def binned_error(confidence: np.ndarray, outcome: np.ndarray, bins: np.ndarray) -> float:
    """sum_b |B_b| / P * |mean outcome - mean confidence|."""
    return float(np.abs(np.bincount(bins, weights=outcome - confidence)).sum() / len(confidence))


def one_bin(confidence: np.ndarray, outcome: np.ndarray, prompt: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """A point of the reliability diagram: mean confidence, how often it was right with its interval, preferences."""
    right = share(outcome[inside], prompt[inside])
    return {"confidence": float(confidence[inside].mean()), **right}


def brier_parts(gap: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """value = reliability - resolution + uncertainty + within: mean (sigma(gap) - p)^2, and what it is made of.

    reliability: mean squared distance of a bin's confidence from its outcome; 0 is calibrated. resolution: how far the
    outcomes of bins are from a coin's, 0.5. uncertainty: of the labels, 0.25 where none is soft or tied. within: what
    is lost by taking the confidences of a bin for one.
    """
    confidence, outcome = confidence_and_outcome(gap, probability)
    bins = equal_mass(confidence)
    size = np.bincount(bins)
    claimed, seen = (np.bincount(bins, weights=values) / size for values in (confidence, outcome))
    weight = size / size.sum()
    parts = {
        "value": float(per_preference(gap, probability)["brier"].mean()),
        "reliability": float((weight * (claimed - seen) ** 2).sum()),
        "resolution": float((weight * (seen - 0.5) ** 2).sum()),
        "uncertainty": float(((probability - 0.5) ** 2).mean()),
    }
    within = parts["value"] - parts["reliability"] + parts["resolution"] - parts["uncertainty"]
    return {**parts, "within": within}


def tempered(pairs: Pairs) -> dict[str, float] | None:
    """What dividing the rewards by one number does: fitted on every other prompt (by id), tried on the rest.

    value: the temperature; nll and ece (equal mass) on the rest before and after, and its preferences n. None where
    none can be fitted: one prompt, no pair right or none wrong.
    """
    fitted = pairs.prompt % 2 == 0
    value = temperature(pairs.gap[fitted], pairs.probability[fitted])
    if value is None or fitted.all():
        return None
    gap, probability = pairs.gap[~fitted], pairs.probability[~fitted]
    found = {"value": value, "n": len(gap)}
    for name, divided in (("before", gap), ("after", gap / value)):
        claims = confidence_and_outcome(divided, probability)
        found[f"nll_{name}"] = float(per_preference(divided, probability)["nll"].mean())
        found[f"ece_{name}"] = binned_error(*claims, equal_mass(claims[0]))
    return found


def temperature(gap: np.ndarray, probability: np.ndarray) -> float | None:
    """The number by which to divide the gaps (P,) for the least mean Bradley-Terry cross-entropy.

    The loss is convex in its inverse, so that is where the slope is 0. None where it is nowhere, for gaps that are all
    of the right sign, or wrong more often than right.
    """
    from scipy.optimize import brentq

    size = np.sqrt(np.mean(gap**2))
    if not size:
        return None

    def slope(inverse: float) -> float:
        return float(np.mean(gap / size * (0.5 * (1 + np.tanh(0.5 * inverse * gap / size)) - probability)))

    low, high = 1e-4, 1e4
    if slope(low) >= 0 or slope(high) <= 0:
        return None
    return float(size / brentq(slope, low, high, xtol=1e-12))
