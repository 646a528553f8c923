"""The loss of a trainer: the terms that it was given, or TRL's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset, IterableDataset

from rmlab.data.columns import where_of
from rmlab.data.trees import TokenTree
from rmlab.losses import Column, Term, build_loss, columns_read, reads_logps
from rmlab.messages import UserError
from rmlab.metrics.scored import ScoredComparison
from rmlab.metrics.set_loss import set_loss
from rmlab.scoring.batch import unscored
from rmlab.training.config import RewardConfig
from rmlab.training.prepare import AnyDataset

ROWS = 1024  # that terms are shown at once


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


def try_columns(terms: Sequence[Term], sets: Mapping[str, Any], outputs: int) -> None:
    """Show the columns of all rows to the terms that read any, with rewards of 0: an evaluation would come to it late.

    UserError naming the row of a value that a term refuses. Streams are seen as they are read. outputs: D of the head.
    """
    columns, asked = columns_read(terms), [term for term in terms if term.columns and not reads_logps([term])]
    for name, trees in sets.items():
        if not asked or not isinstance(trees, Dataset):
            continue
        for some in trees.iter(ROWS):
            rows = [TokenTree.of(dict(zip(some, values, strict=True))) for values in zip(*some.values(), strict=True)]
            shown = [unrewarded(tree, columns, outputs) for tree in rows]
            try:
                set_loss(asked, shown, "pair")
            except UserError:
                for tree, one in zip(rows, shown, strict=True):
                    try_one(asked, one, where_of(name, tree.place))
                raise


def unrewarded(tree: TokenTree, columns: Sequence[Column], outputs: int) -> ScoredComparison:
    """A comparison whose rewards and outputs are 0."""
    said = [[0.0] * outputs for _ in tree.suffixes]
    return replace(unscored(tree, columns), rewards=[0.0] * len(said), outputs=said if outputs > 1 else [])


def try_one(terms: Sequence[Term], comparison: ScoredComparison, where: str) -> None:
    """UserError with the row, where one of the terms raises one."""
    try:
        set_loss(terms, [comparison], "pair")
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def columns_of(dataset: AnyDataset | None) -> Sequence[str]:
    """Column names; of a stream that does not know them, those of its first row; nothing for None."""
    columns = getattr(dataset, "column_names", None)
    if columns is None and isinstance(dataset, IterableDataset):
        columns = list(next(iter(dataset), {}))  # a generator's columns are only known from its rows
    return columns or ()
