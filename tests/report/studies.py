"""Studies whose run directories are written here, as rmlab leaves them, and whose numbers are known."""

import json

import numpy as np
import pandas as pd

from rmlab.metrics.evaluate import preference_metrics
from rmlab.metrics.scored import ScoredComparison
from rmlab.runner.directory import RunDirectory

CONFIG = {
    "study": "fake",
    "question": "Which is best?",
    "seed": 0,
    "plugins": [],
    "run": {"name": "plain", "choices": {"loss": "plain", "model": "tiny"}},
    "model": {"config": {"hidden_size": 64}},
    "data": {"train": {"a": {"source": "load", "path": "a.jsonl"}}, "max_rows": None},
    "loss": {"bradley_terry": {"margin": 0.0}},
    "trainer": {"learning_rate": 0.001, "num_train_epochs": 1},
    "report": {"baseline": None, "tune": []},
    "logger": {"report_to": "none"},
}
ENVIRONMENT = {
    "code": "abc", "python": "3.12", "processes": 1, "packages": {"torch": "2.13.0"}, "inputs": {"a.jsonl": "11"},
    "hardware": {"machine": "x86_64", "cpus": 2, "threads": 1}, "seconds": 60.0,
}  # fmt: skip


def write_run(
    folder,
    seed,
    gaps=None,
    loss="plain",
    environment=None,
    name="eval",
    prompts=None,
    subsets=None,
    texts=None,
    ids=None,
    **changes,
):
    """A run directory as rmlab leaves it. gaps (I,): rewards of better minus worse; None: not finished.

    The longer response is the worse one, of every preference. texts: (prompt, better, worse) of each; ids: of each.

    changes: `node__key=value` of the config.
    """
    config = json.loads(json.dumps({**CONFIG, "seed": seed}))
    config["run"].update(name=loss, choices={"loss": loss, "model": "tiny"})
    if loss == "margin":
        config["loss"]["bradley_terry"]["margin"] = 1.0
    elif loss != "plain":
        config["loss"][loss] = {"weight": 1.0}
    for key, value in changes.items():
        *nodes, last = key.split("__")
        place = config
        for node in nodes:
            place = place.setdefault(node, {})
        place[last] = value
    out = RunDirectory(folder / f"{loss}-s{seed}-{abs(hash(json.dumps(config))) % 10**8:08d}")
    out.write_config(config)
    if gaps is None:
        return out
    gaps = np.asarray(gaps, dtype=float)
    count = len(gaps)
    prompts = [f"p{i}" for i in range(count)] if prompts is None else prompts
    subsets = [""] * count if subsets is None else subsets
    texts = [[]] * count if texts is None else texts
    ids = [str(i) for i in range(count)] if ids is None else ids
    rows = zip(range(count), prompts, gaps, subsets, texts, ids, strict=True)
    out.write_scores(name, [pair(*row) for row in rows])
    metrics = {**preference_metrics(gaps, np.ones(count)), "comparisons": count, "preferences": count}
    out.write_environment({**ENVIRONMENT, **(environment or {})})
    out.write_metrics({"eval": {name: metrics}, "train": {"loss": 0.5}})
    return out


def write_suite(out, values, name="bench", weights=None, prompts=None, key="k"):
    """A suite's files as a run keeps them. values: subset -> what each of its items counts for."""
    rows = [
        {"id": str(n), "prompt": f"{subset}{n}", "subset": subset, "value": float(value), "comparison": n}
        for subset, those in values.items()
        for n, value in enumerate(those)
    ]
    table = pd.DataFrame(rows).assign(**({"prompt": prompts} if prompts else {}))
    table.to_parquet(out.path / "scores" / f"{name}.items.parquet", index=False)
    weights = weights or {"overall": {subset: 1 / len(values) for subset in values}}
    means = {subset: float(np.mean(those)) for subset, those in values.items()}
    totals = {
        total: {"value": sum(w * means[s] for s, w in of.items()), "weights": of, "chance": 0.25}
        for total, of in weights.items()
    }
    subsets = {subset: {"value": value, "chance": 0.25} for subset, value in means.items()}
    told = {"suite": name, "key": key, "totals": totals, "subsets": subsets}
    (out.path / "suites").mkdir(exist_ok=True)
    (out.path / "suites" / f"{name}.json").write_text(json.dumps(told))


def pair(index, prompt, gap, subset="", excerpts=(), name=None):
    """The first of two responses is better, by that much reward."""
    names = {
        "index": index,
        "id": name or str(index),
        "prompt_id": prompt,
        "subset": subset,
        "excerpts": list(excerpts),
    }
    preference = {"better": [0], "worse": [1], "strength": [1.0], "probability": [1.0]}
    return ScoredComparison(**names, **preference, rewards=[gap, 0.0], lengths=[10, 12], gold=[])


def write_study(folder):
    """Two losses, three seeds, 60 prompts: margin is right 8 times more of them, for every seed."""
    generator = np.random.default_rng(0)
    base = generator.normal(0.5, 1, 60)
    for seed in range(3):
        gaps = base + generator.normal(0, 0.1, 60)
        write_run(folder, seed, gaps)
        wrong = np.flatnonzero(gaps < 0)[:8]
        gaps[wrong] = 0.5
        write_run(folder, seed, gaps, loss="margin")
    return folder
