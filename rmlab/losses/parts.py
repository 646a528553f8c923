"""What several terms share: soft labels, the outputs that a head must have, what a row does not know."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from rmlab.losses import Preferences
from rmlab.messages import UserError


def either_way(preferences: Preferences, z: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """(P,) p * loss(z) + (1 - p) * loss(-z): the loss of a preference that holds with probability p.

    A tie, p = 0.5, is half the loss of each direction.
    """
    p = preferences.probability
    return p * loss(z) + (1 - p) * loss(-z)


def known(values: Tensor) -> tuple[Tensor, Tensor]:
    """(which are known, the values with 0 in place of the others), so that no NaN reaches a gradient."""
    there = ~values.isnan()
    return there, values.nan_to_num()


def per_comparison(preferences: Preferences, values: Tensor) -> Tensor:
    """(N,) sums over the responses of each comparison, of values (R,)."""
    return values.new_zeros(preferences.comparisons).index_add(0, preferences.prompt, values)


def reads_outputs(term: str, preferences: Preferences, names: Sequence[str], head: str) -> None:
    """UserError for a head with other outputs than those; by their number where the batch does not know their names."""
    d = preferences.column("outputs").shape[1]
    instead = f"choose model/head={head}, or another loss"
    if d != len(names):
        raise UserError(f"loss.{term} reads {len(names)} outputs of a response, but the head returns {d}; {instead}")
    for name, there in zip(names, preferences.names, strict=False):
        if name != there:
            raise UserError(
                f"loss.{term} reads the output `{name}`, but the head has `{there}` in its place; {instead}"
            )


def positive(key: str, value: float) -> None:
    """UserError unless it is a number above 0."""
    if not 0 < value < float("inf"):
        raise UserError(f"loss.{key} is {value}; it must be above 0")


def numbers(key: str, values: object, count: int | None = None) -> list[float]:
    """UserError unless it is a list of numbers: of at least one, or of so many."""
    given = list(values) if isinstance(values, list | tuple) else []
    right = [v for v in given if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    if not given or len(right) < len(given) or len(given) != (count or len(given)):
        raise UserError(f"loss.{key} must be a list of {'' if count is None else f'{count} '}numbers, not {values!r}")
    return given


def rising(key: str, values: object) -> list[float]:
    """UserError unless it is a list of at least one number, each above the one before."""
    given = numbers(key, values)
    if sorted(set(given)) != given:
        raise UserError(f"loss.{key} must rise, not {values}")
    return given


def within(log_variance: Tensor, limit: float) -> Tensor:
    """Log variances beyond +-limit are taken as that, so that neither they nor their inverse overflow."""
    return log_variance.clamp(-limit, limit)
