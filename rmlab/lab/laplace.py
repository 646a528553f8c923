"""How unsure a linear head is: Laplace's approximation of its posterior at the trained weights (RewardUQ 2602.24040).

Bradley-Terry on features is logistic regression on their differences z = f(better) - f(worse): with a prior of
precision lambda the weights have about the covariance H^-1, H = lambda I + sum p (1 - p) z z', p = sigma(gap). So the
gap of two responses has the variance z' H^-1 z. MacKay 1992 (the evidence for lambda, the moderated probability).
"""

from dataclasses import dataclass

import numpy as np

from rmlab.messages import UserError
from rmlab.metrics.evaluate import sigmoid

ROUNDS, CLOSE = 1000, 1e-10  # of the search for the prior, and the relative change at which it ends


@dataclass
class Information:
    """What preferences tell of d weights: sum p (1 - p) z z' (d, d) of `pairs` of them."""

    matrix: np.ndarray
    pairs: int = 0

    @classmethod
    def none(cls, d: int) -> "Information":
        """Of no preference."""
        return cls(np.zeros((d, d)))

    def add(self, z: np.ndarray, gap: np.ndarray) -> None:
        """Of differences z (P, d) and gaps (P,)."""
        p = sigmoid(gap)
        self.matrix += (z * (p * (1 - p))[:, None]).T @ z
        self.pairs += len(z)


@dataclass(frozen=True)
class Posterior:
    """Of the weights: precision `matrix` + prior * I."""

    values: np.ndarray  # (d,) eigenvalues of the information
    vectors: np.ndarray  # (d, d) its eigenvectors, as columns
    prior: float

    @classmethod
    def of(cls, information: Information, weights: np.ndarray, prior: float | None) -> "Posterior":
        """prior: lambda; None: that of the most evidence. UserError where the preferences tell of no such."""
        values, vectors = np.linalg.eigh(information.matrix)
        values = np.maximum(values, 0.0)  # rounding
        return cls(values, vectors, most_evident(values, weights) if prior is None else prior)

    def sd(self, z: np.ndarray) -> np.ndarray:
        """(P,) of the gaps of differences z (P, d)."""
        return np.sqrt(((z @ self.vectors) ** 2 / (self.values + self.prior)).sum(1))

    @property
    def determined(self) -> float:
        """How many of the d weights the preferences decide, rather than the prior."""
        return float((self.values / (self.values + self.prior)).sum())


def most_evident(values: np.ndarray, weights: np.ndarray) -> float:
    """lambda with lambda |w|^2 = sum_i v_i / (v_i + lambda), where the evidence is at its most; values (d,)."""
    size = float(weights @ weights)
    if not size or not values.any():
        raise UserError("the preferences tell nothing of the prior of the head's weights; give one: --prior 1")
    prior = len(weights) / size
    for _ in range(ROUNDS):
        before, prior = prior, float((values / (values + prior)).sum()) / size
        if abs(prior - before) < CLOSE * before:
            break
    return prior


def moderated(gap: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """(P,) gaps whose sigma is about the mean of sigma over normal gaps with that mean and sd (MacKay 1992)."""
    return gap / np.sqrt(1 + np.pi * sd**2 / 8)
