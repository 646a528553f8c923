"""Are the report's statistics right? Studies simulated with a known truth, through the code that makes the tables.

    python benchmarks/simulated_studies.py [--studies 2000] [--processes 2]

Every reward gap is normal: an effect of the arm, of the prompt, of the item, of how this arm takes this prompt and
item, of the seed, and noise. So the true accuracy of an arm is Phi(mean / sd), its true NLL and Brier are integrals.
Writes simulated_studies.json beside this file and prints its tables:

* coverage: how often 95% intervals of the difference to the baseline hold the true one, per metric;
* false positives: how often any of three arms that equal the baseline is called different after Holm's correction;
* power: how often a true difference is found, by the paired test and by one that treats the arms' prompts and seeds as
  different ones, and the same for McNemar's test; and how often McNemar's finds a difference where there is none but
  between seeds.
"""

import argparse
import functools
import gc
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from rmlab.metrics.evaluate import per_preference
from rmlab.report.compare import compare
from rmlab.report.items import METRICS, Items
from rmlab.report.statistics import resample

BASELINE, DRAWS = "baseline", 2000


@dataclass(frozen=True)
class Setting:
    """A kind of study. Standard deviations are of reward gaps, whose mean is 1 for the baseline."""

    name: str
    seeds: int = 5
    prompts: int = 300
    seed_sd: float = 0.05  # of an arm's mean over seeds: accuracy moves by about a fifth of it
    arm_sd: float = 0.4  # how differently two arms take the same prompt, and the same item
    noise: float = 0.4  # of one run on one item
    shift: float = 0.0  # of the arms' mean gap


SETTINGS = [
    Setting("seeds do not matter", seed_sd=0.0),
    Setting("seeds matter little"),
    Setting("seeds matter as much as items", seed_sd=0.1),
    Setting("seeds matter most", seed_sd=0.3),
    Setting("two seeds", seeds=2, seed_sd=0.1),
    Setting("three seeds", seeds=3, seed_sd=0.1),
    Setting("ten seeds", seeds=10, seed_sd=0.1),
    Setting("each run on each item is mostly noise", arm_sd=0.1, noise=1.0),
    Setting("30 prompts", prompts=30),
    Setting("1000 prompts", prompts=1000),
    Setting("a true difference", shift=0.2),
    Setting("a larger one, noisy seeds", seed_sd=0.1, shift=0.4),
]


def simulate(setting: Setting, arms: int, generator: np.random.Generator) -> Items:
    """Items of one study: the baseline and `arms - 1` arms shifted by `setting.shift`; 1 to 3 items per prompt."""
    sizes = generator.integers(1, 4, setting.prompts)
    prompt = np.repeat(np.arange(setting.prompts), sizes)

    def by_item(sd: float) -> np.ndarray:
        """Half of the variance from the prompt, half from the item."""
        of_prompt = generator.normal(0, sd / np.sqrt(2), setting.prompts)
        return of_prompt[prompt] + generator.normal(0, sd / np.sqrt(2), len(prompt))

    common = by_item(1.0)
    gaps = []
    for arm in range(arms):
        own = 1.0 + setting.shift * (arm > 0) + common + by_item(setting.arm_sd)
        for _ in range(setting.seeds):
            gaps.append(own + generator.normal(0, setting.seed_sd) + generator.normal(0, setting.noise, len(prompt)))
    names = [BASELINE, *(f"arm {n}" for n in range(1, arms))]
    return Items(
        runs=[None] * len(gaps),  # type: ignore[list-item]
        arm=np.repeat(names, setting.seeds),
        seed=np.tile(np.arange(setting.seeds), arms),
        better=np.stack(gaps),
        worse=np.zeros((len(gaps), len(prompt))),
        length=np.ones((2, len(prompt))),
        prompt=prompt,
        strength=np.ones(len(prompt)),
        probability=np.ones(len(prompt)),
        subset=np.full(len(prompt), ""),
    )


@functools.cache
def truth(setting: Setting) -> dict[str, float]:
    """The expected difference to the baseline, over prompts, items and seeds, of each metric."""
    sd = np.sqrt(1.0 + setting.arm_sd**2 + setting.noise**2 + setting.seed_sd**2)
    grid = np.linspace(-12, 12, 20_001)
    density = stats.norm.pdf(grid)
    values = []
    for mean in (1.0, 1.0 + setting.shift):
        each = per_preference(mean + sd * grid, np.ones_like(grid))
        expected = {m: float((each[m] * density).sum() / density.sum()) for m in ("nll", "brier")}
        values.append({"accuracy": float(stats.norm.cdf(mean / sd)), **expected})
    return {metric: values[1][metric] - values[0][metric] for metric in METRICS}


def unpaired_p(items: Items, arm: str) -> float:
    """Accuracy of two arms as if each had its own prompts and seeds: Welch's t on both sources of variance."""
    means = resample(items.values()[:, :1], items.prompt, DRAWS)
    parts, difference = [], 0.0
    for name, sign in ((arm, 1), (BASELINE, -1)):
        rows = items.arm == name
        value, moved = means.value[rows, 0], means.draws[:, rows, 0] - means.value[rows, 0]
        of_seeds = max(0.0, value.var(ddof=1) - moved.var(axis=1, ddof=1).mean()) / len(value)
        parts += [(moved.mean(axis=1).var(), means.prompts[0] - 1), (of_seeds, len(value) - 1)]
        difference += sign * value.mean()
    variance = sum(v for v, _ in parts)
    freedom = variance**2 / sum(v**2 / df for v, df in parts)
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(variance), freedom))


def study(setting: Setting, seed: int) -> dict[str, float]:
    """What is counted of one simulated study with three arms beside the baseline."""
    generator = np.random.default_rng([seed, *setting.name.encode()])
    items = simulate(setting, 4, generator)
    arms = list(dict.fromkeys(items.arm.tolist()))
    rows = compare("eval", items, arms, BASELINE, DRAWS)
    tested = rows[rows["arm"] != BASELINE]
    true = truth(setting)
    counted: dict[str, float] = {}
    for metric in METRICS:
        part = tested[tested["metric"] == metric]
        covered = (part["diff_low"] <= true[metric]) & (true[metric] <= part["diff_high"])
        counted[f"{metric} coverage"] = float(covered.mean())
        counted[f"{metric} any found"] = float((part["p_holm"] < 0.05).any())
    first = tested[(tested["metric"] == "accuracy") & (tested["arm"] == arms[1])].iloc[0]
    counted["paired"] = float(first["p"] < 0.05)
    counted["unpaired"] = float(unpaired_p(items, arms[1]) < 0.05)
    counted["mcnemar"] = float(first["mcnemar"] < 0.05)
    counted["detectable"] = float(first["detectable"])
    counted["half width"] = float(first["diff_high"] - first["diff_low"]) / 2
    return counted


def average(setting: Setting, studies: int) -> dict[str, object]:
    gc.freeze()  # statsmodels collects garbage at each correction; of what is there now, there is none
    counted = [study(setting, seed) for seed in range(studies)]
    means = {key: float(np.mean([c[key] for c in counted])) for key in counted[0]}
    return {"setting": asdict(setting), "true difference": truth(setting)["accuracy"], "studies": studies, **means}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    results = []
    with ProcessPoolExecutor(options.processes) as pool:
        for result in pool.map(average, SETTINGS, [options.studies] * len(SETTINGS)):
            results.append(result)
            setting = result["setting"]
            assert isinstance(setting, dict)
            cells = [f"{key} {value:.3f}" for key, value in result.items() if isinstance(value, float)]
            print(f"{setting['name']}: {', '.join(cells)}", flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
