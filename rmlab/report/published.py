"""What a paper has published beside what these runs say: its table, and a verdict on each of its claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rmlab.report.arms import label
from rmlab.report.compare import seed_noise
from rmlab.report.items import METRICS, Items, OfRuns
from rmlab.report.statistics import LEVEL, detectable, estimate, holm
from rmlab.report.study import Study
from rmlab.report.suites import SuiteItems
from rmlab.report.tables import Table, Tables, detectable_in_words, difference, known, p_value
from rmlab.runner.published import Claim, Measure, Published

COLUMNS = [
    *("claim", "measured", "arm", "other", "column", "sign", "published", "n", "pairs"),
    *("difference", "diff_low", "diff_high", "p", "p_holm", "detectable", "verdict", "why"),
]


@dataclass(frozen=True)
class Measured(OfRuns):
    """R runs, I items. values (R, I): what each item counts for; prompt (I,); words: what was measured, on what."""

    arm: np.ndarray
    seed: np.ndarray
    values: np.ndarray
    prompt: np.ndarray
    words: str
    shares: bool  # whether an item counts 0, a half or 1


def judged(study: Study, items: Mapping[str, Items], suites: Mapping[str, SuiteItems]) -> pd.DataFrame:
    """A row per claim of `study.published`, in its order; no rows where nothing is published.

    difference, diff_low, diff_high, p: of the two arms of the claim, on the same items and seeds, whose number is
    `pairs`. p_holm: corrected over all claims together. verdict: `agrees` or `disagrees` where p_holm < 0.05, else
    `cannot tell`, and detectable is what the study would have found; `one seed` has no p; `not run` says why.
    published: the same difference in the paper, in its units.
    """
    told = study.published
    rows = [row_of(claim, told, study, items, suites) for claim in told.stated()] if told else []
    family = [row for row in rows if row.get("pairs", 0) > 1 and not np.isnan(row["p"])]
    for row, corrected in zip(family, holm([row["p"] for row in family]), strict=True):
        row["p_holm"] = corrected
        as_told = "agrees" if row["difference"] * row["sign"] > 0 else "disagrees"
        row["verdict"] = as_told if corrected < LEVEL else "cannot tell"
        noise = row["noise"]
        row["detectable"] = detectable(row["spread"], 2 * noise.variance, noise.freedom, len(family))
    return pd.DataFrame(rows, columns=COLUMNS)


def row_of(
    claim: Claim, told: Published, study: Study, items: Mapping[str, Items], suites: Mapping[str, SuiteItems]
) -> dict[str, Any]:
    """What these runs say of one claim, uncorrected; beside the columns: spread and noise, for `detectable`."""
    row: dict[str, Any] = {"claim": claim.text, "column": claim.column, "sign": claim.sign}
    row |= {"published": told.difference(claim), "verdict": "not run", "why": "", "pairs": 0}
    arms = [arm_called(name, study) for name in (claim.arm, claim.other)]
    missing = [name for name, arm in zip((claim.arm, claim.other), arms, strict=True) if arm is None]
    found = measured(told.columns[claim.column], items, suites)
    if missing or isinstance(found, str):
        return row | {"why": f"there is no arm {missing[0]}" if missing else found}
    row |= {"measured": found.words, "arm": arms[0], "other": arms[1], "n": len(found.prompt)}
    mine, theirs = found.paired(str(arms[0]), str(arms[1]))
    if not mine:
        return row | {"why": "the two arms have no seed in common"}
    paired = estimate(found.values[mine] - found.values[theirs], found.prompt, spare=int(found.shares))
    row |= {"difference": paired.value, "diff_low": paired.low, "diff_high": paired.high, "pairs": len(mine)}
    row |= {"p": paired.p, "spread": paired.spread, "noise": seed_noise(found, found.values, list(study.arms))}
    return row | {"verdict": "one seed" if len(mine) == 1 else "cannot tell"}


def arm_called(name: str, study: Study) -> str | None:
    """The arm of that name, renamed or not; else the only one whose name has these words, or words that begin so.

    None: there is none, or several.
    """
    names = {label(values, study.usual): arm for arm, values in study.values.items()} | {arm: arm for arm in study.arms}
    if name in names:
        return names[name]
    words = name.split()
    found = {arm for text, arm in names.items() if set(words) <= set(text.split())}
    found = found or {
        arm for text, arm in names.items() if all(any(t.startswith(word) for t in text.split()) for word in words)
    }
    return found.pop() if len(found) == 1 else None


def measured(measure: Measure, items: Mapping[str, Items], suites: Mapping[str, SuiteItems]) -> Measured | str:
    """What stands for a column, of all runs; or why it is not to be had."""
    if measure.suite and measure.suite in suites:
        return of_suite(suites[measure.suite], measure)
    if measure.number:
        return f"no run was scored on the suite {measure.suite}"
    name = measure.set or next(iter(items), "")
    if name not in items:
        return f"there is no evaluation set {name}"
    return of_set(items[name], name, measure)


def of_suite(suite: SuiteItems, measure: Measure) -> Measured | str:
    """A total or subset of a suite, its score by default."""
    wanted = [number for number in suite.numbers if number[1] == measure.number] if measure.number else [suite.score]
    if not wanted or wanted[0] is None:
        return f"suite {measure.suite} has no {measure.number or 'score'}"
    values, prompt = suite.of(wanted[0])
    return Measured(suite.arm, suite.seed, values, prompt, f"{measure.suite}: {wanted[0][1]}", True)


def of_set(items: Items, name: str, measure: Measure) -> Measured | str:
    """A metric of an evaluation set or of a part of it."""
    if measure.subset and measure.subset not in items.subset:
        return f"{name} has no subset {measure.subset}"
    part, words = items.of_subset(measure.subset) if measure.subset else items, f"{measure.metric} on {name}"
    words += f", {measure.subset}" if measure.subset else ""
    values, stays = values_of(part, measure.metric), np.full(len(part.prompt), True)
    if measure.strength:
        low, high = measure.strength[0], measure.strength[-1]
        stays = (part.strength >= low - 1e-6) & (part.strength <= high + 1e-6)  # strengths are float32
        words += f", strength {low:g}" + (f" to {high:g}" if high > low else "")
    stays &= ~np.isnan(values).any(axis=0)
    if len(np.unique(part.prompt[stays])) < 2:
        return f"fewer than two prompts have {words}"
    words += f" ({stays.sum():,})"
    return Measured(part.arm, part.seed, values[:, stays], part.prompt[stays], words, measure.metric == "accuracy")


def values_of(items: Items, metric: str) -> np.ndarray:
    """(R, I) what each preference counts for; see `Measure`."""
    if metric == "gap":
        return items.gap
    if metric == "offset":
        return np.abs(items.better + items.worse) / 2
    return items.values()[:, METRICS.index(metric)]


# ---- tables ----


def published_tables(study: Study, claims: pd.DataFrame) -> Tables:
    """The paper's own table, where numbers are known, and its claims with our verdicts; claims: of `judged`."""
    told = study.published
    if told is None:
        return []
    tables = Tables()
    if told.arms:
        lines = [published_line(name, numbers, told, study) for name, numbers in told.arms.items()]
        cells = pd.DataFrame(lines, columns=["arm", *told.columns])
        tables.append(Table(f"Published: {told.citation} ({told.metric}; {told.evidence})", cells, "published"))
    if len(claims):
        cells = pd.DataFrame([claim_cells(row) for _, row in claims.iterrows()])
        tables.append(Table(f"Claims of {told.citation}, and what these runs say", cells, "claims"))
    return tables


def published_line(name: str, numbers: Sequence[float | None], told: Published, study: Study) -> list[str]:
    """An arm of the paper by the name it has here, and its numbers with as many decimals as the table has."""
    every = [value for those in told.arms.values() for value in those if value is not None]
    decimals = max(len(repr(value).partition(".")[2].rstrip("0")) for value in every) if every else 0
    cells = ["" if value is None else f"{value:.{decimals}f}" for value in numbers]
    return [arm_called(name, study) or f"{name} (no arm here)", *cells]


def claim_cells(row: "pd.Series[Any]") -> dict[str, str]:
    """The line of a claim."""
    return {
        "claim": row["claim"],
        "measured here": row["measured"] if isinstance(row["measured"], str) else "",
        "published": f"{row['published']:+g}" if known(row["published"]) else "",
        "difference [95% CI]": difference(row),
        "p (Holm)": p_value(row["p_holm"]),
        "verdict": row["verdict"] + (f": {row['why']}" if row["why"] else ""),
        "detectable": detectable_in_words(row["detectable"]) if row["verdict"] == "cannot tell" else "",
    }


def claims_facts(study: Study, claims: pd.DataFrame) -> list[str]:
    """How verdicts on claims were made; nothing where there are none."""
    if study.published is None or not len(claims):
        return []
    tested = int(claims["p_holm"].notna().sum())
    told = study.published
    units = f"{told.metric or 'none given'}; {told.evidence}"
    return [
        "Claims: a difference is of the two arms of the claim, paired like all others; published ones are in units of "
        f"the paper ({units}), and only their direction is tested. agrees, disagrees: p < 0.05 after Holm's correction "
        f"over the {tested} claims that could be tested, all together. cannot tell: neither; detectable is what would "
        "have been found four times in five."
    ]
