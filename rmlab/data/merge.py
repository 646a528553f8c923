"""Comparisons on one prompt become one comparison, so that the prompt is computed once."""

import itertools
from dataclasses import replace
from typing import TypeAlias

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from rmlab.data.cache import code, digest
from rmlab.data.columns import BATCH
from rmlab.data.config import Columns
from rmlab.data.counts import values
from rmlab.data.trees import TokenTree, common_prefix
from rmlab.upstream import fingerprint

Response: TypeAlias = tuple[tuple[int, ...], str]  # its token ids, and its columns as text


def merged_by_prompt(trees: Dataset, columns: Columns = ()) -> Dataset:
    """Comparisons on the same prompt (and of the same subset) as one, with each different response once.

    Rewards and pairs stay what they are; a prompt that K - 1 rows repeat is computed once instead of K - 1 times.
    columns: as in the options that the trees were made with. A response of which two rows know other numbers stays two.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(zip(values(trees, "prompt_id"), values(trees, "subset"), strict=True)):
        places.setdefault(key, []).append(place)
    if len(places) == len(trees):
        return trees
    features = trees.features
    merged = (merge([TokenTree.of(trees[place]) for place in rows], columns).row(features) for rows in places.values())
    parts = []  # of Arrow: as Python values all tokens take ten times the memory
    while some := list(itertools.islice(merged, BATCH)):
        parts.append(pa.Table.from_pylist(some, schema=features.arrow_schema))
    done = digest(["merged by prompt", code(), fingerprint(trees)])
    return Dataset(InMemoryTable(pa.concat_tables(parts)), fingerprint=done)


def merge(trees: list[TokenTree], columns: Columns = ()) -> TokenTree:
    """One token tree of several on the same prompt; identity and flags are those of the first."""
    slot: dict[Response, int] = {}  # a response -> its place among all of them
    first: list[tuple[TokenTree, int]] = []  # where each of them stands first
    better: list[int] = []
    worse: list[int] = []
    for tree in trees:
        responses = responses_of(tree, columns)
        for k, response in enumerate(responses):
            if response not in slot:
                slot[response] = len(slot)
                first.append((tree, k))
        better += [slot[responses[k]] for k in tree.better]
        worse += [slot[responses[k]] for k in tree.worse]
    tokens = [list(response) for response, _ in slot]
    shared = len(common_prefix(tokens))
    # Of some responses alone it could not be told whose these are.
    golden, styled = all(tree.gold for tree in trees), all(tree.style for tree in trees)
    weighs = any(tree.weight for tree in trees)
    return replace(
        trees[0],
        prefix=tokens[0][:shared],
        suffixes=[response[shared:] for response in tokens],
        better=better,
        worse=worse,
        strength=[s for tree in trees for s in tree.strength],
        probability=[p for tree in trees for p in tree.probability],
        lengths=[tree.lengths[k] for tree, k in first],
        gold=[tree.gold[k] for tree, k in first] if golden else [],
        style=[tree.style[k] for tree, k in first] if styled else [],
        excerpts=[*trees[0].excerpts[:1], *(tree.excerpts[1 + k] for tree, k in first)] if styled else [],
        length=max(map(len, tokens)),
        weight=[w for tree in trees for w in tree.weight or [1.0] * len(tree.better)] if weighs else [],
        columns=[
            [values for tree in trees for values in tree.columns[n]]
            if kind == "pair"
            else [tree.columns[n][k] for tree, k in first]
            for n, (_, kind) in enumerate(columns)
        ],
    )


def responses_of(tree: TokenTree, columns: Columns) -> list[Response]:
    """(K,) what tells the responses of a tree apart: their tokens, and what the loss reads of them."""
    own = [values for values, (_, kind) in zip(tree.columns, columns, strict=True) if kind != "pair"]
    return [(tuple(tokens), str([values[k] for values in own])) for k, tokens in enumerate(tree.responses)]
