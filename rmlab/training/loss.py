"""The loss of a trainer: the terms that it was given, or TRL's."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import IterableDataset

from rmlab.losses import Term, build_loss
from rmlab.messages import UserError
from rmlab.training.config import RewardConfig
from rmlab.training.prepare import AnyDataset


def prepare_loss(
    loss: Mapping[str, Any] | Sequence[Term] | None,
    args: RewardConfig,
    train_dataset: AnyDataset | None,
    outputs: int | Sequence[str] = 1,
) -> list[Term]:
    """The terms given or named, or TRL's loss.

    That is a margin where rows have a `margin` column, and centering where its coefficient is set. outputs: of the
    head, see build_loss.
    """
    if loss is not None and not isinstance(loss, Mapping):
        if not loss or args.center_rewards_coefficient is not None:
            raise UserError(
                "loss, given as terms: at least one, and centering among them, not center_rewards_coefficient"
            )
        return list(loss)
    named = dict(loss) if loss else {"bradley_terry": {"margin": float("margin" in columns_of(train_dataset))}}
    if args.center_rewards_coefficient is not None:
        named.setdefault("center", {"weight": args.center_rewards_coefficient})
    return build_loss(named, outputs)


def columns_of(dataset: AnyDataset | None) -> Sequence[str]:
    """Column names; of a stream that does not know them, those of its first row; nothing for None."""
    columns = getattr(dataset, "column_names", None)
    if columns is None and isinstance(dataset, IterableDataset):
        columns = list(next(iter(dataset), {}))  # a generator's columns are only known from its rows
    return columns or ()
