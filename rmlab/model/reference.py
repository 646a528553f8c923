"""What the rewards of a model are measured against: their mean and spread on known responses, beside its weights."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rmlab.files import read, write_json
from rmlab.messages import UserError
from rmlab.metrics.scored import ScoredComparison

REFERENCE = "rmlab_reward.json"


@dataclass(frozen=True)
class Reference:
    """Mean and standard deviation of the rewards of `responses` responses of what `on` names."""

    mean: float
    std: float
    on: str
    responses: int

    @classmethod
    def of(cls, rewards: Sequence[float] | np.ndarray, on: str) -> "Reference":
        """Of (R,) rewards. UserError for fewer than two, and for rewards that are all the same."""
        values = np.asarray(rewards, dtype=np.float64)
        if len(values) < 2 or not values.std() > 0:
            raise UserError(f"the rewards of {on} have no spread to measure others by; give more and other responses")
        return cls(float(values.mean()), float(values.std()), on, len(values))


def write_reference(place: Path, rewards: Sequence[float] | np.ndarray, on: str) -> None:
    """Write it beside the weights in `place`. UserError as `Reference.of`."""
    write_json(place / REFERENCE, asdict(Reference.of(rewards, on)))


def keep_reference(place: Path, comparisons: Iterable[ScoredComparison], on: str) -> None:
    """The same of a trained model that was saved in `place`, and of the adapter beside it; nothing without a spread."""
    rewards = [reward for comparison in comparisons for reward in comparison.rewards]
    with contextlib.suppress(UserError):
        for folder in (place, place.with_name("adapter")):
            if folder.is_dir():
                write_reference(folder, rewards, on)


def read_reference(place: str | Path) -> Reference:
    """Of the folder of a model. UserError where there is none."""
    file = Path(place).expanduser() / REFERENCE
    about = read(file)
    if not about:
        raise UserError(
            f"{place} holds no {REFERENCE}, by which rewards are normalised; write one with rmlab-score MODEL DATA "
            "--reference, or leave normalise out"
        )
    try:
        return Reference(**about)
    except TypeError as error:
        raise UserError(f"{file} is not what was written: {error}") from error
