"""Are the report's statistics right? Studies simulated with a known truth, through the code that makes the tables.

    python benchmarks/simulated_studies.py [--studies 2000] [--processes 2] [--only WORDS]

Every reward gap is the sum of an effect of the prompt, of the item, of how this arm takes this prompt and item, of the
seed, and noise. Writes simulated_studies.json beside this file and prints its numbers:

* coverage: how often 95% intervals hold the truth, of the difference to the baseline and of an arm's own mean;
* false calls: how often any arm that equals the baseline gets a verdict on a metric, and on any metric;
* found: how often one arm that differs by the median `detectable` of those studies is called on accuracy, half of the
  arms being better and half worse;
* power: how often a true difference of 0.04 in accuracy has p < 0.05, by the paired estimate and by one that treats
  the arms' prompts and seeds as different ones;
* McNemar: how often its p is below 0.05 where there is no difference but between seeds.
"""

import argparse
import functools
import gc
import json
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from rmlab.metrics.evaluate import per_preference
from rmlab.report.compare import compare
from rmlab.report.items import METRICS, Items
from rmlab.report.statistics import spread

BASELINE, FIRST, TRUE_DIFFERENCE = "baseline", "arm 1", 0.04


@dataclass(frozen=True)
class Setting:
    """A kind of study. Standard deviations are of reward gaps, whose mean is `level` for every arm.

    sizes: items of each prompt: `1 to 3`, `one has 30%`, `Zipf` or a number. shared: how much of the variance between
    items is that between prompts. lacking: `one`, the first arm has a seed less; `two`, all arms but the baseline have
    two less; `all`, the first arm has other seeds than the baseline. ties: share of undecided labels.
    """

    name: str
    arms: int = 4
    seeds: int = 5
    prompts: int = 300
    sizes: str = "1 to 3"
    seed_sd: float = 0.05  # of an arm's mean over seeds: accuracy moves by about a fifth of it
    arm_sd: float = 0.4  # how differently two arms take the same prompt, and the same item
    noise: float = 0.4  # of one run on one item
    level: float = 1.0
    shared: float = 0.5
    heavy: bool = False  # Student's t with 3 degrees of freedom
    ties: float = 0.0
    sets: int = 1
    lacking: str = ""


SETTINGS = [
    Setting("seeds do not matter", seed_sd=0.0),
    Setting("seeds matter little"),
    Setting("seeds matter most", seed_sd=0.3),
    Setting("each run on each item is mostly noise", arm_sd=0.1, noise=1.0),
    Setting("two arms, two seeds", arms=2, seeds=2, seed_sd=0.1),
    Setting("two arms, three seeds", arms=2, seeds=3, seed_sd=0.1),
    Setting("two arms, five seeds", arms=2, seeds=5, seed_sd=0.1),
    Setting("two arms, ten seeds", arms=2, seeds=10, seed_sd=0.1),
    Setting("two seeds", seeds=2, seed_sd=0.1),
    Setting("two seeds that matter most", seeds=2, seed_sd=0.3),
    Setting("three seeds", seeds=3, seed_sd=0.1),
    Setting("three seeds that matter most", seeds=3, seed_sd=0.3),
    Setting("ten seeds", seeds=10, seed_sd=0.1),
    Setting("twelve arms, three seeds", arms=12, seeds=3, seed_sd=0.1),
    Setting("twelve arms, five seeds", arms=12),
    Setting("the baseline has two seeds more", lacking="two"),
    Setting("a seed of one arm failed", seeds=3, lacking="one"),
    Setting("one arm has other seeds", lacking="all"),
    Setting("one prompt has 30% of the items", sizes="one has 30%"),
    Setting("the same, prompts matter most", sizes="one has 30%", shared=0.9),
    Setting("the same, prompts matter little", sizes="one has 30%", shared=0.1),
    Setting("Zipf sizes", prompts=200, sizes="Zipf"),
    Setting("8 prompts of 15 items", prompts=8, sizes="15"),
    Setting("30 prompts", prompts=30),
    Setting("1,000 prompts", prompts=1000),
    Setting("accuracy 0.99, 100 items", prompts=100, sizes="1", level=2.7, seeds=3),
    Setting("accuracy 0.02, 100 items", prompts=100, sizes="1", level=-2.4, seeds=3),
    Setting("a quarter are ties", ties=0.25),
    Setting("heavy tails", heavy=True),
    Setting("three sets", sets=3),
]


def sizes_of(setting: Setting, generator: np.random.Generator) -> np.ndarray:
    """Items of each prompt."""
    if setting.sizes == "1 to 3":
        return generator.integers(1, 4, setting.prompts)
    if setting.sizes == "one has 30%":
        return np.array([round(0.3 * setting.prompts / 0.7), *[1] * (setting.prompts - 1)])
    if setting.sizes == "Zipf":
        return np.maximum(1, setting.prompts / 2 / np.arange(1, setting.prompts + 1)).astype(int)
    return np.full(setting.prompts, int(setting.sizes))


def drawn(setting: Setting, generator: np.random.Generator, sd: float, number: int) -> np.ndarray:
    """Effects of that standard deviation, normal or with heavy tails."""
    if setting.heavy:
        return sd / np.sqrt(3) * generator.standard_t(3, number)
    return generator.normal(0, sd, number)


def by_item(setting: Setting, generator: np.random.Generator, sd: float, prompt: np.ndarray) -> np.ndarray:
    """Effects of the items, a share of whose variance is their prompts'."""
    of_prompt = drawn(setting, generator, sd * np.sqrt(setting.shared), prompt.max() + 1)
    return of_prompt[prompt] + drawn(setting, generator, sd * np.sqrt(1 - setting.shared), len(prompt))


def seeds_of(setting: Setting, arm: int) -> list[int]:
    """Those that the arm (0 is the baseline) was trained with."""
    number = setting.seeds
    if arm == 1 and setting.lacking in ("one", "all"):
        return list(range(1, number)) if setting.lacking == "one" else list(range(number, 2 * number))
    return list(range(number - 2 * (arm > 0 and setting.lacking == "two")))


def simulate(setting: Setting, shift: float, generator: np.random.Generator) -> Items:
    """Items of one study; the first arm is shifted, the others equal the baseline."""
    prompt = np.repeat(np.arange(setting.prompts), sizes_of(setting, generator))
    common = by_item(setting, generator, 1.0, prompt)
    gaps, arms, seeds = [], [], []
    for arm in range(setting.arms):
        own = setting.level + shift * (arm == 1) + common + by_item(setting, generator, setting.arm_sd, prompt)
        for seed in seeds_of(setting, arm):
            noise = drawn(setting, generator, setting.noise, len(prompt))
            gaps.append(own + generator.normal(0, setting.seed_sd) + noise)
            arms.append(BASELINE if arm == 0 else f"arm {arm}")
            seeds.append(seed)
    return Items(
        runs=[None] * len(gaps),  # type: ignore[list-item]
        arm=np.array(arms),
        seed=np.array(seeds),
        better=np.stack(gaps),
        worse=np.zeros((len(gaps), len(prompt))),
        length=np.ones((2, len(prompt))),
        prompt=prompt,
        strength=np.ones(len(prompt)),
        probability=np.where(generator.random(len(prompt)) < setting.ties, 0.5, 1.0),
        subset=np.full(len(prompt), ""),
    )


@functools.cache
def population(setting: Setting) -> np.ndarray:
    """A million reward gaps of this kind of study, each of another prompt, arm and seed."""
    generator, number = np.random.default_rng(0), 1_000_000
    alone = np.arange(number)
    gaps = setting.level + by_item(setting, generator, 1.0, alone) + by_item(setting, generator, setting.arm_sd, alone)
    gaps += drawn(setting, generator, setting.noise, number)
    return gaps + generator.normal(0, 1, number) * setting.seed_sd


@functools.cache
def truth(setting: Setting, shift: float = 0.0) -> dict[str, float]:
    """The expected mean of each metric, for an arm that is shifted."""
    gaps = population(setting) + shift
    decided, undecided = (per_preference(gaps, np.full(len(gaps), p)) for p in (1.0, 0.5))
    means = {m: decided[m].mean() * (1 - setting.ties) + undecided[m].mean() * setting.ties for m in ("nll", "brier")}
    return {"accuracy": float(decided["accuracy"].mean()), **{m: float(value) for m, value in means.items()}}


def shifts_for(setting: Setting, difference: float) -> list[float]:
    """By which an arm must be worse, and better, for its true accuracy to differ so much; none for what cannot be."""
    goals = [truth(setting)["accuracy"] + sign * difference for sign in (-1, 1)]
    return [-float(np.quantile(population(setting), 1 - goal)) for goal in goals if 0 < goal < 0.995]


def unpaired_p(items: Items, arm: str) -> float:
    """Accuracy of two arms as if each had its own prompts and seeds: Welch's t on both sources of variance."""
    parts, difference = [], 0.0
    for name, sign in ((arm, 1), (BASELINE, -1)):
        values = items.values()[items.arm == name, 0]
        counted = ~np.isnan(values[0])
        found = spread(values[:, counted], np.unique(items.prompt[counted], return_inverse=True)[1])
        parts += [(found.shared, found.of_prompts), (max(found.seeds, found.own), len(values) - 1)]
        difference += sign * float(np.nanmean(values))
    variance = sum(v for v, _ in parts)
    if not variance:
        return float(difference == 0)
    freedom = variance**2 / sum(v**2 / df for v, df in parts)
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(variance), freedom))


def study(setting: Setting, seed: int, shift: float = 0.0) -> dict[str, float]:
    """What is counted of one simulated study; NaN for what there is nothing of."""
    generator = np.random.default_rng([seed, *setting.name.encode()])
    items = {f"set {n}": simulate(setting, shift, generator) for n in range(setting.sets)}
    arms = list(dict.fromkeys(items["set 0"].arm.tolist()))
    rows = compare(items, arms, BASELINE)
    tested, counted = rows[rows["p"].notna()], dict[str, float]()
    for metric in METRICS:
        true, moved = truth(setting)[metric], truth(setting, shift)[metric]
        part, own = tested[tested["metric"] == metric], rows[rows["metric"] == metric]
        expected = np.where(part["arm"] == FIRST, moved - true, 0.0)
        counted[f"difference, {metric}"] = float(
            ((part["diff_low"] <= expected) & (expected <= part["diff_high"])).mean()
        )
        mean = np.where(own["arm"] == FIRST, moved, true)
        counted[f"mean, {metric}"] = float(((own["low"] <= mean) & (mean <= own["high"])).mean())
        counted[f"called, {metric}"] = float(part["verdict"].isin(["better", "worse"]).any())
    counted["called, any"] = float(max(counted[f"called, {metric}"] for metric in METRICS))
    first = tested[(tested["metric"] == "accuracy") & (tested["arm"] == FIRST)]
    if len(first):
        counted["found"] = float(first.iloc[0]["verdict"] in ("better", "worse"))
        counted["paired"] = float(first.iloc[0]["p"] < 0.05)
        counted["unpaired"] = float(unpaired_p(items["set 0"], FIRST) < 0.05)
        counted["mcnemar"] = float(first.iloc[0]["mcnemar"] < 0.05)
        counted["detectable"] = float(first.iloc[0]["detectable"])
    return counted


def power(setting: Setting, studies: int, difference: float, keys: Sequence[str]) -> dict[str, float]:
    """Shares of studies in which the first arm differs by so much, half of them for the worse where both can be."""
    shifts = shifts_for(setting, difference)
    counted = [study(setting, studies + n, shifts[n % len(shifts)]) for n in range(studies if shifts else 0)]
    return {key: float(np.mean([c[key] for c in counted])) for key in keys if counted}


def average(setting: Setting, studies: int) -> dict[str, Any]:
    """Of three times `studies`: where no arm differs, where one does by 0.04, and where one does by `detectable`."""
    warnings.simplefilter("ignore", RuntimeWarning)  # of a mean of nothing, for one_arm_has_other_seeds
    gc.freeze()  # statsmodels collects garbage at each correction; of what is there now, there is none
    null = [study(setting, seed) for seed in range(studies)]
    means = {key: float(np.mean([c[key] for c in null])) for key in null[0] if key not in ("found", "detectable")}
    for key in ("paired", "unpaired"):
        means.pop(key, None)
    result: dict[str, Any] = {"setting": asdict(setting), "studies": studies, **means}
    if "detectable" in null[0]:
        size = float(np.median([c["detectable"] for c in null]))
        result["detectable"] = size
        result.update(power(setting, studies, TRUE_DIFFERENCE, ("paired", "unpaired")))
        result.update(power(setting, studies, size, ("found",)))
    return result


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of docs/statistics.md; ranges are over accuracy, NLL and Brier score."""

    def over_metrics(result: Mapping[str, Any], what: str) -> str:
        values = [result[f"{what}, {metric}"] for metric in METRICS if np.isfinite(result[f"{what}, {metric}"])]
        return f"{min(values):.3f} to {max(values):.3f}" if values else ""

    def of(result: Mapping[str, Any], key: str, digits: int = 2) -> str:
        return f"{result[key]:.{digits}f}" if np.isfinite(result.get(key, np.nan)) else ""

    titles = (
        "studies|difference covered|mean covered|called falsely|on any metric|detectable|found|paired|unpaired|McNemar"
    )
    lines = [titles.split("|"), ["---"] * 10]
    for r in results:
        covered = [over_metrics(r, what) for what in ("difference", "mean", "called")]
        size = "> 1" if r.get("detectable", 0) > 1 else of(r, "detectable", 3)
        rest = [of(r, "called, any", 3), size, of(r, "found"), of(r, "paired"), of(r, "unpaired"), of(r, "mcnemar", 3)]
        lines.append([r["setting"]["name"], *covered, *rest])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="settings whose name has these words; the others stay in the file")
    options = parser.parse_args()
    settings = [setting for setting in SETTINGS if options.only in setting.name]
    file = Path(__file__).with_suffix(".json")
    kept = {r["setting"]["name"]: r for r in json.loads(file.read_text())} if file.exists() else {}
    with ProcessPoolExecutor(options.processes) as pool:
        results = pool.map(average, settings, [options.studies] * len(settings))
        for setting, result in zip(settings, results, strict=True):
            cells = [f"{key} {value:.3f}" for key, value in result.items() if isinstance(value, float)]
            print(f"{setting.name}: {'; '.join(cells)}", flush=True)
            kept[setting.name] = {key: round(v, 3) if isinstance(v, float) else v for key, v in result.items()}
            done = [kept[s.name] for s in SETTINGS if s.name in kept]
            file.write_text(json.dumps(done, indent=1) + "\n")
    print(markdown(done))


if __name__ == "__main__":
    main()
