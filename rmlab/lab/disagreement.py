"""Whether an ensemble is better than its members, and whether doubt knows the errors, from the scores of a study."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmlab.messages import UserError, check_at_least, say

if TYPE_CHECKING:  # imported by the task itself: --help must not wait for them
    import pandas as pd

    from rmlab.lab.beliefs import Belief
    from rmlab.report.study import Study

PARTS = (0.9, 0.75, 0.5)  # of the preferences, the least doubted, whose accuracy the table tells
BETAS = (0.0, 0.01, 0.2, 1.0)  # of RewardUQ's score, as it reports them


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `rmlab-lab disagreement`."""
    add = parser.add_argument
    add("study", type=Path, help="a folder of runs, runs/STUDY")
    add("--arm", help="only this one; default: every arm with two seeds, or a head that tells its doubt")
    add("--set", help="an evaluation set or suite; default: the first evaluation set")
    add("--c", type=float, default=1.0, help="of mean-std and mean-var; default: 1")
    add("--align", default="none", help="prompt: seeds have the same mean reward of a prompt's responses first")
    add("--width", type=float, default=1.0, metavar="SD", help="a gap of more is confident; default: 1")
    add("--out", type=Path, help="where to write; default: STUDY/lab")


def run(options: argparse.Namespace) -> None:
    """Write disagreement.{md,csv,png,pdf,svg} and ensembles.csv. UserError where nothing tells doubt."""
    from rmlab.lab.members import the_arm
    from rmlab.metrics.ensemble import check_reduce
    from rmlab.report.study import load_study

    check_reduce("mean", options.c, options.align)
    check_at_least("--width", options.width, 0)
    study = load_study(options.study)
    arms = [the_arm(study, options.arm)] if options.arm else list(study.arms)
    name = options.set or next(iter(study.finished[0].metrics["eval"]), "")
    beliefs = beliefs_of(study, arms, name)
    if not beliefs:
        raise UserError(
            f"{options.study}: no arm has two finished seeds, or a head that tells its doubt, with scores of {name!r}"
        )
    write(beliefs, name, options, options.out or options.study / "lab")


def beliefs_of(study: "Study", arms: Sequence[str], name: str) -> list["Belief"]:
    """Of each arm its seeds', then each run's own."""
    from rmlab.lab.beliefs import of_head, of_seeds
    from rmlab.report.diagnostics import scored_of, scored_runs

    found = list["Belief | None"]()
    for arm in arms:
        alone = replace(study, arms={arm: study.arms[arm]})  # what other arms have left out is no matter
        if not (scored := scored_of(alone, None, name).get(arm)):
            continue
        found.append(of_seeds(arm, scored))
        for each, comparisons in zip(scored_runs(study, arm, name), scored, strict=True):
            found.append(of_head(arm, each.seed, comparisons, each.config["model"].get("head") or {"linear": {}}))
    return [belief for belief in found if belief is not None]


def write(beliefs: Sequence["Belief"], name: str, options: argparse.Namespace, folder: Path) -> None:
    """The files, and the tables on the terminal."""
    import pandas as pd

    from rmlab.lab.coverage import save_figure
    from rmlab.report.tables import Words, markdown, print_tables

    reduced = [line for b in beliefs if b.members for line in reduced_lines(b, options.c, options.align)]
    found = [line for b in beliefs for line in detection_lines(b, options.width)]
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(reduced).to_csv(folder / "ensembles.csv", index=False)
    pd.DataFrame(found).to_csv(folder / "disagreement.csv", index=False)
    tables = tables_of(pd.DataFrame(reduced), pd.DataFrame(found))
    pairs = beliefs[0].pairs
    facts = f"{name}: {len(np.unique(pairs.prompt)):,} prompts, {int(pairs.decided.sum()):,} decided preferences."
    words = Words(f"Ensembles and doubt on {name}", [facts, *FACTS], [])
    (folder / "disagreement.md").write_text(markdown(tables, words), encoding="utf-8")
    print_tables(tables, words)
    save_figure(beliefs, folder, "disagreement")
    say(f"{folder}/disagreement.md, .csv, .png, .pdf, .svg and ensembles.csv")


FACTS = (
    "Ensembles: accuracy beside that of a member, on average; intervals are 95%, prompts drawn whole.",
    "Doubt: of sd, the standard deviation of members' gaps or what a head says; of a small gap, which one model has "
    "too; of gap / sd. AUROC: how likely an error is doubted more than what is right. Kept: accuracy of the 90, 75 and "
    "50% of preferences that are doubted least. Area: under error rate over coverage, less is better.",
)


# ---- numbers ----


def reduced_lines(belief: "Belief", c: float, align: str) -> list[dict[str, Any]]:
    """Accuracy, NLL and ECE of a member on average, then of all members as one in each way."""
    from rmlab.metrics.ensemble import REDUCE, together
    from rmlab.metrics.evaluate import preference_metrics
    from rmlab.metrics.pairs import Pairs, mean

    each = [Pairs.of(one) for one in belief.members]
    counted = each[0].decided
    right = np.mean([one.right[counted] for one in each], axis=0)
    of_each = [preference_metrics(one.gap, one.probability) for one in each]
    told = {key: float(np.mean([one[key] for one in of_each])) for key in ("accuracy", "nll", "ece")}
    lines = [{"arm": belief.arm, "of": belief.of, "reward": "of one member", **told}]
    for reduce in REDUCE:
        pairs = Pairs.of([together(those, reduce, c, align) for those in zip(*belief.members, strict=True)])
        more = mean(pairs.right[counted] - right, pairs.prompt[counted])
        told = {key: preference_metrics(pairs.gap, pairs.probability)[key] for key in told}
        difference = {"difference": more["value"], "diff_low": more.get("low"), "diff_high": more.get("high")}
        lines.append({"arm": belief.arm, "of": belief.of, "reward": reduce, **told, **difference})
    return lines


def detection_lines(belief: "Belief", width: float) -> list[dict[str, Any]]:
    """How each doubt finds errors: AUROC, beside that of a small gap; accuracy of what is kept; the area."""
    from rmlab.metrics.selective import area, auroc, auroc_difference, confidence_score, confident_rates, kept

    pairs, those = belief.pairs, belief.pairs.decided
    right, prompt = pairs.right[those], pairs.prompt[those]
    rates = confident_rates(pairs.gap[those], belief.sd[those], right, width)
    sure = {**rates, **{f"score_{beta:g}": confidence_score(rates, beta) for beta in BETAS}}
    lines = []
    for name, doubt in belief.doubts.items():
        found = auroc(doubt[those], right, prompt) or {}
        more = auroc_difference(doubt[those], belief.doubts["small gap"][those], right, prompt) or {}
        told = {"auroc": found.get("value"), "low": found.get("low"), "high": found.get("high")}
        if name != "small gap":
            told |= {"difference": more.get("value"), "diff_low": more.get("low"), "diff_high": more.get("high")}
        of_parts = {f"kept_{part:g}": kept(doubt[those], right, prompt, part)["value"] for part in PARTS}
        told |= {"accuracy": float(right.mean()), **of_parts, "area": area(doubt[those], right)}
        lines.append({"arm": belief.arm, "of": belief.of, "doubt": name, **told, **(sure if name == "sd" else {})})
    return lines


# ---- tables ----


def tables_of(reduced: "pd.DataFrame", found: "pd.DataFrame") -> list[Any]:
    """Cut for readers."""
    import pandas as pd

    from rmlab.report.tables import Table, difference, interval, number

    tables = []
    if len(reduced):
        lines = [
            {"arm": r["arm"], "of": r["of"], "reward": r["reward"], "accuracy": number(r["accuracy"]),
             "over a member [95% CI]": difference(r), "NLL": number(r["nll"]), "ECE": number(r["ece"])}
            for _, r in reduced.iterrows()
        ]  # fmt: skip
        tables.append(Table("Several as one", pd.DataFrame(lines), "arms"))
    lines = [
        {"arm": r["arm"], "of": r["of"], "doubt": r["doubt"],
         "AUROC [95% CI]": f"{number(r['auroc'])} {interval(r['low'], r['high'], '{:.4f}')}".strip(),
         "over a small gap [95% CI]": difference(r),
         **{f"kept {part:.0%}": number(r[f"kept_{part:g}"]) for part in (1.0, *PARTS)},
         "area": number(r["area"])}
        for _, r in found.assign(**{"kept_1": found["accuracy"]}).iterrows()
    ]  # fmt: skip
    tables.append(Table("Errors found by doubt", pd.DataFrame(lines), "arms"))
    sure = found[found["doubt"] == "sd"]
    lines = [
        {"arm": r["arm"], "of": r["of"], "confidently right": number(r["confident_true"]),
         "confidently wrong": number(r["confident_false"]),
         **{f"score, beta {beta:g}": number(r[f"score_{beta:g}"]) for beta in BETAS}}
        for _, r in sure.iterrows()
    ]  # fmt: skip
    return [*tables, Table("Confident where the gap exceeds its sd", pd.DataFrame(lines), "arms")]
