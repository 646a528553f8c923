"""What a reader must know of the numbers of a report: how they were made, and what is peculiar about the data."""

from collections.abc import Mapping

import pandas as pd

from rmlab.report.items import Items
from rmlab.report.study import Study

MUCH = 0.1  # of all preferences, on one prompt


def facts_of(study: Study, items: Mapping[str, Items], rows: pd.DataFrame, suites: pd.DataFrame) -> list[str]:
    """What a reader of the tables must know of how they were made. rows, suites: of `compare`, of `compare_suites`."""
    tested = int((rows["p_holm"].notna() & (rows["metric"] == "accuracy")).sum())
    over = family(tested, "comparisons of a metric, all arms and sets together")
    facts = [
        f"Baseline: {study.baseline}. Evaluated on {'; '.join(size_of(name, i) for name, i in items.items())}.",
        "mean ± sd: over seeds. Every interval holds what other prompts and what other seeds would have given: prompts "
        "vary whole, with all their preferences, seeds by Student's t. difference: to the baseline, on the same "
        "prompts and seeds.",
        f"p: two-sided, from the same distribution, corrected (Holm) over {over}; "
        "not over the three metrics, nor over subsets, which get no verdict. none after Holm: "
        "the interval excludes zero, the corrected p does not call it.",
        "detectable: the smallest true difference that a study like this finds four times in five, at the level that "
        "the first of these comparisons must reach.",
        "McNemar p: exact, per seed, then twice their mean, corrected (Holm); with the number of prompts on which the "
        "arm was right more often, and of those for the baseline, summed over seeds. It asks whether trained models "
        "differ, not whether other seeds would.",
        "chance: equal rewards for all. longer wins: always the longer response.",
    ]
    if len(suites):
        tested = int(suites["p_holm"].notna().sum())
        over = family(tested, "comparisons of all arms and suites")
        facts.append(
            "Suites: a total is the weighted mean of the means of its subsets, as the authors of the suite weigh them; "
            "its interval varies prompts and seeds within subsets. p: of each suite's score, the first total, "
            f"corrected (Holm) over {over}, a family of their own."
        )
    if study.outside:
        files = "; ".join(f"{arm}: {file}" for arm, file in study.outside.items())
        facts.append(
            f"outside: scores that no run of this study made ({files}). They are paired with every run of an arm that "
            "has seeds: the interval holds what other seeds of that arm would have given, and nothing of how the "
            "outside model might have come out another time."
        )
    return facts


def family(tested: int, what: str) -> str:
    """What a correction is over: so many comparisons, one, or none (of single seeds)."""
    return f"the {tested} {what}" if tested > 1 else "nothing, being one" if tested else "nothing, for none is tested"


def size_of(name: str, items: Items) -> str:
    """`eval: 1,031 preferences on 1,000 prompts`, then how many do not count for accuracy or were left out, if any."""
    undecided = int((items.probability == 0.5).sum())
    return (
        f"{name}: {len(items.prompt):,} preferences on {items.prompt.max() + 1:,} prompts"
        + f", {undecided:,} undecided ones do not count for accuracy" * bool(undecided)
        + f", {items.left_out:,} left out that not all runs scored" * bool(items.left_out)
    )


def notes_of(items: Mapping[str, Items]) -> list[str]:
    """What is peculiar about the evaluation sets."""
    notes = [
        f"{i.left_out:,} preferences of {name} were not scored by all runs and are left out: is there a run that does "
        "not belong here?"
        for name, i in items.items()
        if i.left_out
    ]
    for name, of_set in items.items():
        share, prompts = of_set.largest
        if share > MUCH:
            notes.append(
                f"one prompt holds {share:.0%} of the preferences of {name}: they tell as much as {prompts:.0f} "
                "prompts of equal size would, and the intervals say so"
            )
    return notes
