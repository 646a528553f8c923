"""RMB (Zhou et al. 2025, arXiv 2410.09893): pairs and best-of-n sets on 49 scenarios, for help and against harm.

A pair is right where the chosen response has more reward, a best-of-n set where the best one has more than every
loser. The overall score is the mean of four accuracies: pairs and best-of-n sets, each of helpfulness and of
harmlessness.
"""

from collections.abc import Mapping
from typing import Any

from rmlab.evaluation import SUITES, Suite
from rmlab.evaluation.items import Totals, complete, mean_of, over_items, row_of, strict_items
from rmlab.evaluation.read import Part, Table, read
from rmlab.messages import UserError

KINDS = ("pairwise", "best-of-n")
GOALS = ("Helpfulness", "Harmlessness")


@SUITES.register
def rmb(*, path: str | None) -> Suite:
    """path: the folder RMB_dataset of the authors' repository."""
    tables = read(path, Part("train"))
    rows = [row_in(table, n) for table in tables for n in range(len(table.rows))]
    return Suite(rows, strict_items, lambda counts: complete(totals(counts), counts))


def row_in(table: Table, index: int) -> dict[str, Any]:
    """A pair or a best-of-n set, in the subset of its kind, goal and, for help, its task. UserError for neither."""
    row, where = table.rows[index], table.where(index)
    if not index:
        table.need("conversation_input", "category_path")
    names: list[str] = [*row["category_path"].split("/"), ""]
    goal, tasks = names[1], names[2:]
    pair = set(row) >= {"chosen", "reject", "pair_uid"}
    if goal not in GOALS or not (pair or set(row) >= {"bon_best", "loser_list", "bon_uid"}):
        raise UserError(
            f"{where}: neither pair_uid, chosen and reject nor bon_uid, bon_best and loser_list, with a category_path "
            f"of {' or '.join(GOALS)}"
        )
    subset = " ".join(filter(None, [KINDS[not pair], goal, *tasks[: goal == "Helpfulness"]]))
    best, losers = (row["chosen"], [row["reject"]]) if pair else (row["bon_best"], row["loser_list"])
    prompt = [{"role": m["role"], "content": m["content"]} for m in row["conversation_input"]]
    identity = row["pair_uid"] if pair else row["bon_uid"]
    return row_of(prompt, [best["answer"]], [loser["answer"] for loser in losers], identity, subset)


def totals(counts: Mapping[str, int]) -> Totals:
    """The overall score and the four accuracies that it is the mean of."""
    parts = {
        f"{kind} {goal}": [subset for subset in counts if subset.startswith(f"{kind} {goal}")]
        for goal in GOALS
        for kind in KINDS
    }
    there = {name: over_items(counts, subsets) for name, subsets in parts.items() if subsets}
    return {"overall": mean_of(*there.values()), **there} if len(there) == len(parts) else there
