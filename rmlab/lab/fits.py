"""Over-optimisation in numbers, of gains of S seeds on C prompts at G values of n.

Everything here is a mean over seeds and prompts, or a ratio of two. So each has the interval of the report's
statistics (Student's t, seeds and prompts crossed), of a ratio by the delta method. R(d) = d (alpha - beta d) is Gao et
al. 2022's for best-of-n, gamma that of arXiv 2505.12763.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rmlab.report.statistics import estimate

DRAWS = 1000  # of the bootstrap of the largest n that still pays


class Value(NamedTuple):
    """With its 95% interval; NaN where that is not known."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]" if self.value == self.value else ""


NOTHING = Value(*[float("nan")] * 3)


def mean(values: np.ndarray, prompts: np.ndarray) -> Value:
    """Of (S, C), the prompt (C,) of each item."""
    found = estimate(values, prompts)
    return Value(found.value, found.low, found.high)


def ratio(above: np.ndarray, below: np.ndarray, prompts: np.ndarray) -> Value:
    """Of the means of two (S, C); nothing where the lower one is not above 0."""
    if not below.mean() > 0:
        return NOTHING
    value = float(above.mean() / below.mean())
    around = mean((above - value * below) / below.mean(), prompts)
    return Value(value, value + around.low, value + around.high)


@dataclass(frozen=True)
class Fit:
    """R(d) = d (alpha - beta d), d = sqrt(KL). peak: the d of its top; nothing where beta is not above 0.

    r2: the share of the variance of the mean curve that it explains.
    """

    alpha: Value
    beta: Value
    peak: Value
    r2: float

    def at(self, d: np.ndarray) -> np.ndarray:
        """R(d)."""
        return d * (self.alpha.value - self.beta.value * d)


def fit(gains: np.ndarray, d: np.ndarray, prompts: np.ndarray) -> Fit:
    """Least squares of gains (S, C, G) at d (G,).

    That is linear in the gains: alpha and beta are means over seeds and prompts of those of each.
    """
    alpha, beta = np.tensordot(np.linalg.pinv(np.stack([d, -(d**2)], axis=1)), gains, axes=(1, 2))
    curve, fitted = gains.mean(axis=(0, 1)), d * (alpha.mean() - beta.mean() * d)
    r2 = 1 - float(((curve - fitted) ** 2).sum() / ((curve - curve.mean()) ** 2).sum())
    return Fit(mean(alpha, prompts), mean(beta, prompts), ratio(alpha, 2 * beta, prompts), r2)


def gamma(gold: np.ndarray, proxy: np.ndarray, kl: np.ndarray, prompts: np.ndarray) -> Value:
    """int |f - g| / int f over KL (G,); f the mean gain in gold, g that in the proxy, (S, C, G) in the same units."""
    sign = np.sign(gold.mean(axis=(0, 1)) - proxy.mean(axis=(0, 1)))
    return ratio(np.trapezoid(sign * (gold - proxy), kl), np.trapezoid(gold, kl), prompts)


def best_n(gold: np.ndarray, n: np.ndarray, seed: int = 0) -> Value:
    """The n of the most gold; the interval is that of a bootstrap of seeds and prompts, both drawn whole."""
    rng, (seeds, prompts, _) = np.random.default_rng(seed), gold.shape
    of_seeds = rng.multinomial(seeds, [1 / seeds] * seeds, size=DRAWS)
    of_prompts = rng.multinomial(prompts, [1 / prompts] * prompts, size=DRAWS)
    drawn = zip(of_prompts, of_seeds, strict=True)  # one by one: all at once take a thousand times the memory
    found = n[[int((of_c @ np.tensordot(of_s, gold, axes=1)).argmax()) for of_c, of_s in drawn]]
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    return Value(float(n[gold.mean(axis=(0, 1)).argmax()]), float(low), float(high))
