"""How a loss falls with a swept number, such as that of comparisons: L(N) = a N^-b + c, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rmlab.messages import UserError
from rmlab.report.arms import is_one_of, label, without
from rmlab.report.items import Items
from rmlab.report.study import Study
from rmlab.report.tables import TITLES, Table, Tables, interval

KEY = "data.max_rows"  # of which a law is fitted without being asked for
LEAST = 4  # sizes: three numbers are fitted
METRICS = {"error": ("accuracy", "Error (1 - accuracy)"), "nll": ("nll", TITLES["nll"])}
EXPONENTS = np.concatenate([[0.0], np.geomspace(0.02, 4, 400)])  # that are tried; 0: no fall at all
DRAWS = 1000
AHEAD = 2  # times the largest size: how far a law is asked


@dataclass(frozen=True)
class PowerLaw:
    """The fit to one group of arms, which differ in `key` alone, on one metric of one set.

    sizes (L,), seeds (S,); runs (L, S): the loss of each run. fit (3,), draws (D, 3): a, b, c.
    """

    set: str
    metric: str
    key: str
    group: str
    sizes: np.ndarray
    runs: np.ndarray
    fit: np.ndarray
    draws: np.ndarray

    def predicted(self, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(the law, the ends of its 95% interval) at these sizes."""
        low, high = np.quantile(values_at(self.draws, sizes), [0.025, 0.975], axis=0)
        return values_at(self.fit[None], sizes)[0], low, high

    def interval(self, place: int) -> tuple[float, float]:
        """95%, of a, b or c."""
        low, high = np.quantile(self.draws[:, place], [0.025, 0.975])
        return float(low), float(high)

    @property
    def misfit(self) -> float:
        """The largest distance of a size's mean loss from the law, as a share of the loss."""
        mean = self.runs.mean(axis=1)
        return float(np.abs(values_at(self.fit[None], self.sizes)[0] / mean - 1).max())


def values_at(laws: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(D, N) of laws (D, 3) at sizes (N,)."""
    a, b, c = laws.T[..., None]
    return np.asarray(a * sizes**-b + c)


def power_laws(study: Study, items: Mapping[str, Items], key: str | None = None) -> list[PowerLaw]:
    """Of every set and metric, and of every group of arms that differ in the key alone and have four sizes at least.

    key: None for data.max_rows where it varies so. UserError where a key that was asked for does not.
    """
    groups = groups_of(study, key or KEY)
    if key and not groups:
        raise UserError(f"--power-law {key}: a law needs {LEAST} sizes in arms that differ in nothing else")
    found = (
        law_of(of_set, name, metric, key or KEY, group, sizes)
        for name, of_set in items.items()
        for metric in METRICS
        for group, sizes in groups.items()
    )
    return [law for law in found if law]


def groups_of(study: Study, key: str) -> dict[str, dict[float, str]]:
    """What arms are called without the key -> size -> arm; only those with enough sizes."""
    groups: dict[str, dict[float, str]] = {}
    for arm, values in study.values.items():
        rest = without(values, [key])
        mine = [v for name, v in values.items() if is_one_of(name, [key])]
        if mine and isinstance(mine[0], int | float) and mine[0] > 0 and not isinstance(mine[0], bool):
            groups.setdefault(label(rest, study.usual) or "all", {})[float(mine[0])] = arm
    return {group: dict(sorted(sizes.items())) for group, sizes in groups.items() if len(sizes) >= LEAST}


def law_of(items: Items, name: str, metric: str, key: str, group: str, sizes: Mapping[float, str]) -> PowerLaw | None:
    """The fit, on seeds that all sizes have; None where too few sizes were scored on the set, or no seed is common."""
    places = {size: runs for size, arm in sizes.items() if (runs := items.runs_by_seed(arm))}
    common = sorted(set.intersection(*(set(runs) for runs in places.values()))) if places else []
    if len(places) < LEAST or not common:
        return None
    of_runs = items.values()[[[runs[seed] for seed in common] for runs in places.values()]]  # (L, S, M, I)
    accuracy, nll = of_runs[:, :, 0], of_runs[:, :, 1]
    values = 1 - accuracy if metric == "error" else nll
    counted = ~np.isnan(values).any(axis=(0, 1))
    values, prompts = values[..., counted], np.unique(items.prompt[counted], return_inverse=True)[1]
    if not prompts.size or not values.mean(axis=(1, 2)).all():
        return None
    at = np.array(list(places))
    drawn = redrawn(values, prompts)
    fits = fitted(at, np.concatenate([values.mean(axis=(1, 2))[None], drawn]))
    return PowerLaw(name, metric, key, group, at, values.mean(axis=2), fits[0], fits[1:])


def redrawn(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """(D, L) mean losses of values (L, S, I) had other prompts and other seeds been drawn, the same for all sizes.

    Prompts are drawn whole. Of S seeds S - 1 are drawn, so that the mean varies as much as it does between studies
    (Rao and Wu 1988); one seed stays.
    """
    generator, seeds = np.random.default_rng(0), values.shape[1]
    sizes = np.bincount(prompts)
    sums = np.stack([[np.bincount(prompts, run) for run in of_size] for of_size in values])  # (L, S, G)
    of_prompts = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), DRAWS).astype(float)
    of_seeds = generator.multinomial(max(seeds - 1, 1), np.full(seeds, 1 / seeds), DRAWS) / max(seeds - 1, 1)
    means = sums @ of_prompts.T / (of_prompts @ sizes)  # (L, S, D)
    return np.asarray(np.einsum("lsd,ds->dl", means, of_seeds))


def fitted(sizes: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """(D, 3) a, b, c >= 0 of losses (D, L) at sizes (L,): least squares of relative errors.

    For each exponent a and c are linear, so all exponents are tried, and nothing depends on where a search begins.
    """
    weights = losses[0] ** -2.0  # the same for all, so that a draw with a small loss does not decide by itself
    middle = np.exp(np.log(sizes).mean())  # units in which a and c are of one size
    best, laws = np.full(len(losses), np.inf), np.zeros((len(losses), 3))
    for exponent in EXPONENTS:
        x = (sizes / middle) ** -exponent
        a, c = two_non_negative(x, losses, weights)
        error = (weights * (a[:, None] * x + c[:, None] - losses) ** 2).sum(axis=1)
        better = error < best * (1 - 1e-12)
        best[better] = error[better]
        laws[better] = np.stack([a * middle**exponent, np.full(len(a), exponent), c], axis=1)[better]
    return laws


def two_non_negative(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) slope and (D,) intercept, neither below zero, of y (D, L) on x (L,) with weights (L,)."""
    total, mean_x, mean_y = weights.sum(), np.average(x, weights=weights), np.average(y, axis=1, weights=weights)
    spread = (weights * (x - mean_x) ** 2).sum()
    slope = (
        (weights * (x - mean_x) * (y - mean_y[:, None])).sum(axis=1) / spread if spread > 1e-12 * total else 0 * mean_y
    )
    slope = np.maximum(slope, 0)
    intercept = mean_y - slope * mean_x
    through = (weights * x * y).sum(axis=1) / (weights * x**2).sum()
    return np.where(intercept < 0, through, slope), np.maximum(intercept, 0)


def law_rows(laws: Sequence[PowerLaw]) -> pd.DataFrame:
    """Every number of the laws, a row each."""
    rows = []
    for law in laws:
        row: dict[str, Any] = {"set": law.set, "metric": law.metric, "key": law.key, "arm": law.group}
        row |= {"sizes": " ".join(f"{size:g}" for size in law.sizes), "seeds": law.runs.shape[1]}
        for place, name in enumerate("abc"):
            low, high = law.interval(place)
            row |= {name: law.fit[place], f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {"misfit": law.misfit})
    return pd.DataFrame(rows)


def power_law_tables(laws: Sequence[PowerLaw]) -> Tables:
    """One per set and metric, a line per group of arms."""
    tables = Tables()
    for name, metric, key in dict.fromkeys((law.set, law.metric, law.key) for law in laws):
        lines = [line_of(law) for law in laws if (law.set, law.metric) == (name, metric)]
        title = f"Power law of {key} on {name}: {METRICS[metric][1]} = a N^-b + c [95% CI over prompts and seeds]"
        tables.append(Table(title, pd.DataFrame(lines), "law", name))
    return tables


def line_of(law: PowerLaw) -> dict[str, str]:
    """Cells of a group."""
    top = EXPONENTS[-1]
    low, high = law.interval(1)
    ahead = law.predicted(law.sizes[-1:] * AHEAD)
    return {
        "arm": law.group,
        "sizes": f"{len(law.sizes)}: {law.sizes[0]:,.0f} to {law.sizes[-1]:,.0f}",
        "seeds": str(law.runs.shape[1]),
        "a": f"{law.fit[0]:.3g}",
        "b": f"{law.fit[1]:.3f} [{low:.3f}, {'more' if high >= top else f'{high:.3f}'}]",
        "c": f"{law.fit[2]:.4f} {interval(*law.interval(2), '{:.4f}')}",
        f"at {law.sizes[-1] * AHEAD:,.0f}": f"{ahead[0][0]:.4f} {interval(ahead[1][0], ahead[2][0], '{:.4f}')}",
        "largest misfit": f"{law.misfit:.1%}",
    }


def power_law_facts(laws: Sequence[PowerLaw]) -> list[str]:
    """How the fits were made; nothing where there are none."""
    if not laws:
        return []
    return [
        f"Power law: least squares of relative errors, a, b, c >= 0. Intervals: {DRAWS:,} draws of prompts, whole, and "
        "of seeds, the same for all sizes; where three seeds differ much they hold the truth in nine studies of ten. "
        "The last size is twice the largest, and was not run. The misfit says whether the points lie on such a curve."
    ]
