"""scores/SET.parquet, one row per response, and SET.preferences.parquet, one row per preference."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rmlab.files import replacing
from rmlab.messages import UserError, first_line
from rmlab.metrics.scored import ScoredComparison

PREFERENCE = ("better", "worse", "strength", "probability")


@dataclass(frozen=True)
class Scores:
    """The scores of an evaluation set as tables; `comparisons` reads them back as they were written.

    responses: comparison, id, prompt, subset, response, reward, length, gold. preferences: comparison, better, worse,
    strength, probability. `comparison` is the place in the set, better, worse and response count within it.
    """

    responses: pd.DataFrame
    preferences: pd.DataFrame

    def comparisons(self) -> list[ScoredComparison]:
        """In the order of the set; `gold` is empty where the true rewards are not known."""
        pairs = dict(list(self.preferences.groupby("comparison", sort=False)))
        return [
            ScoredComparison(
                index=int(rows["comparison"].iloc[0]),
                id=rows["id"].iloc[0],
                prompt_id=rows["prompt"].iloc[0],
                subset=rows["subset"].iloc[0],
                rewards=rows["reward"].tolist(),
                lengths=rows["length"].tolist(),
                gold=[] if rows["gold"].isna().all() else rows["gold"].tolist(),
                **{column: pairs[index][column].tolist() for column in PREFERENCE},
            )
            for index, rows in self.responses.groupby("comparison", sort=False)
        ]


def write_scores(comparisons: Sequence[ScoredComparison], path: Path) -> None:
    """The responses to `path`, the preferences beside it; makes the folder if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    responses = [
        {
            "comparison": c.index,
            "id": c.id,
            "prompt": c.prompt_id,
            "subset": c.subset,
            "response": k,
            "reward": reward,
            "length": c.lengths[k],
            "gold": c.gold[k] if len(c.gold) else None,
        }
        for c in comparisons
        for k, reward in enumerate(c.rewards)
    ]
    preferences = [
        {"comparison": c.index, **dict(zip(PREFERENCE, values, strict=True))}
        for c in comparisons
        for values in zip(*(getattr(c, column) for column in PREFERENCE), strict=True)
    ]
    tables = {path: pd.DataFrame(responses).astype({"reward": "float32", "gold": "float64"})}
    tables[beside(path)] = pd.DataFrame(preferences)
    for file, table in tables.items():
        with replacing(file) as scratch:
            table.to_parquet(scratch, index=False)


def read_scores(path: Path) -> Scores:
    """The scores that `write_scores` wrote to `path` and beside it."""
    return Scores(read_table(path), read_table(beside(path)))


def read_table(file: Path) -> pd.DataFrame:
    """The rows of a parquet file. UserError naming the file if it is damaged or gone."""
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:  # what pyarrow raises is one of them
        raise UserError(f"cannot read {file}: {first_line(error)}") from error


def beside(path: Path) -> Path:
    """The file of preferences that belongs to a file of responses."""
    return path.with_suffix(".preferences.parquet")
