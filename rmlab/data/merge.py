"""Comparisons on one prompt become one comparison, so that the prompt is computed once."""

import itertools
from dataclasses import replace

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from rmlab.data.cache import code, digest
from rmlab.data.columns import BATCH
from rmlab.data.counts import values
from rmlab.data.trees import TokenTree, common_prefix
from rmlab.upstream import fingerprint


def merged_by_prompt(trees: Dataset) -> Dataset:
    """Comparisons on the same prompt (and of the same subset) as one, with each different response once.

    Rewards and pairs stay what they are; a prompt that K - 1 rows repeat is computed once instead of K - 1 times.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(zip(values(trees, "prompt_id"), values(trees, "subset"), strict=True)):
        places.setdefault(key, []).append(place)
    if len(places) == len(trees):
        return trees
    features = trees.features
    merged = (merge([TokenTree.of(trees[place]) for place in rows]).row(features) for rows in places.values())
    parts = []  # of Arrow: as Python values all tokens take ten times the memory
    while some := list(itertools.islice(merged, BATCH)):
        parts.append(pa.Table.from_pylist(some, schema=features.arrow_schema))
    done = digest(["merged by prompt", code(), fingerprint(trees)])
    return Dataset(InMemoryTable(pa.concat_tables(parts)), fingerprint=done)


def merge(trees: list[TokenTree]) -> TokenTree:
    """One token tree of several on the same prompt; identity and flags are those of the first."""
    slot: dict[tuple[int, ...], int] = {}  # token ids of a response -> its place among all of them
    lengths: list[int] = []
    gold: list[float] = []
    style: list[list[int]] = []
    excerpts = trees[0].excerpts[:1]
    better: list[int] = []
    worse: list[int] = []
    all_gold, all_style = all(tree.gold for tree in trees), all(tree.style for tree in trees)
    for tree in trees:
        tokens = [tuple(response) for response in tree.responses]
        for k, response in enumerate(tokens):
            if response not in slot:
                slot[response] = len(slot)
                lengths.append(tree.lengths[k])
                if all_gold:  # of some responses alone it could not be told whose it is
                    gold.append(tree.gold[k])
                if all_style:
                    style.append(tree.style[k])
                    excerpts.append(tree.excerpts[1 + k])
        better += [slot[tokens[k]] for k in tree.better]
        worse += [slot[tokens[k]] for k in tree.worse]
    shared = len(common_prefix(list(slot)))
    return replace(
        trees[0],
        prefix=list(next(iter(slot))[:shared]),
        suffixes=[list(response[shared:]) for response in slot],
        better=better,
        worse=worse,
        strength=[s for tree in trees for s in tree.strength],
        probability=[p for tree in trees for p in tree.probability],
        lengths=lengths,
        gold=gold,
        style=style,
        excerpts=excerpts if all_style else [],
        length=max(map(len, slot)),
    )
