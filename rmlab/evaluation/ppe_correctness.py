"""PPE, correctness (Frick et al. 2025, arXiv 2410.14872): 32 responses to each prompt of five tasks, right or wrong.

accuracy: on the authors' sampled pairs of a right and a wrong response (a tie of rewards is wrong), mean of the tasks.
best of k: how often the response with the most reward, of all 32, is right, mean of the tasks; n responses at the top
count 1 / n each.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rmlab.evaluation import SUITES, Item, Suite
from rmlab.evaluation.chat import asked
from rmlab.evaluation.items import complete, over_subsets
from rmlab.evaluation.read import Part, Table, named, read
from rmlab.evaluation.reward_bench_2 import best_of
from rmlab.messages import UserError
from rmlab.metrics.evaluate import TIE
from rmlab.metrics.scored import ScoredComparison

TASKS = {"mmlu": "mmlu_pro", "math": "math", "gpqa": "gpqa", "ifeval": "ifeval", "mbpp": "mbpp_plus"}
BEST = "best of k"
PAIR = "sampled_conflict_pairs"


@SUITES.register
def ppe_correctness(*, path: str | Mapping[str, str]) -> Suite:
    """path: a folder with a file or folder per task, or the hub name of each task, {mmlu_pro: ..., math: ...}."""
    if isinstance(path, str):
        tables = [(named(table.label, TASKS, table.name), table) for table in read(path, Part("train"))]
    else:
        told = {place: named(key, TASKS, f"path.{key}") for key, place in path.items()}
        tables = [(task, table) for place, task in told.items() for table in read(place, Part("train"))]
    rows, pairs = [], []
    for task, table in tables:
        table.need("prompt", "scores", "response_1", PAIR)
        for n in range(len(table.rows)):
            rows.append(row_in(table, n, task))
            pairs.append([(p["better"], p["worse"]) for p in rows[-1]["preferences"]])
    totals = {
        "accuracy": over_subsets(TASKS.values()),
        BEST: over_subsets(f"{task} {BEST}" for task in TASKS.values()),
    }
    return Suite(rows, lambda scored: items(scored, pairs), lambda counts: complete(totals, counts))


def row_in(table: Table, index: int, task: str) -> dict[str, Any]:
    """All responses to a prompt, with the pairs that the authors sampled. UserError where they do not fit together."""
    row, where = table.rows[index], table.where(index)
    columns = sorted((c for c in row if re.fullmatch(r"response_\d+", c)), key=lambda c: int(c.rpartition("_")[2]))
    scores = [float(score) for score in row["scores"]]
    if len(scores) != len(columns):
        raise UserError(f"{where}: scores holds {len(scores)} values for {len(columns)} responses")
    pairs = [sorted(pair, key=lambda place: -scores[place]) for pair in row[PAIR] if max(pair) < len(scores)]
    decided = [{"better": better, "worse": worse} for better, worse in pairs if scores[better] > scores[worse]]
    if not decided:
        raise UserError(f"{where}: {PAIR} holds no pair of a right and a wrong response")
    return {
        "prompt": asked(row["prompt"]),
        "responses": [row[column] for column in columns],
        "preferences": decided,
        "gold_rewards": scores,
        "id": f"{task}-{row.get('question_id', index)}",
        "subset": task,
    }


def items(scored: Sequence[ScoredComparison], pairs: Sequence[Sequence[tuple[int, int]]]) -> list[Item]:
    """An item for each sampled pair, and one for each prompt: whether the response at the top is right."""
    return [
        *(
            Item(f"{c.id}-{n}", c.prompt_id, c.subset, float(c.rewards[b] - c.rewards[w] > TIE), (c.index,))
            for c in scored
            for n, (b, w) in enumerate(pairs[c.index])
        ),
        *(top(c) for c in scored),
    ]


def top(comparison: ScoredComparison) -> Item:
    """The share that is right of those with the most reward."""
    item = best_of(comparison)
    return Item(item.id, item.prompt_id, f"{item.subset} {BEST}", item.value, item.comparisons, item.chance)
