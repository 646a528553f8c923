"""The `rmlab-report` command: from the run directories of a study to report/{table.md,.tex,.csv,index.html,figures}."""

import argparse
import functools
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab.commands.report_options import columns_of, pairs_of, parser, refuse_contradictions
from rmlab.messages import UserError, did_you_mean
from rmlab.report.runs import apart
from rmlab.report.study import Study, load_study

if TYPE_CHECKING:  # imported by the task itself: --help must not wait for them
    import pandas as pd

    from rmlab.report.diagnostics import Scored
    from rmlab.report.figures import Figure
    from rmlab.report.items import Items
    from rmlab.report.power_law import PowerLaw
    from rmlab.report.tables import Tables, Words

TABLES = ("table.md", "table.tex", "table_short.tex", "table.csv")
MORE = ("effects.csv", "suites.csv", "claims.csv", "power_laws.csv", "flips.csv")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report of a study; exit status 2 for a UserError. arguments: None for those of the process."""
    options = parser().parse_args(arguments)
    try:
        report(options)
    except UserError as error:
        print(f"rmlab-report: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # `| head` has seen enough; the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass
class Compared:
    """A study, the preferences that its runs scored by evaluation set, and the tables of their comparison.

    rows: of `compare`; effects, flips: of the functions of these names; suites: of `compare_suites`; claims: of
    `judged`; laws: of `power_laws`. scored: by set, of `scored_of`. grid: the study before nuisance values were chosen,
    for the heat map.
    """

    study: Study
    items: dict[str, "Items"]
    rows: "pd.DataFrame"
    effects: "pd.DataFrame"
    flips: "pd.DataFrame"
    suites: "pd.DataFrame"
    claims: "pd.DataFrame"
    laws: "list[PowerLaw]"
    scored: dict[str, "Scored"]
    tables: "Tables"
    grid: Study


def report(options: argparse.Namespace) -> None:
    """Write tables, figures and page to --out, then print. UserError for a study with nothing to compare."""
    from rmlab.report.facts import facts_of
    from rmlab.report.page import write_page
    from rmlab.report.power_law import power_law_facts
    from rmlab.report.published import claims_facts
    from rmlab.report.tables import Words, print_tables

    refuse_contradictions(options)
    compared = compare_arms(options)
    study = compared.study
    folder = options.out or where(study)
    facts = facts_of(study, compared.items, compared.rows, compared.suites)
    words = Words(
        study.title, [*facts, *claims_facts(study, compared.claims), *power_law_facts(compared.laws)], study.notes
    )
    shutil.rmtree(folder / "figures", ignore_errors=True)  # of an earlier report, perhaps with another baseline
    folder.mkdir(parents=True, exist_ok=True)
    write_tables(compared, words, folder)
    figures: list[Figure] = []
    if not options.no_figures:
        from rmlab.report.figures import draw

        of_items = (study, compared.items, compared.rows, folder / "figures", compared.grid, options.width)
        figures = draw(*of_items, compared.suites, compared.scored, compared.laws)
    page = write_page(study, compared.tables, figures, folder, words)
    if options.wandb:
        log_report(study, compared.tables, figures, folder)
    print_tables(compared.tables, words)
    for file in (*(folder / name for name in (*TABLES, *MORE, "figures")), page):
        if file.exists():
            print(file)
    sys.stdout.flush()


def where(study: Study) -> Path:
    """The folder of the report: in the study's own, beside several; NAME-report here where there is none."""
    if not study.folders:
        return Path(f"{study.name}-report")
    first = study.folders[0]
    if len(study.folders) == 1:
        return first / "report"
    return first.parent / "+".join(folder.name for folder in study.folders) / "report"


def compare_arms(options: argparse.Namespace) -> Compared:
    """Every arm against the baseline, on every evaluation set; what a reader must know goes to the study's notes."""
    from rmlab.report.compare import compare, references_of
    from rmlab.report.configs import arms_table
    from rmlab.report.diagnostics import diagnostics_table, scored_of
    from rmlab.report.factorial import effects
    from rmlab.report.facts import notes_of
    from rmlab.report.flips import flips, flips_tables
    from rmlab.report.items import presented
    from rmlab.report.power_law import power_law_tables, power_laws
    from rmlab.report.published import judged, published_tables
    from rmlab.report.suite_tables import suite_tables
    from rmlab.report.suites import compare_suites, load_suites
    from rmlab.report.tables import effects_tables, readable

    study, grid, items, texts = gathered(options)
    study, items = presented(study, items, pairs_of(options.rename), [arm for arm in options.order.split(",") if arm])
    rows = compare(items, list(study.arms), study.baseline)
    rows = rows[rows["mean"].notna() | ~rows["arm"].isin(study.outside)]  # of a judge, an accuracy alone
    study.notes.extend(notes_of(items))
    if (rows["pairs"] == 1).any():
        study.notes.append("a difference from one pair of seeds does not know what other seeds would give: no verdict")
    found = effects(study, items)
    flipped = flips(items, list(study.arms), study.baseline)
    of_suites = load_suites(study)
    suites = compare_suites(of_suites, list(study.arms), study.baseline)
    sets = {**dict.fromkeys(of_suites), **items}
    scored = {name: of for name, of_set in sets.items() if (of := scored_of(study, of_set, name))}
    claims = judged(study, items, of_suites)
    tables = [*readable(rows, references_of(items), study.baseline), *published_tables(study, claims)]
    laws = power_laws(study, items, options.power_law)
    tables += [*power_law_tables(laws), *effects_tables(found)]
    tables += diagnostics_table(study, scored)
    tables += [*suite_tables(suites, study.baseline), *flips_tables(flipped, texts, len(items) > 1), *arms_table(study)]
    return Compared(
        study, items, rows, found, flipped, suites, claims, laws, scored, tables, grid if study.tune else study
    )


def gathered(
    options: argparse.Namespace,
) -> tuple[Study, Study, dict[str, "Items"], Callable[[str], "pd.DataFrame | None"]]:
    """(the study with the arms to compare, the same before nuisance values were chosen, its items, texts of a set)."""
    from rmlab.report.gold import gold_items, gold_study
    from rmlab.report.items import load_items, set_names, texts_of_set
    from rmlab.report.outside import asked_of, with_outside
    from rmlab.report.tune import tuned

    outside = {one.name for one in asked_of(options.scores)}
    if options.gold:
        study = gold_study(options.gold)
        items, known = gold_items(options.gold, columns_of(options.columns))
        study, sets = with_outside(study, {study.name: items}, asked_of(options.scores), lambda _: known)
        return with_baseline(study, options.baseline), study, sets, lambda _: known
    tune = [] if options.tune == ["none"] else options.tune
    baseline = None if options.baseline in outside else options.baseline
    study = load_study(options.study, baseline, tune, options.exclude)
    if not set_names(study):
        raise UserError(f"{study.name}: no run was evaluated; set data.eval or data.eval_fraction")
    loaded, grid = {name: load_items(study, name) for name in set_names(study)}, study
    texts, sets = functools.partial(texts_of_set, loaded), loaded
    if study.tune:
        study, sets, chosen = tuned(study, sets)
        study.notes.extend(chosen)
    study, sets = with_outside(study, sets, asked_of(options.scores, list(sets)), texts)
    return with_baseline(study, options.baseline) if options.baseline in outside else study, grid, sets, texts


def with_baseline(study: Study, asked: str | None) -> Study:
    """The study compared with those scores from outside; None: the first. UserError for a name that is none."""
    if asked is not None and asked not in study.outside:
        raise UserError(f"--baseline: no arm {asked!r}{did_you_mean(asked, study.outside)}")
    wrong = apart(study.arms, study.baseline) if study.runs else []  # what is told of another baseline
    notes = [note for note in study.notes if note not in wrong]
    return replace(study, baseline=asked or next(iter(study.outside)), notes=notes)


def write_tables(compared: Compared, words: "Words", folder: Path) -> None:
    """table.csv (every number), effects.csv, suites.csv, flips.csv, table.md, table.tex and table_short.tex."""
    from rmlab.report.latex import long_tables, short_tables
    from rmlab.report.power_law import law_rows
    from rmlab.report.tables import markdown, write_csv

    study = compared.study
    write_csv(compared.rows, folder / "table.csv")
    more = {"effects": compared.effects, "suites": compared.suites, "flips": compared.flips}
    for name, table in {**more, "claims": compared.claims, "power_laws": law_rows(compared.laws)}.items():
        (folder / f"{name}.csv").unlink(missing_ok=True)  # of an earlier report
        if len(table):
            table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "table.md").write_text(markdown(compared.tables, words), encoding="utf-8")
    (folder / "table.tex").write_text(long_tables(compared.tables, words, study.name), encoding="utf-8")
    short = short_tables(compared.rows, study.baseline, study.name)
    (folder / "table_short.tex").write_text(short, encoding="utf-8")


def log_report(study: Study, tables: "Tables", figures: Sequence["Figure"], folder: Path) -> None:
    """One W&B run of the study's group, the same one at every report: tables, figures and the page."""
    import wandb

    settings = study.finished[0].config.get("logger", {})
    name = study.finished[0].config["study"]
    with wandb.init(
        project=settings.get("project", "rmlab"),
        entity=settings.get("entity"),
        group=name,
        name=f"{study.name} report",
        id=f"{name}-report".replace("/", "-")[-64:],
        resume="allow",
        job_type="report",
        mode=settings.get("mode", "offline"),
        dir=str(folder),
        settings=wandb.Settings(silent=True),
    ) as tracker:
        logged: dict[str, Any] = {f"table/{table.title}": wandb.Table(dataframe=table.cells) for table in tables}
        for figure in figures:
            logged[f"figure/{figure.name}"] = wandb.Image(str(folder / "figures" / f"{figure.name}.png"))
        logged["report"] = wandb.Html(str(folder / "index.html"))
        tracker.log(logged)


if __name__ == "__main__":
    main()
