"""Comparisons on one prompt become one comparison, so that the prompt is computed once."""

from dataclasses import replace

from datasets import Dataset, Features

from rmlab.data.cache import quiet
from rmlab.data.trees import FEATURES, TokenTree, common_prefix


def merged_by_prompt(trees: Dataset) -> Dataset:
    """Comparisons on the same prompt (and of the same subset) as one, with each different response once.

    Rewards and pairs stay what they are; a prompt that K - 1 rows repeat is computed once instead of K - 1 times.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(zip(trees["prompt_id"], trees["subset"], strict=True)):
        places.setdefault(key, []).append(place)
    if len(places) == len(trees):
        return trees
    merged = [merge([TokenTree.of(trees[place]) for place in rows]).row() for rows in places.values()]
    with quiet():
        return Dataset.from_list(merged, features=Features(FEATURES))


def merge(trees: list[TokenTree]) -> TokenTree:
    """One token tree of several on the same prompt; identity and flags are those of the first."""
    slot: dict[tuple[int, ...], int] = {}  # token ids of a response -> its place among all of them
    lengths: list[int] = []
    gold: list[float] = []
    better: list[int] = []
    worse: list[int] = []
    all_gold = all(tree.gold for tree in trees)
    for tree in trees:
        tokens = [tuple(response) for response in tree.responses]
        for k, response in enumerate(tokens):
            if response not in slot:
                slot[response] = len(slot)
                lengths.append(tree.lengths[k])
                if all_gold:  # of some responses alone it could not be told whose it is
                    gold.append(tree.gold[k])
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
        length=max(map(len, slot)),
    )
