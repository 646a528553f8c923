"""Which training labels are likely wrong, by models that have not trained on them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab.messages import UserError, check_one_of, say

if TYPE_CHECKING:
    import pandas as pd

    from rmlab.lab.suspects import Row
    from rmlab.report.runs import Run

WORDS = (
    "suspicion: the mean probability, over models that have not trained on the pair, that the opposite label is right; "
    "their gaps are divided by the temperature that suits their held-out labels.",
    "AP: average precision, with which flips are found; by chance it is their share. in-sample: by models that have "
    "trained on the pair. by gold: by the true rewards, which nothing beats: an annotator "
    "may say the opposite unflipped.",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command line."""
    parser.add_argument("study", type=Path, nargs="+", help="a folder of runs that hold out other parts of the rows")
    parser.add_argument("--in-sample", action="store_true", help="score, too, what each model has trained on")
    parser.add_argument(
        "--write",
        nargs=2,
        metavar=("HOW", "OUT.jsonl"),
        help="the rows again; HOW: down-weight (by 1 - suspicion), flip or drop (where suspicion is above 0.5)",
    )
    parser.add_argument("--share", type=float, metavar="SHARE", help="flip or drop so large a share of preferences")
    parser.add_argument("--exclude", metavar="ARM", action="append", default=[], help="leave out an arm, or a run")
    parser.add_argument("--out", type=Path, help="where to write; default: STUDY/lab")


def run(options: argparse.Namespace) -> None:
    """Write suspects.csv, noise.md and, where flips are known, noise.csv and the figure; print the table."""
    from rmlab.lab.cleaned import HOW, write_cleaned
    from rmlab.lab.suspects import by_rows
    from rmlab.report.study import load_study

    if options.write:
        check_one_of("--write", options.write[0], HOW)
    if options.share is not None and not 0 < options.share < 1:
        raise UserError(f"--share is {options.share}; it must be between 0 and 1")
    if options.share is not None and (options.write or ["down-weight"])[0] == "down-weight":
        raise UserError("--share is of --write flip and --write drop; leave it out")
    study = load_study(options.study, exclude=options.exclude)
    groups = by_rows(study.finished)
    if options.write and len(groups) > 1:
        raise UserError(f"--write is of one set of rows, and these runs have {len(groups)}: {'; '.join(groups)}")
    folder = options.out or study.folders[0] / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: examined(name, runs, options.in_sample) for name, runs in groups.items()}
    print(report(found, folder, study.title))
    if options.write:
        (rows, table) = next(iter(found.values()))
        how, out = options.write[0], Path(options.write[1])
        changed, written = write_cleaned(rows, table, how, options.share, out)
        say(f"{out}: {written:,} of {len(rows):,} rows, {how} of {changed:,} of {len(table):,} preferences")


def examined(name: str, runs: "Sequence[Run]", in_sample: bool) -> "tuple[list[Row], pd.DataFrame]":
    """(the rows that the runs have split, their preferences with a suspicion)."""
    from rmlab.lab.suspects import HELD_OUT, calibrated, suspects, training_rows

    rows = training_rows(runs[0])
    held_out = [run.out.scores(HELD_OUT).comparisons() for run in runs]
    panel = [calibrated(scored) for scored in held_out]
    table = suspects(rows, panel)
    if not table["models"].any():
        raise UserError(f"{name or 'the study'}: no training pair is held out of any run; sweep data.split_seed")
    if in_sample:
        trained = [own_gaps(run, rows, one) for run, one in zip(runs, panel, strict=True)]
        of_own = suspects(rows, trained).set_index(["id", "better", "worse"])["suspicion"]
        of_own = of_own[~of_own.index.duplicated()]  # several may have stated the same
        table = table.join(of_own.rename("in_sample"), on=["id", "better", "worse"])
    texts = {c.id: c.excerpts for scored in held_out for c in scored if c.excerpts}
    return rows, with_texts(table, texts)


def own_gaps(run: "Run", rows: "Sequence[Row]", held_out: Any) -> dict[Any, float]:
    """Of the preferences that the run has trained on, by the model that it has kept."""
    from transformers.utils import logging as hf_logging

    from rmlab.lab.suspects import gaps_of
    from rmlab.scoring.reward_model import RewardModel

    hf_logging.disable_progress_bar()  # of loading weights
    known = {key[0] for key in held_out}
    those = [{**row.row, "id": row.id} for row in rows if row.id not in known]
    scored = list(RewardModel(str(run.out)).scored(those, run.out.name, texts=False))
    return {key: gap for key, gap, _ in gaps_of(scored)}


def with_texts(table: "pd.DataFrame", texts: dict[str, list[str]]) -> "pd.DataFrame":
    """With the beginnings of prompt, better and worse response, where they are kept."""
    told = [
        (texts[i][0], texts[i][1 + b], texts[i][1 + w]) if i in texts else ("", "", "")
        for i, b, w in zip(table["id"], table["better"], table["worse"], strict=True)
    ]
    return table.assign(**dict(zip(("prompt", "better_text", "worse_text"), zip(*told, strict=True), strict=True)))


def report(found: "dict[str, tuple[list[Row], pd.DataFrame]]", folder: Path, title: str) -> str:
    """The files of every set of rows; returns the table to be read."""
    import pandas as pd

    from rmlab.lab.noise_tables import against_flips, draw_noise, markdown

    tables = {name: table for name, (_, table) in found.items()}
    together = pd.concat([table.assign(rows=name) if name else table for name, table in tables.items()])
    known = together["flipped"].any()
    kept = together if known else together.drop(columns="flipped")
    kept.dropna(axis=1, how="all").to_csv(folder / "suspects.csv", index=False)
    told = markdown(tables, title, WORDS)
    (folder / "noise.md").write_text(told, encoding="utf-8")
    if known:
        against_flips(tables).to_csv(folder / "noise.csv", index=False)
        draw_noise(tables, folder)
    return told + f"\n{folder / 'suspects.csv'}\n{folder / 'noise.md'}"
