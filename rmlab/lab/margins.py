"""Rows with the strength of their preferences as an ensemble sees it (2401.06080, 3.2): the adaptive margin's data."""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmlab.messages import UserError, pair_of, say

if TYPE_CHECKING:  # which imports torch
    from rmlab.scoring.ensemble import Ensemble

PAIR = ("score_chosen", "score_rejected")  # say what margin says, so that they go


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `rmlab-lab margins`."""
    add = parser.add_argument
    add("model", nargs="+", help="run directories, saved models, adapters or hub names: two at least")
    add("data", help="preferences: a jsonl, json or parquet file, a folder or a hub name")
    add("-o", "--out", type=Path, required=True, help="the same rows, a jsonl file")
    add("--clip", type=float, nargs=2, metavar=("LOW", "HIGH"), help="margins beyond are these; default: as they are")
    add("--split", default="train", help="of a folder or a data set on the hub; default: train")
    add("--columns", default=[], metavar="NAME=VALUE", action="append", help="rmlab's NAME is the column VALUE")
    add("--device", help="default: the accelerator, if there is one")


def run(options: argparse.Namespace) -> None:
    """Write --out. UserError for fewer than two models, and for a row that states no preference."""
    from rmlab.data.streams import row_stream
    from rmlab.scoring.ensemble import Ensemble

    low, high = options.clip or (-np.inf, np.inf)
    if len(options.model) < 2:
        raise UserError("give two models at least, whose gaps are the margins")
    if not low < high:
        raise UserError(f"--clip {low:g} {high:g}: the first number must be below the second")
    if options.out.suffix != ".jsonl":
        raise UserError(f"{options.out}: rows are written as jsonl; call it so")
    stream = row_stream(options.data, options.split, dict(pair_of(text, "--columns") for text in options.columns))
    stream.checked(options.data)
    ensemble = Ensemble.load(options.model, device=options.device)
    with_margins(ensemble, stream.rows(), stream.rows(), options.data, options.out, (low, high))


def with_margins(
    ensemble: "Ensemble",
    rows: Iterable[Mapping[str, Any]],
    again: Iterable[Mapping[str, Any]],
    name: str,
    place: Path,
    clip: tuple[float, float],
) -> None:
    """Write the rows to `place`. again: the same rows, which are read twice side by side; name: of them, for errors."""
    from rmlab.data.columns import where_of
    from rmlab.files import replacing

    margins = list[float]()
    with replacing(place) as scratch, scratch.open("w", encoding="utf-8") as sink:
        for n, (row, added) in enumerate(zip(again, strengths(ensemble, rows, name, clip), strict=True)):
            margins += [each["strength"] for each in added]
            sink.write(json.dumps(stated(row, added, where_of(name, n)), ensure_ascii=False, default=str) + "\n")
    negative = np.mean(np.array(margins) < 0)
    say(f"{place}: {len(margins):,} margins, mean {np.mean(margins):.3f}, {negative:.1%} of them negative")


def strengths(
    ensemble: "Ensemble", rows: Iterable[Mapping[str, Any]], name: str, clip: tuple[float, float]
) -> Iterator[list[dict[str, Any]]]:
    """Of each row its preferences: better, worse, probability, strength (the mean gap of the members), its sd."""
    from rmlab.data.columns import where_of
    from rmlab.metrics.evaluate import sides

    for each in ensemble.each(rows, name):
        first = each[0]
        if not first.better:
            raise UserError(f"{where_of(name, first.index)}: it states no preference, which could have a margin")
        gaps = np.stack([np.subtract(*sides([one], [one.rewards])) for one in each])
        columns = {
            "better": first.better,
            "worse": first.worse,
            "probability": first.probability,
            "strength": gaps.mean(0).clip(*clip).tolist(),
            "margin_sd": gaps.std(0, ddof=1).tolist(),
        }
        yield [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def stated(row: Mapping[str, Any], added: Sequence[Mapping[str, Any]], where: str) -> dict[str, Any]:
    """The row with them: of one chosen and one rejected as `margin` and `margin_sd`, else as `preferences`.

    What else a preference says, such as its weight, it still says; gold that was read of scores is `gold_rewards`.
    """
    from rmlab.data.pairs import SIDES, sides_are_lists
    from rmlab.data.rows import decisive, to_comparison

    several = sides_are_lists(row)
    if not several and decisive(row) is None:
        (one,) = added
        margin = one["strength"] if one["better"] == 0 else -one["strength"]
        return {**{k: v for k, v in row.items() if k not in PAIR}, "margin": margin, "margin_sd": one["margin_sd"]}
    comparison = to_comparison(row, where)
    kept = {k: v for k, v in row.items() if not several or k not in {*SIDES, *PAIR, "margin", "probability"}}
    if several:
        kept |= {"prompt": comparison.prompt, "responses": comparison.responses}
    if comparison.gold is not None:
        kept["gold_rewards"] = comparison.gold
    said = row["preferences"] if decisive(row) == "preferences" else [{}] * len(comparison.preferences)
    left, preferences = list(added), list[dict[str, Any]]()
    for given, p in zip(said, comparison.preferences, strict=True):
        if left and (left[0]["better"], left[0]["worse"]) == (p.better, p.worse):  # else of equal responses: left out
            preferences.append({**given, **left.pop(0)})
    return {**kept, "preferences": preferences}
