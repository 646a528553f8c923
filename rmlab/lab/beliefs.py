"""What models say of preferences and how surely: of the seeds of an arm, or of a head that tells it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rmlab.metrics.evaluate import sides
from rmlab.metrics.pairs import Pairs
from rmlab.metrics.scored import ScoredComparison

Members = Sequence[Sequence[ScoredComparison]]  # the same comparisons, as each member has scored them


@dataclass(frozen=True)
class Belief:
    """Of P preferences, each with its likelier side as the better one.

    pairs: with the gap that is believed. sd (P,): how unsure it is. members: whose mean the gap is, if there are any.
    """

    arm: str
    of: str  # whose doubt it is: `5 seeds`, `seed 0, its gaussian head`
    pairs: Pairs
    sd: np.ndarray
    members: Members = ()

    @property
    def doubts(self) -> dict[str, np.ndarray]:
        """(P,) each: what is doubted by it comes last. The size of the gap needs no ensemble: it is to be beaten."""
        size = np.abs(self.pairs.gap)
        sure = np.divide(size, self.sd, out=np.full_like(size, np.inf), where=self.sd > 0)
        return {"sd": self.sd, "small gap": -size, "gap / sd": -np.where(size > 0, sure, 0.0)}


def of_seeds(arm: str, runs: Members) -> Belief | None:
    """The mean gap of at least two runs, and the standard deviation of theirs; None of fewer."""
    return of_members(arm, f"{len(runs)} seeds", runs) if len(runs) > 1 else None


def of_members(arm: str, of: str, members: Members) -> Belief:
    """The same of any models of one scale."""
    each = [Pairs.of(one) for one in members]
    gaps = np.stack([one.gap for one in each])
    return Belief(arm, of, replace(each[0], gap=gaps.mean(0)), gaps.std(0, ddof=1), members)


def of_head(arm: str, seed: int, comparisons: Sequence[ScoredComparison], head: Mapping[str, Any]) -> Belief | None:
    """What a run's own head tells; None where it tells no doubt. head: `{kind: options}`, as `model.head` has it."""
    ((kind, options),) = head.items()
    if not comparisons or not all(c.outputs for c in comparisons):
        return None
    of = f"seed {seed}, its {kind} head"
    if kind == "ensemble":
        number = int(options["members"])
        members = [[replace(c, rewards=[o[m] for o in c.outputs]) for c in comparisons] for m in range(number)]
        return of_members(arm, of, members) if number > 1 else None
    if kind not in VARIANCES:
        return None
    variances = [VARIANCES[kind](np.array(c.outputs, dtype=float), options).tolist() for c in comparisons]
    return Belief(arm, of, Pairs.of(comparisons), np.sqrt(np.add(*sides(comparisons, variances))))


def of_gaussian(outputs: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """exp(log variance)."""
    return np.exp(outputs[:, 1])


def of_quantiles(outputs: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """That of the quantiles, each as likely as the others."""
    return outputs.var(axis=1)


def of_grades(outputs: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """sum_g p(g) g^2 - (sum_g p(g) g)^2."""
    grades = np.asarray(options["grades"], dtype=float)
    likely = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    return np.maximum(likely @ grades**2 - (likely @ grades) ** 2, 0.0)


# Kind of head -> (K,) variances of the rewards of K responses, from outputs (K, D) and the options of the head.
VARIANCES: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {
    "gaussian": of_gaussian,
    "quantile": of_quantiles,
    "ordinal": of_grades,
}
