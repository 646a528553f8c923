"""What `rmlab-report` can be told on its command line."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmlab.messages import UserError, first_line


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    told = argparse.ArgumentParser(
        "rmlab-report", description="Tables and figures of a study, or of several as one, from their run directories."
    )
    told.add_argument("study", type=Path, nargs="*", help="a folder of runs, runs/STUDY, or a folder of studies")
    told.add_argument(
        "--scores",
        metavar="[SET:]NAME=FILE",
        action="append",
        default=[],
        help="scores of others as an arm NAME: rewards or verdicts, as rmlab-score, a judge or a publication has them",
    )
    told.add_argument("--gold", metavar="DATA", help="without a study: preferences that --scores are compared on")
    told.add_argument(
        "--columns",
        metavar="NAME=THEIRS",
        action="append",
        default=[],
        help="of --gold: how rmlab's NAME is called there",
    )
    told.add_argument(
        "--baseline", metavar="ARM", help="the arm that the others are compared with; default: the first made"
    )
    told.add_argument(
        "--tune",
        metavar="KEY",
        action="append",
        help="a nuisance value, such as trainer.learning_rate: each arm at its best; none: as many arms as values",
    )
    told.add_argument(
        "--power-law",
        metavar="KEY",
        help="fit a N^-b + c to losses over this key's values; default: data.max_rows, where it varies",
    )
    told.add_argument(
        "--exclude", metavar="ARM", action="append", default=[], help="leave out an arm, or a run by its directory"
    )
    told.add_argument("--rename", metavar="OLD=NEW", action="append", default=[], help="what to call an arm")
    told.add_argument("--order", metavar="ARM,ARM", default="", help="arms in this order, after the baseline")
    told.add_argument("--out", type=Path, help="where to write; default: STUDY/report, A+B/report for several")
    told.add_argument(
        "--width", type=float, default=397, metavar="POINTS", help="of figures across a page; default: 397"
    )
    told.add_argument("--no-figures", action="store_true", help="only tables")
    told.add_argument("--wandb", action="store_true", help="log the tables and figures to W&B, in the study's group")
    return told


def refuse_contradictions(options: argparse.Namespace) -> None:
    """UserError unless there is a study, or data with scores of it."""
    if options.study and options.gold:
        raise UserError("--gold is for scores without a study; leave out one of both")
    if not options.study and not (options.gold and options.scores):
        raise UserError(
            "give a study, for example runs/losses, or scores and what they are of: --scores NAME=FILE --gold DATA"
        )
    if options.columns and not options.gold:
        raise UserError("--columns is of --gold; a study's rows are read already, leave it out")
    if not options.study and options.wandb:
        raise UserError("--wandb logs to a study's group, and there is no study; leave it out")


def columns_of(texts: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE as name and value of YAML, so that null and lists can be said. UserError for no pair."""
    import yaml

    try:
        found = {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in texts)}
    except yaml.YAMLError as error:
        raise UserError(f"--columns: a value is no YAML ({first_line(error)}); say NAME=THEIRS") from error
    if not all(name and "=" in text for name, text in zip(found, texts, strict=False)):
        raise UserError(f"--columns {' '.join(texts)!r}: say NAME=THEIRS")
    return found


def pairs_of(rename: Sequence[str]) -> dict[str, str]:
    """OLD=NEW as old -> new, at the last `=`, for names of arms have some. UserError for one without."""
    for text in rename:
        if not all(text.rpartition("=")[::2]):
            raise UserError(f"--rename {text!r}: say OLD=NEW")
    return {old: new for old, _, new in (text.rpartition("=") for text in rename)}
