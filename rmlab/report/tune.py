"""Nuisance values: every arm is compared at its best one, which its own items did not choose."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rmlab.messages import UserError
from rmlab.report.arms import label, without
from rmlab.report.items import Items
from rmlab.report.runs import Run
from rmlab.report.study import Study


def tuned(study: Study, items: Mapping[str, Items]) -> tuple[Study, dict[str, Items], list[str]]:
    """The study with the nuisance keys `study.tune` gone from its arms, its items, and what was chosen for each arm.

    Cross-fitted: prompts fall into two halves. What a seed's runs are scored by on one half is chosen on the other half
    and by the other seeds, best mean accuracy first. So neither the luck of a prompt nor that of a seed can pay for
    trying many values, and all items and seeds are used. With one seed its luck is in. Curves are drawn from the runs
    of the value that was chosen most often.
    """
    kept = {arm: without(values, study.tune) for arm, values in study.values.items()}
    nuisance = {
        arm: {name: value for name, value in values.items() if name not in kept[arm]}
        for arm, values in study.values.items()
    }
    groups: dict[str, list[str]] = {}
    for arm in study.arms:
        groups.setdefault(label(kept[arm], study.usual) or "all", []).append(arm)
    fitted, notes = {}, []
    arms: dict[str, list[Run]] = {}
    for name, of_set in items.items():
        whole, short = tried(of_set, groups)
        notes += [f"{what}, and is left out of the choice" + f" on {name}" * (len(items) > 1) for what in short]
        fitted[name], chosen = cross_fit(of_set, whole)
        for group, best in chosen.items():
            times = Counter(best).most_common()
            told = ", ".join(f"{label(nuisance[arm], {})} ({count} of {len(best)} times)" for arm, count in times)
            on = f" on {name}" * (len(items) > 1)
            notes.append(f"{group} is compared{on} at {told}; {len(groups[group])} were tried")
            arms.setdefault(group, list(study.arms[times[0][0]]))
        if len(set(of_set.seed)) == 1:
            notes.append("values were chosen with one seed: whoever tries more of them has more luck")
    values = {group: kept[members[0]] for group, members in groups.items()}
    baseline = next(group for group, members in groups.items() if study.baseline in members)
    return replace(study, arms=arms, values=values, baseline=baseline), fitted, notes


def tried(items: Items, groups: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """The arms of each group among which to choose, and a note on each that has fewer seeds than the others.

    A value that diverged on some seeds has no fair score, and must not take those seeds from the others either.
    """
    whole, notes = {}, []
    for group, arms in groups.items():
        seeds = {arm: len(items.runs_by_seed(arm)) for arm in arms}
        most = max(seeds.values())
        whole[group] = [arm for arm in arms if seeds[arm] == most]
        notes += [f"{arm} finished {number} of {most} seeds" for arm, number in seeds.items() if number < most]
    return whole, notes


def cross_fit(items: Items, groups: Mapping[str, Sequence[str]]) -> tuple[Items, dict[str, list[str]]]:
    """Items with one row per group and seed, and the arms chosen for each seed and half of the prompts."""
    accuracy = items.values()[:, 0]
    half = np.random.default_rng(0).permutation(items.prompt.max() + 1)[items.prompt] % 2
    rows: list[tuple[str, int, int, int]] = []  # group, seed, run of half 0, run of half 1
    chosen: dict[str, list[str]] = {}
    for group, arms in groups.items():
        runs = {arm: mine for arm in arms if (mine := items.runs_by_seed(arm))}
        if not runs:
            continue
        common = sorted(set.intersection(*(set(mine) for mine in runs.values())))
        if not common:
            raise UserError(f"tune: the values tried for {group} have no seed in common; finish the sweep first")
        for seed in common:
            judges = [s for s in common if s != seed] or [seed]
            best = [best_arm(accuracy[:, half != h], runs, judges) for h in (0, 1)]
            chosen[group] = [*chosen.get(group, []), *best]
            rows.append((group, seed, runs[best[0]][seed], runs[best[1]][seed]))
    first, second = [row[2] for row in rows], [row[3] for row in rows]
    return replace(
        items,
        runs=[items.runs[r] for r in first],
        arm=np.array([row[0] for row in rows]),
        seed=np.array([row[1] for row in rows]),
        better=np.where(half == 0, items.better[first], items.better[second]),
        worse=np.where(half == 0, items.worse[first], items.worse[second]),
    ), chosen


def best_arm(accuracy: np.ndarray, runs: Mapping[str, Mapping[int, int]], seeds: Sequence[int]) -> str:
    """The arm of highest mean accuracy over its runs of these seeds; the first of equal ones.

    accuracy (R, I), NaN where an item does not count. runs: arm -> seed -> place in R.
    """
    return max(runs, key=lambda arm: float(np.nanmean(accuracy[[runs[arm][seed] for seed in seeds]])))
