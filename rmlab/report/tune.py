"""Nuisance values: every arm is compared at its best one, which its own items did not choose."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rmlab.messages import UserError
from rmlab.report.items import Items
from rmlab.report.study import Run, Study, Values, label


def split_values(study: Study) -> tuple[dict[str, Values], dict[str, Values]]:
    """(what is asked about, nuisance) of every arm's values. UserError for a nuisance key that does not vary."""
    names = {key.rpartition(".")[2] for key in study.tune}
    varied = {key.rpartition(".")[2] for values in study.values.values() for key in values}
    if names - varied:
        raise UserError(f"tune: {sorted(names - varied)[0]} does not vary in this study; what varies: {sorted(varied)}")
    kept, nuisance = {}, {}
    for arm, values in study.values.items():
        kept[arm] = {k: v for k, v in values.items() if k.rpartition(".")[2] not in names}
        nuisance[arm] = {k: v for k, v in values.items() if k.rpartition(".")[2] in names}
    return kept, nuisance


def tuned(study: Study, items: Mapping[str, Items]) -> tuple[Study, dict[str, Items], list[str]]:
    """The study with the nuisance keys `study.tune` gone from its arms, its items, and what was chosen for each arm.

    Cross-fitted: prompts fall into two halves, and the value with the best mean accuracy on one half scores the items
    of the other. So no item is scored by a value that it helped to choose, and all items are used. The runs of an arm,
    which curves are drawn from, are those chosen for the first half.
    """
    kept, nuisance = split_values(study)
    groups: dict[str, list[str]] = {}
    for arm in study.arms:
        groups.setdefault(label(kept[arm]) or "all", []).append(arm)
    fitted, notes = {}, []
    arms: dict[str, list[Run]] = {}
    for name, of_set in items.items():
        fitted[name], chosen = cross_fit(of_set, groups)
        for group, best in chosen.items():
            told = " and ".join(dict.fromkeys(label(nuisance[arm]) for arm in best))
            on = f" on {name}" * (len(items) > 1)
            notes.append(f"{group} is compared{on} at {told}, of {len(groups[group])} tried")
            arms.setdefault(group, list(study.arms[best[0]]))
    values = {group: kept[members[0]] for group, members in groups.items()}
    baseline = next(group for group, members in groups.items() if study.baseline in members)
    return replace(study, arms=arms, values=values, baseline=baseline), fitted, notes


def cross_fit(items: Items, groups: Mapping[str, Sequence[str]]) -> tuple[Items, dict[str, list[str]]]:
    """Items with one row per group and seed, and the arms that each half of the prompts is scored by."""
    accuracy = items.values()[:, 0]
    half = np.random.default_rng(0).permutation(items.prompt.max() + 1)[items.prompt] % 2
    rows: list[tuple[str, int, int, int]] = []  # group, seed, run of half 0, run of half 1
    chosen = {}
    for group, arms in groups.items():
        runs = {arm: {int(items.seed[r]): int(r) for r in np.flatnonzero(items.arm == arm)} for arm in arms}
        runs = {arm: mine for arm, mine in runs.items() if mine}
        if not runs:
            continue
        common = sorted(set.intersection(*(set(mine) for mine in runs.values())))
        if not common:
            raise UserError(f"tune: the values tried for {group} have no seed in common; finish the sweep first")
        level = {arm: accuracy[[mine[s] for s in common]] for arm, mine in runs.items()}
        best = [max(level, key=lambda arm, h=h: np.nanmean(level[arm][:, half != h])) for h in (0, 1)]  # type: ignore[misc]
        chosen[group] = best
        rows += [(group, seed, runs[best[0]][seed], runs[best[1]][seed]) for seed in common]
    first, second = [row[2] for row in rows], [row[3] for row in rows]
    return replace(
        items,
        runs=[items.runs[r] for r in first],
        arm=np.array([row[0] for row in rows]),
        seed=np.array([row[1] for row in rows]),
        better=np.where(half == 0, items.better[first], items.better[second]),
        worse=np.where(half == 0, items.worse[first], items.worse[second]),
    ), chosen
