"""The `rmlab-report` command: from the run directories of a study to report/{table.md,.tex,.csv,index.html,figures}."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab.messages import UserError
from rmlab.report.study import Study, load_study

if TYPE_CHECKING:  # imported by the task itself: --help must not wait for them
    import pandas as pd

    from rmlab.report.figures import Figure
    from rmlab.report.items import Items
    from rmlab.report.tables import Tables


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report of a study; exit status 2 for a UserError. arguments: None for those of the process."""
    parser = argparse.ArgumentParser(
        "rmlab-report", description="Tables and figures of a study, from its run directories."
    )
    parser.add_argument("study", type=Path, help="a folder of runs: runs/STUDY")
    parser.add_argument("--baseline", metavar="ARM", help="the arm that the others are compared with")
    parser.add_argument(
        "--tune",
        metavar="KEY",
        action="append",
        help="a nuisance value, such as trainer.learning_rate: each arm at its best; none: as many arms as values",
    )
    parser.add_argument("--out", type=Path, help="where to write; default: STUDY/report")
    parser.add_argument("--no-figures", action="store_true", help="only tables")
    parser.add_argument("--wandb", action="store_true", help="log the tables and figures to W&B, in the study's group")
    options = parser.parse_args(arguments)
    try:
        report(options)
    except UserError as error:
        print(f"rmlab-report: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


@dataclass
class Compared:
    """A study, the preferences that its runs scored by evaluation set, and the long table of their comparison.

    grid: the study before nuisance values were chosen, for the heat map.
    """

    study: Study
    items: dict[str, "Items"]
    rows: "pd.DataFrame"
    grid: Study


def report(options: argparse.Namespace) -> None:
    """Write tables, figures and page to --out and print their paths. UserError for a study with nothing to compare."""
    from rmlab.report.page import write_page
    from rmlab.report.tables import print_tables, readable, write_tables

    study = load_study(options.study, options.baseline, [] if options.tune == ["none"] else options.tune)
    folder = options.out or study.folder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    compared = compare_arms(study)
    study, title = compared.study, compared.study.question or f"Study {study.folder.name}"
    tables, facts = readable(compared.rows, study.baseline), facts_of(study, compared.items)
    write_tables(compared.rows, tables, title, facts, study.notes, folder)
    print_tables(tables, title, facts, study.notes)
    shutil.rmtree(folder / "figures", ignore_errors=True)  # of an earlier report, perhaps with another baseline
    figures: list[Figure] = []
    if not options.no_figures:
        from rmlab.report.figures import draw

        figures = draw(study, compared.items, compared.rows, folder / "figures", compared.grid)
    page = write_page(study, tables, figures, folder, facts, study.notes)
    if options.wandb:
        log_report(study, tables, figures, folder)
    for file in (folder / "table.md", folder / "table.tex", folder / "table.csv", folder / "figures", page):
        if file.exists():
            print(file)


def compare_arms(study: Study) -> Compared:
    """Every arm against the baseline, on every evaluation set; what a reader must know goes to the study's notes."""
    import pandas as pd

    from rmlab.report.compare import compare
    from rmlab.report.items import load_items, set_names
    from rmlab.report.tune import tuned

    if not set_names(study):
        raise UserError(f"{study.folder}: no run was evaluated; set data.eval or data.eval_fraction")
    items, grid = {name: load_items(study, name) for name in set_names(study)}, study
    if study.tune:
        study, items, chosen = tuned(study, items)
        study.notes.extend(chosen)
    study.notes.extend(
        f"{i.left_out:,} preferences of {name} were not scored by all runs and are left out: is there a run that does "
        "not belong here?"
        for name, i in items.items()
        if i.left_out
    )
    rows = pd.concat([compare(name, items[name], list(study.arms), study.baseline) for name in items])
    if (rows["pairs"] == 1).any():
        study.notes.append("a difference from one pair of seeds does not know what other seeds would give: no verdict")
    return Compared(study, items, rows, grid)


def facts_of(study: Study, items: dict[str, "Items"]) -> list[str]:
    """What a reader of the tables must know of how they were made."""
    return [
        f"Baseline: {study.baseline}. Evaluated on {'; '.join(size_of(name, i) for name, i in items.items())}.",
        "mean ± sd: over seeds. difference: to the baseline, on the same prompts and seeds. Its interval holds what "
        "other prompts and what other seeds would have given: prompts are resampled whole, the same for all runs "
        "(10,000 times), and the spread between seeds enters as Student's t.",
        "p: two-sided, from the same distribution, corrected over the arms of a table (Holm). detectable: the smallest "
        "true difference that this study would have found about four times in five.",
        "McNemar p: exact, per seed, then twice their mean, corrected (Holm); with the number of prompts on which the "
        "arm was right more often, and of those for the baseline, summed over seeds. It asks whether trained models "
        "differ, not whether other seeds would.",
    ]


def size_of(name: str, items: "Items") -> str:
    """`eval: 1,031 preferences on 1,000 prompts`, then how many do not count for accuracy or were left out, if any."""
    undecided = int((items.probability == 0.5).sum())
    return (
        f"{name}: {len(items.prompt):,} preferences on {items.prompt.max() + 1:,} prompts"
        + f", {undecided:,} undecided ones do not count for accuracy" * bool(undecided)
        + f", {items.left_out:,} left out that not all runs scored" * bool(items.left_out)
    )


def log_report(study: Study, tables: "Tables", figures: Sequence["Figure"], folder: Path) -> None:
    """One W&B run of the study's group, the same one at every report: tables, figures and the page."""
    import wandb

    settings = study.finished[0].config.get("logger", {})
    name = study.finished[0].config["study"]
    with wandb.init(
        project=settings.get("project", "rmlab"),
        entity=settings.get("entity"),
        group=name,
        name=f"{study.folder.name} report",
        id=f"{name}-report".replace("/", "-")[-64:],
        resume="allow",
        job_type="report",
        mode=settings.get("mode", "offline"),
        dir=str(folder),
        settings=wandb.Settings(silent=True),
    ) as tracker:
        logged: dict[str, Any] = {f"table/{title}": wandb.Table(dataframe=frame) for title, frame in tables}
        for figure in figures:
            logged[f"figure/{figure.name}"] = wandb.Image(str(folder / "figures" / f"{figure.name}.png"))
        logged["report"] = wandb.Html(str(folder / "index.html"))
        tracker.log(logged)


if __name__ == "__main__":
    main()
