"""Every proxy of a study as it is optimised: single models by arm, and ensembles of an arm's seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from rmlab.lab.fits import Fit, Value, best_n, fit, gamma, mean, ratio
from rmlab.lab.gains import SINGLE, Comparisons, Gains, ensemble, words
from rmlab.messages import UserError
from rmlab.metrics.best_of_n import auditable
from rmlab.report.diagnostics import Scored, scored_of
from rmlab.report.items import set_names
from rmlab.report.outside_files import ScoresFile, read_scores_file
from rmlab.report.study import Study


@dataclass(frozen=True)
class Proxy:
    """An arm's seeds (`single`), or one ensemble of them, with what optimising it gives."""

    arm: str
    by: str
    gains: Gains
    fit: Fit  # of gold
    best_n: Value  # of the most gold
    end: Value  # gold at N less that at N / 4: below 0, gold falls
    last: Value  # gold at N
    recovery: Value
    gamma: Value

    @classmethod
    def of(cls, arm: str, by: str, gains: Gains) -> "Proxy":
        """Measured."""
        gold, prompts, quarter = gains.gold, gains.prompts, int(np.searchsorted(gains.n, gains.n[-1] / 4))
        possible = np.broadcast_to(gains.best[:, -1], gold.shape[:2])
        return cls(
            arm=arm,
            by=by,
            gains=gains,
            fit=fit(gold, gains.d, prompts),
            best_n=best_n(gold, gains.n),
            end=mean(gold[..., -1] - gold[..., quarter], prompts),
            last=mean(gold[..., -1], prompts),
            recovery=ratio(gold[..., -1], possible, prompts),
            gamma=gamma(gold, gains.proxy, gains.kl, prompts),
        )


def proxies(scored: Mapping[str, Sequence[Comparisons]], c: float) -> list[Proxy]:
    """Of each arm its single models and, where it has several seeds, ensembles. c: what variance costs in UWO."""
    found = []
    for arm, runs in scored.items():
        found.append(Proxy.of(arm, SINGLE, Gains.of(runs)))
        if len(runs) > 1:
            found += [Proxy.of(arm, name, Gains.of([ensemble(runs, how, c)])) for how, name in words(c).items()]
    return found


def pool_of(study: Study, name: str | None, gold: Path | None) -> tuple[str, Scored]:
    """(the set's name, what each arm's runs have scored of it). UserError where no set has three answers with gold.

    name: of the set; None: the first that has them. gold: a file of scores that says what is true.
    """
    known, truth = set_names(study), None if gold is None else true_rewards(gold)
    if name is not None and name not in known:
        raise UserError(f"--set {name}: the runs have scored {', '.join(known) or 'no set'}")
    for one in [name] if name else known:
        scored = {
            arm: [with_gold(run, truth, gold) for run in runs] for arm, runs in scored_of(study, None, one).items()
        }
        kept = {arm: [auditable(run) for run in runs] for arm, runs in scored.items()}
        if kept and all(run for runs in kept.values() for run in runs):
            return one, kept
    raise UserError(
        f"{study.name}: {name or 'no set'} has comparisons of three responses or more whose true rewards are known and "
        "differ; evaluate on rows with gold_rewards, or give --gold FILE"
    )


def true_rewards(file: Path) -> ScoresFile:
    """Those of a file. UserError for verdicts, and for rewards that no comparison could be found by."""
    read = read_scores_file(file)
    if read.by == "text" or read.verdicts:
        raise UserError(f"--gold {file}: give rewards of each response by id or by comparison")
    return read


def with_gold(run: Comparisons, read: ScoresFile | None, file: Path | None) -> Comparisons:
    """The comparisons with the rewards of a file as their gold; those that it does not know are left out."""
    if read is None:
        return run
    found = []
    for c in run:
        entry = read.entries.get((read.by, str(c.id if read.by == "id" else c.index)))
        if entry and set(entry.rewards) == set(range(len(c.rewards))):
            found.append(replace(c, gold=[entry.rewards[k] for k in range(len(c.rewards))]))
    if not found:
        raise UserError(f"--gold {file}: matches none of the runs' comparisons by {read.by}")
    return found


def curves_table(found: Sequence[Proxy]) -> pd.DataFrame:
    """A row per proxy and n: gold and proxy gains with their intervals, and what the best would gain."""
    return pd.DataFrame([row for proxy in found for row in curve_rows(proxy)])


def curve_rows(proxy: Proxy) -> Iterator[dict[str, object]]:
    """Of one proxy."""
    gains = proxy.gains
    for place, n in enumerate(gains.n):
        gold, own = (mean(values[..., place], gains.prompts) for values in (gains.gold, gains.proxy))
        yield {
            "arm": proxy.arm,
            "by": proxy.by,
            "n": n,
            "kl": gains.kl[place],
            **named("gold", gold),
            **named("proxy", own),
            "best": gains.best[:, place].mean(),
        }


def named(name: str, value: Value) -> dict[str, float]:
    """NAME, NAME_low, NAME_high."""
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def summary(found: Sequence[Proxy]) -> pd.DataFrame:
    """A row per proxy, every number with its interval."""
    return pd.DataFrame(
        [
            {
                "arm": proxy.arm,
                "by": proxy.by,
                "seeds": len(proxy.gains.gold),
                "prompts": len(set(proxy.gains.prompts.tolist())),
                "largest_n": int(proxy.gains.n[-1]),
                **named("alpha", proxy.fit.alpha),
                **named("beta", proxy.fit.beta),
                **named("peak_d", proxy.fit.peak),
                "r2": proxy.fit.r2,
                **named("best_n", proxy.best_n),
                **named("gold", proxy.last),
                **named("end", proxy.end),
                **named("recovery", proxy.recovery),
                **named("gamma", proxy.gamma),
            }
            for proxy in found
        ]
    )


def markdown(found: Sequence[Proxy], title: str, notes: Sequence[str]) -> str:
    """The summary to be read."""
    head = ("arm", "by", "alpha", "beta", "its peak, d", "R2", "best n", "gold at N", "N less N/4", "recovery", "gamma")
    lines = [f"# {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for p in found:
        fitted = [p.fit.alpha, p.fit.beta, told_peak(p), f"{p.fit.r2:.2f}"]
        n = f"{p.best_n.value:.0f} [{p.best_n.low:.0f}, {p.best_n.high:.0f}]"
        cells = [p.arm, p.by, *fitted, n, p.last, p.end, p.recovery, p.gamma]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", *(f"* {note}" for note in notes), ""])


def told_peak(proxy: Proxy) -> str:
    """Where the fit has its top: within what was measured, and only where beta is known to be above 0."""
    if not proxy.fit.beta.low > 0:
        return "not known"
    return str(proxy.fit.peak) if proxy.fit.peak.value <= proxy.gains.d[-1] else "beyond N"
