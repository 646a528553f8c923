"""Training labels that are likely wrong: what models say of pairs that they have not trained on.

Each run of a sweep over `data.split_seed` holds other prompts out; what it says of those is cross-fitted. A model that
has trained on a wrong label may have learned it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rmlab.data import Comparison
from rmlab.data.columns import read_rows, where_of
from rmlab.data.config import DataConfig
from rmlab.data.rows import to_comparison
from rmlab.data.sets import load_part
from rmlab.messages import UserError
from rmlab.metrics.calibration import temperature
from rmlab.metrics.evaluate import sigmoid
from rmlab.metrics.scored import ScoredComparison
from rmlab.registry import import_plugins
from rmlab.report.runs import Run
from rmlab.runner.config import Config, flatten

HELD_OUT = "eval"  # the set that data.eval_fraction makes
Key = tuple[str, int, int]  # id of a row, better, worse


@dataclass(frozen=True)
class Row:
    """A training row as it was read, and what it states."""

    row: Mapping[str, Any]
    comparison: Comparison
    id: str

    def keys(self) -> list[Key]:
        """Of its preferences, in their order."""
        return [(self.id, p.better, p.worse) for p in self.comparison.preferences]


def by_rows(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by what they trained on -> name -> runs. The name is of what differs between their sources; empty of one."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(json.dumps(run.config["data"]["train"], sort_keys=True), []).append(run)
    settings = [flatten(json.loads(text)) for text in found]
    varied = [k for k in settings[0] if len({repr(one.get(k)) for one in settings}) > 1]
    names = [" ".join(f"{k.rpartition('.')[2]}={one.get(k)}" for k in varied) for one in settings]
    return dict(sorted(zip(names, found.values(), strict=True)))


def training_rows(run: Run) -> list[Row]:
    """The rows that the run, and those of the same source, split. UserError for several sources, or merged rows."""
    config = Config.of(run.config)
    import_plugins(config.plugins)
    data: DataConfig = config.data
    if len(data.train) > 1 or data.group_by_prompt:
        raise UserError(f"{run.out.name}: label noise is told of one source whose rows are not grouped by prompt")
    if data.eval:
        raise UserError(
            f"{run.out.name} was evaluated on other rows; sweep data.split_seed with data.eval_fraction=0.5 and no "
            "data.eval, so that each run holds out part of the rows in question"
        )
    (source,) = load_part(data, data.train, "train")
    found = []
    for n, row in enumerate(read_rows(source.rows)):
        comparison = to_comparison(row, where_of(source.name, n))
        found.append(Row(row, comparison, comparison.id if comparison.id is not None else str(n)))
    if len({row.id for row in found}) < len(found):
        raise UserError(f"{source.name}: two rows have the same id; label noise is told of rows by their ids")
    return found


def gaps_of(comparisons: Sequence[ScoredComparison]) -> Iterator[tuple[Key, float, float]]:
    """(key, gap, probability) of each preference."""
    for c in comparisons:
        for better, worse, probability in zip(c.better, c.worse, c.probability, strict=True):
            yield (c.id, better, worse), c.rewards[better] - c.rewards[worse], probability


def calibrated(comparisons: Sequence[ScoredComparison]) -> dict[Key, float]:
    """The gap of each preference, divided by the temperature that suits the run's own held-out labels."""
    told = list(gaps_of(comparisons))
    gaps, probability = (np.array([one[k] for one in told]) for k in (1, 2))
    divided = gaps / (temperature(gaps, probability) or 1.0)
    return dict(zip((key for key, *_ in told), divided.tolist(), strict=True))


def suspects(rows: Sequence[Row], panel: Sequence[Mapping[Key, float]]) -> pd.DataFrame:
    """A line per decided preference, the most suspicious first.

    panel: of each model, the gaps of what it has not trained on. suspicion: the mean over models of sigma(-gap), the
    probability that another annotator would say the opposite. models: how many have said something of it.
    """
    lines = []
    for row in rows:
        told = row.row.get("preferences") if isinstance(row.row.get("preferences"), list) else None
        for n, (key, p) in enumerate(zip(row.keys(), row.comparison.preferences, strict=True)):
            if p.probability == 0.5:
                continue
            gaps = np.array([one[key] for one in panel if key in one])
            known = len(gaps) > 0
            lines.append(
                {
                    "id": row.id,
                    "better": p.better,
                    "worse": p.worse,
                    "models": len(gaps),
                    "gap": gaps.mean() if known else np.nan,
                    "gap_sd": gaps.std(ddof=1) if len(gaps) > 1 else np.nan,
                    "suspicion": sigmoid(-gaps).mean() if known else np.nan,
                    "flipped": bool(told[n].get("flipped", False)) if told else False,
                    "gold_gap": gold_gap(row.comparison, p.better, p.worse),
                }
            )
    table = pd.DataFrame(lines)
    return table.sort_values("suspicion", ascending=False, kind="stable", na_position="last", ignore_index=True)


def gold_gap(comparison: Comparison, better: int, worse: int) -> float:
    """NaN where gold is not known."""
    gold = comparison.gold
    return float("nan") if gold is None else gold[better] - gold[worse]


# ---- against what is known ----


def precision_recall(score: np.ndarray, flipped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(precision, recall) of the 1, 2, ... most suspicious; equal scores come together. score, flipped: (P,)."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.diff(score[order]) != 0, True)
    found = np.cumsum(flipped[order])[ends]
    taken = (np.arange(len(score)) + 1)[ends]
    return found / taken, found / flipped.sum()


def average_precision(score: np.ndarray, flipped: np.ndarray) -> float:
    """The precision at each flip that is found, on average."""
    precision, recall = precision_recall(score, flipped)
    return float((precision * np.diff(recall, prepend=0)).sum())
