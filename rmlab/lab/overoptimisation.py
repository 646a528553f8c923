"""Where gold falls while the proxy rises: best-of-n of every arm of a study, and of ensembles of its seeds."""

import argparse
from pathlib import Path

from rmlab.messages import check_at_least

WORDS = (
    "Gains over a random answer, in standard deviations of an answer within its prompt, so that gold and proxy have "
    "one unit. 95% intervals over prompts and seeds; of an ensemble, which is one model, over prompts.",
    "alpha, beta: R(d) = d (alpha - beta d), d = sqrt(KL), least squares on gold, and the share of variance that it "
    "explains; peak: alpha / (2 beta), by the delta method; d ends at {d:.2f} (n = {n}).",
    "best n: that of the most gold, bootstrap of prompts and seeds. N less N/4: gold at the largest n less that at a "
    "quarter of it; an interval below 0 says that gold falls.",
    "recovery: the gain of the pick over that of choosing by gold, at N. gamma: int |gold - proxy| / int gold over KL.",
    "Ensembles: members centred on each prompt's answers, with one standard deviation within prompts.",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command line."""
    parser.add_argument("study", type=Path, nargs="+", help="a folder of runs, runs/STUDY, or several as one")
    parser.add_argument("--set", metavar="NAME", help="the evaluation set to choose from; default: the first with gold")
    parser.add_argument("--gold", type=Path, metavar="FILE", help="true rewards: scores of a larger model, by id")
    parser.add_argument("--c", type=float, default=0.5, help="what variance costs in UWO, mean - c var; default: 0.5")
    parser.add_argument("--exclude", metavar="ARM", action="append", default=[], help="leave out an arm, or a run")
    parser.add_argument("--out", type=Path, help="where to write; default: STUDY/lab")


def run(options: argparse.Namespace) -> None:
    """Write curves.csv, overoptimisation.csv and .md and the figure, then print the table."""
    check_at_least("--c", options.c, 0)
    from rmlab.lab.drawn import draw_overoptimisation
    from rmlab.lab.optimised import curves_table, markdown, pool_of, proxies, summary
    from rmlab.report.study import load_study

    study = load_study(options.study, exclude=options.exclude)
    name, scored = pool_of(study, options.set, options.gold)
    found = proxies(scored, options.c)
    folder = options.out or study.folders[0] / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    curves = curves_table(found)
    curves.to_csv(folder / "curves.csv", index=False)
    summary(found).to_csv(folder / "overoptimisation.csv", index=False)
    last = found[0].gains
    words = [word.format(d=last.d[-1], n=last.n[-1]) for word in WORDS]
    table = markdown(found, f"{study.title} ({name})", [*words, *study.notes])
    (folder / "overoptimisation.md").write_text(table, encoding="utf-8")
    draw_overoptimisation(found, curves, folder)
    print(table)
    for file in ("overoptimisation.md", "overoptimisation.csv", "curves.csv", "overoptimisation.png"):
        print(folder / file)
