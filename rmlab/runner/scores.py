"""The scores of an evaluation set as files.

SET.parquet              one row per response
SET.preferences.parquet  one row per preference
SET.texts.parquet        one row per comparison: excerpts, where its texts are known
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from rmlab.data.style import STYLE
from rmlab.files import replacing
from rmlab.messages import UserError, first_line
from rmlab.metrics.scored import ScoredComparison
from rmlab.scoring.score_file import OUTPUT

PREFERENCE = ("better", "worse", "strength", "probability")
TEXTS = ("comparison", "prompt", "responses")
RESPONSE = ("id", "prompt", "subset", "reward", "length", "gold", "style", "outputs")


@dataclass(frozen=True)
class Scores:
    """The scores of an evaluation set as tables; `comparisons` reads them back as they were written.

    responses: comparison, id, prompt, subset, response, reward, length, gold, the counts of STYLE, and output_NAME for
    each output of a head that has several. preferences:
    comparison, better, worse, strength, probability. texts: comparison, prompt, responses (K). `comparison` is the
    place in the set, better, worse and response count within it.
    """

    responses: pd.DataFrame
    preferences: pd.DataFrame
    texts: pd.DataFrame

    def comparisons(self) -> list[ScoredComparison]:
        """In the order of the set; `gold`, `style` and `excerpts` are empty where they are not known."""
        styles = [column for column in STYLE if column in self.responses]
        outputs = [column for column in self.responses if str(column).startswith(OUTPUT)]
        said = pd.Series(self.responses[outputs].to_numpy(float).tolist(), self.responses.index)
        styled = pd.Series(rows_of(self.responses[styles]), self.responses.index)
        table = self.responses.assign(style=styled, outputs=said)
        told = lists_by_comparison(table, RESPONSE)
        pairs = lists_by_comparison(self.preferences, PREFERENCE)
        none: dict[str, list[Any]] = {column: [] for column in PREFERENCE}
        texts = zip(*(self.texts[column] for column in TEXTS), strict=True)
        excerpts = {index: [prompt, *responses] for index, prompt, responses in texts}
        return [
            ScoredComparison(
                index=index,
                id=of["id"][0],
                prompt_id=of["prompt"][0],
                subset=of["subset"][0],
                rewards=of["reward"],
                lengths=of["length"],
                gold=[] if any(map(math.isnan, of["gold"])) else of["gold"],
                style=[] if None in of["style"] else of["style"],
                excerpts=excerpts.get(index, []),
                outputs=of["outputs"] if outputs else [],
                better=pairs.get(index, none)["better"],
                worse=pairs.get(index, none)["worse"],
                strength=pairs.get(index, none)["strength"],
                probability=pairs.get(index, none)["probability"],
            )
            for index, of in told.items()
        ]


def lists_by_comparison(table: pd.DataFrame, columns: Sequence[str]) -> dict[int, dict[str, list[Any]]]:
    """Comparison -> column -> the values of its rows, in the order of the table; both as they first come."""
    codes, names = pd.factorize(table["comparison"])
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes)).tolist()
    values = {column: table[column].to_numpy()[order].tolist() for column in columns}
    places = zip(names.tolist(), [0, *ends], ends, strict=False)
    return {name: {column: of[start:end] for column, of in values.items()} for name, start, end in places}


def rows_of(table: pd.DataFrame) -> list[list[int] | None]:
    """Each row as a list of whole numbers; None where one is missing, or there are no columns."""
    known = table.notna().all(axis=1).to_numpy() & bool(len(table.columns))
    rows = table.fillna(0).to_numpy(int).tolist()
    return [row if there else None for row, there in zip(rows, known, strict=True)]


def write_scores(comparisons: Sequence[ScoredComparison], path: Path, names: Sequence[str] = ()) -> None:
    """The responses to `path`, the preferences and texts beside it; makes the folder if it is not there.

    names: of the head's outputs, where it has several.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    types = {"reward": "float32", "gold": "float64", **dict.fromkeys(STYLE, "Int32")}
    table = pd.DataFrame([row for c in comparisons for row in response_rows(c)]).astype(types)
    outputs = [values for c in comparisons for values in c.outputs]
    if outputs:
        values = np.array(outputs, dtype=np.float32)
        table = pd.concat([table, pd.DataFrame(values, columns=[OUTPUT + name for name in names])], axis=1)
    write_table(table, path)
    preferences = [row for c in comparisons for row in preference_rows(c)]
    write_table(pd.DataFrame(preferences, columns=["comparison", *PREFERENCE]), beside(path))
    texts = [dict(zip(TEXTS, (c.index, c.excerpts[0], c.excerpts[1:]), strict=True)) for c in comparisons if c.excerpts]
    if texts:
        write_table(pd.DataFrame(texts), texts_beside(path), "zstd")
    else:
        texts_beside(path).unlink(missing_ok=True)  # of what was written there before


def response_rows(c: ScoredComparison) -> Iterator[dict[str, Any]]:
    """What the table of responses says of a comparison."""
    for k, reward in enumerate(c.rewards):
        yield {
            "comparison": c.index,
            "id": c.id,
            "prompt": c.prompt_id,
            "subset": c.subset,
            "response": k,
            "reward": reward,
            "length": c.lengths[k],
            "gold": c.gold[k] if len(c.gold) else None,
            **dict(zip(STYLE, c.style[k] if c.style else [None] * len(STYLE), strict=True)),
        }


def preference_rows(c: ScoredComparison) -> Iterator[dict[str, Any]]:
    """What the table of preferences says of it."""
    for values in zip(*(getattr(c, column) for column in PREFERENCE), strict=True):
        yield {"comparison": c.index, **dict(zip(PREFERENCE, values, strict=True))}


def write_table(table: pd.DataFrame, file: Path, compression: Literal["snappy", "zstd"] = "snappy") -> None:
    """Whole, or not at all."""
    with replacing(file) as scratch:
        table.to_parquet(scratch, index=False, compression=compression)


def read_scores(path: Path) -> Scores:
    """The scores that `write_scores` wrote to `path` and beside it."""
    texts = texts_beside(path)
    known = read_table(texts) if texts.exists() else pd.DataFrame(columns=TEXTS)
    return Scores(read_table(path), read_table(beside(path)), known)


def read_table(file: Path) -> pd.DataFrame:
    """The rows of a parquet file. UserError naming the file if it is damaged or gone."""
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:  # what pyarrow raises is one of them
        raise UserError(f"cannot read {file}: {first_line(error)}") from error


def beside(path: Path) -> Path:
    """The file of preferences that belongs to a file of responses."""
    return path.with_suffix(".preferences.parquet")


def texts_beside(path: Path) -> Path:
    """The file of excerpts that belongs to a file of responses; not there where no text is known."""
    return path.with_suffix(".texts.parquet")
