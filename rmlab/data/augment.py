"""Rows that are added to a training source: answers to other prompts, so that what is said must fit what was asked.

rrm (Robust RM, 2409.13156): to a comparison of a better and a worse response, those of two others are put beside them.
Either response to this prompt beats each of the four, which is 8 preferences; between the four there is nothing to
prefer, which is 6 ties.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset, IterableDataset

from rmlab.data import ROW, Comparison
from rmlab.data.columns import as_text, read_row, read_rows, where_of
from rmlab.data.config import Options
from rmlab.data.rows import to_comparison
from rmlab.data.trees import prompt_id
from rmlab.messages import UserError, say

LENT = 2  # comparisons that lend their responses to each


@dataclass(frozen=True)
class Triple:
    """The best and the worst response of a comparison, and its prompt."""

    index: int  # of the row
    prompt: str  # its id
    best: int
    worst: int
    texts: bool  # plain texts, not chat messages

    @classmethod
    def of(cls, comparison: Comparison, index: int) -> "Triple | None":
        """None of a comparison that nothing can be put beside: without a prompt of its own, or all ties."""
        wins = [0.0] * len(comparison.responses)
        for p in comparison.preferences:
            wins[p.better] += p.probability - 0.5
            wins[p.worse] -= p.probability - 0.5
        best, worst = wins.index(max(wins)), wins.index(min(wins))
        if not comparison.prompt or best == worst:
            return None
        return cls(index, prompt_id(comparison), best, worst, isinstance(comparison.responses[0], str))


def refuse_augmentation(rows: Dataset | IterableDataset, where: str) -> None:
    """UserError for rows that nothing can be put beside: streams, and rows of token ids."""
    if isinstance(rows, IterableDataset):
        raise UserError(f"{where}.augment needs all rows at once, which a stream does not have; leave one of them out")
    if len(rows) and to_comparison(read_row(rows[0]), where_of(where, 0)).tokenised:
        raise UserError(f"{where}.augment needs texts, and the rows are token ids; leave it out")


def rrm(rows: Dataset, name: str, seed: int) -> Dataset:
    """A row more for each row that has a prompt and a winner: its best and worst response and those of two others.

    Which two is a random order's: every row lends its responses twice, or about so often where rows share a prompt.
    Only responses of these `rows` are lent: give those of the training split. UserError for fewer than 3 prompts.
    """
    comparisons = (to_comparison(row, where_of(name, n)) for n, row in enumerate(read_rows(rows)))
    triples = [t for t in map(Triple.of, comparisons, itertools.count()) if t is not None]
    added = []
    for triple, others in sorted(lent(triples, seed), key=lambda each: each[0].index):
        three = [to_comparison(read_row(rows[t.index]), where_of(name, t.index)) for t in (triple, *others)]
        added.append(as_text(beside(three, [triple, *others]), where_of(name, triple.index)))
    if not added:
        raise UserError(
            f"data.train.{name}.augment: rrm needs at least {LENT + 1} prompts with a better and a worse response, "
            f"and {len(triples)} of {len(rows)} rows have one; leave it out"
        )
    say(f"{name}: rrm adds {len(added):,} rows to {len(rows):,}, of 8 preferences and 6 ties each")
    return Dataset.from_dict({ROW: added})


def lent(triples: Sequence[Triple], seed: int) -> Iterator[tuple[Triple, list[Triple]]]:
    """Every triple with the next two of a random order that are on other prompts, of the same kind of text."""
    for texts in (True, False):
        order = [t for t in triples if t.texts == texts]
        if len({t.prompt for t in order}) <= LENT:
            continue
        random.Random(seed).shuffle(order)
        for place, triple in enumerate(order):
            others = {triple.prompt: triple}
            for step in itertools.count(1):
                other = order[(place + step) % len(order)]
                others.setdefault(other.prompt, other)
                if len(others) > LENT:
                    break
            yield triple, list(others.values())[1:]


def beside(comparisons: Sequence[Comparison], triples: Sequence[Triple]) -> dict[str, Any]:
    """The row of the first comparison with the responses of the others beside its own: 2 own, then 4 lent ones."""
    own = comparisons[0]
    responses = [c.responses[k] for c, t in zip(comparisons, triples, strict=True) for k in (t.best, t.worst)]
    lent_ones = range(2, len(responses))
    beaten = [{"better": i, "worse": j} for i in (0, 1) for j in lent_ones]
    neutral = [{"better": i, "worse": j, "probability": 0.5} for i, j in itertools.combinations(lent_ones, 2)]
    template = dict(own.template)
    tools = template.pop("tools", None)
    weight = sum(p.weight for p in own.preferences) / len(own.preferences)
    return {
        "id": f"{triples[0].index if own.id is None else own.id} rrm",
        "subset": own.subset,
        "prompt": own.prompt,
        "responses": responses,
        "preferences": beaten + neutral,
        "weight": weight,
        **({"tools": tools} if tools else {}),
        **({"chat_template_kwargs": template} if template else {}),
    }


def of_added_rows(options: Options) -> Options:
    """How added rows become tokens: one that is too long, or says nothing new, is left out, and never an error.

    What the loss reads of rows, nobody knows of them.
    """
    overlong = "drop" if options.overlong == "error" else options.overlong
    return replace(options, overlong=overlong, identical="drop", duplicates="keep", empty="keep", complete=False)
