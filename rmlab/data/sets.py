"""The sets of a run: mixtures of sources with weights, evaluation sets by name, splits by prompt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, IterableDataset

from rmlab.data import DATASETS
from rmlab.data.prepare import Options, check_rows, common_prefix, digest, quiet, tokenize
from rmlab.messages import UserError, say

PREFERENCE = ("better", "worse", "strength", "probability")  # columns of a token tree, one entry per preference

Rows = dict[str, dict[str, Any]]  # {"train": {source name: dataset}, "eval": {set name: dataset}}


def load_rows(config: Mapping[str, Any], options: Options) -> Rows:
    """The rows of `data.train` and `data.eval`, every one read once: bad ones are a UserError before a model loads."""
    if not config["train"]:
        raise UserError("data.train names no source; give at least one, as conf/data/files.yaml does")
    rows: Rows = {"train": {}, "eval": {}}
    for part in rows:
        for name, spec in config[part].items():
            dataset = load_source(spec, f"data.{part}.{name}")
            if config["head"] is not None:
                dataset = dataset.take(config["head"])
            if isinstance(dataset, Dataset):
                check_rows(dataset, name, options)
            rows[part][name] = dataset
    return rows


def load_source(spec: Mapping[str, Any], where: str) -> Any:
    """The rows of one `{source: NAME, weight: 1.0, **options}`."""
    options = {k: v for k, v in spec.items() if k not in ("source", "weight")}
    if "source" not in spec:
        raise UserError(f"{where} has no source; set {where}.source to one of {DATASETS.names()}")
    return DATASETS.build(spec["source"], options, where)()


def build_sets(
    rows: Rows, config: Mapping[str, Any], tokenizer: Any, options: Options, cache: Path | None, num_proc: int | None
) -> tuple[Any, dict[str, Any]]:
    """(training set, evaluation sets by name) as token trees.

    Training sources are mixed by weight. Without `data.eval`, `eval_fraction` of the prompts is held out of each
    source before weighting, as the one set `eval`. Prompts of the training set never stay in an evaluation set unless
    data.prompt_overlap=allow.
    """
    train, held_out = [], []
    mixing = len(rows["train"]) > 1
    for name, dataset in rows["train"].items():
        trees = tokenize(dataset, tokenizer, options, name, cache, num_proc)
        weight = positive(config["train"][name].get("weight", 1.0), f"data.train.{name}.weight")
        if isinstance(trees, IterableDataset):
            train.append((trees, weight))
            continue
        if mixing:
            trees = trees.map(lambda row, name=name: {"subset": row["subset"] or name}, desc=f"name {name}")
        if not rows["eval"] and config["eval_fraction"]:
            trees, test = split_by_prompt(trees, config["eval_fraction"], config["split_seed"])
            held_out.append(test)
        train.append((weighted(trees, weight, config["split_seed"]), weight))
    mixed = mix(train, config["split_seed"])
    if config["max_rows"] is not None:
        mixed = at_most(mixed, config["max_rows"], config["split_seed"])
    if held_out:
        sets = {"eval": datasets.concatenate_datasets(held_out)}
    else:
        sets = {n: tokenize(d, tokenizer, options, n, cache, num_proc) for n, d in rows["eval"].items()}
    if isinstance(mixed, Dataset):
        overlap = config["prompt_overlap"]
        sets = {n: without_overlap(mixed, s, n, overlap) if isinstance(s, Dataset) else s for n, s in sets.items()}
    return mixed, sets


def mix(parts: list[tuple[Any, float]], seed: int) -> Any:
    """One training set: concatenated, or for streams interleaved with probabilities proportional to the weights."""
    if len(parts) == 1:
        return parts[0][0]
    if all(isinstance(part, Dataset) for part, _ in parts):
        return datasets.concatenate_datasets([part for part, _ in parts])
    if any(isinstance(part, Dataset) for part, _ in parts):
        raise UserError("data.train mixes streaming and non-streaming sources; set streaming for all or for none")
    total = sum(weight for _, weight in parts)
    shares = [weight / total for _, weight in parts]
    return datasets.interleave_datasets(
        [p for p, _ in parts], probabilities=shares, seed=seed, stopping_strategy="all_exhausted"
    )


def positive(weight: Any, where: str) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
        raise UserError(f"{where} must be a number above 0, not {weight!r}")
    return float(weight)


def at_most(trees: Any, rows: int, seed: int) -> Any:
    """The first `rows` of a random order that does not depend on `rows`: smaller sets are parts of larger ones."""
    if isinstance(trees, IterableDataset):
        return trees.take(rows)
    return trees.shuffle(seed=seed).select(range(min(rows, len(trees))))


def split_by_prompt(trees: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """(train, eval): a prompt falls wholly on one side, decided by a hash of its text and the seed alone."""
    if all(trees["implicit"]):
        say(
            "warning: no row has a prompt of its own, so prompts are what chosen and rejected share, and rows of one "
            "prompt may fall on both sides of the split; give a prompt column, messages or data.prompt_separator"
        )
    bound = int(fraction * 2**64)
    held_out = [int(digest([seed, prompt]), 16) < bound for prompt in trees["prompt_id"]]
    train = trees.select([i for i, out in enumerate(held_out) if not out])
    test = trees.select([i for i, out in enumerate(held_out) if out])
    if not len(train) or not len(test):
        raise UserError(
            f"data.eval_fraction={fraction} leaves {len(train)} comparisons to train and {len(test)} to "
            "evaluate on; choose another fraction"
        )
    return train, test


def without_overlap(train: Dataset, test: Dataset, name: str, overlap: str) -> Dataset:
    """The evaluation set without training prompts (`drop`), or a UserError if it has any (`error`)."""
    seen = set(train["prompt_id"])
    shared = [i for i, prompt in enumerate(test["prompt_id"]) if prompt in seen]
    if not shared or overlap == "allow":
        return test
    if overlap == "error":
        raise UserError(
            f"{name}: {len(shared)} of {len(test)} comparisons are on prompts of the training set, the first is row "
            f"{test[shared[0]]['id']}; set prompt_overlap=drop to leave them out (allow to keep them)"
        )
    say(f"{name}: left out {len(shared):,} comparisons on training prompts")
    if len(shared) == len(test):
        raise UserError(f"{name}: every prompt is also in the training set; nothing is left to evaluate on")
    gone = set(shared)
    return test.select([i for i in range(len(test)) if i not in gone])


def weighted(trees: Dataset, weight: float, seed: int) -> Dataset:
    """`weight` times the rows: whole copies, then a random part of one."""
    copies, part = divmod(round(weight * len(trees)), len(trees))
    rest = trees.shuffle(seed=seed).select(range(part))
    return datasets.concatenate_datasets([trees] * copies + [rest])


def merged_by_prompt(trees: Dataset) -> Dataset:
    """Comparisons on the same prompt (and of the same subset) as one, with each different response once.

    Rewards and pairs stay what they are; a prompt that K - 1 rows repeat is computed once instead of K - 1 times.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(zip(trees["prompt_id"], trees["subset"], strict=True)):
        places.setdefault(key, []).append(place)
    if len(places) == len(trees):
        return trees
    features = Features({name: kind for name, kind in trees.features.items() if name != "index"})
    merged = [merge([trees[place] for place in rows]) for rows in places.values()]
    with quiet():
        return Dataset.from_list(merged, features=features)


def merge(trees: list[dict[str, Any]]) -> dict[str, Any]:
    """One token tree of several on the same prompt; identity and flags are those of the first."""
    first, all_gold = trees[0], all(tree["gold"] for tree in trees)
    slot: dict[tuple[int, ...], int] = {}  # token ids of a response -> its place among all of them
    merged: dict[str, list[Any]] = {key: [] for key in ("lengths", "gold", *PREFERENCE)}
    for tree in trees:
        tokens = [(*tree["prefix"], *suffix) for suffix in tree["suffixes"]]
        for k, response in enumerate(tokens):
            if response not in slot:
                slot[response] = len(slot)
                merged["lengths"].append(tree["lengths"][k])
                if all_gold:  # of some responses alone it could not be told whose it is
                    merged["gold"].append(tree["gold"][k])
        for key in PREFERENCE:
            merged[key] += [slot[tokens[k]] for k in tree[key]] if key in ("better", "worse") else tree[key]
    shared = len(common_prefix(list(slot)))
    return {
        **{k: v for k, v in first.items() if k != "index"},
        **merged,
        "prefix": list(next(iter(slot))[:shared]),
        "suffixes": [list(response[shared:]) for response in slot],
        "length": max(map(len, slot)),
    }
