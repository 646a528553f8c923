"""JudgeBench (Tan et al. 2025, arXiv 2410.12784): which of two responses of one model is right, by objective labels.

Reward models score each response once (`single_game`), and B>A is what is not A>B, so also a tie. The authors report
the accuracy over all pairs; others (Skywork-Reward-V2) the mean of the four subsets.
"""

from collections.abc import Sequence

from rmlab.evaluation import SUITES, Item, Suite
from rmlab.evaluation.chat import asked
from rmlab.evaluation.items import over_items, over_subsets
from rmlab.evaluation.read import Part, read
from rmlab.messages import UserError, check_one_of
from rmlab.metrics.evaluate import TIE
from rmlab.metrics.scored import ScoredComparison

MODELS = {"gpt": "gpt-4o", "claude": "claude"}
SUBSETS = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "coding",
}
GOLD = {"A>B": [1.0, 0.0], "B>A": [0.0, 1.0]}


@SUITES.register
def judge_bench(*, path: str, responses: str) -> Suite:
    """path: the hub name, or files of the authors' repository. responses: gpt (350 pairs) or claude (270)."""
    check_one_of("responses", responses, MODELS)
    rows = []
    for table in read(path, Part(responses)):
        table.need("pair_id", "source", "question", "response_model", "response_A", "response_B", "label")
        for n, row in enumerate(table.rows):
            if not row["response_model"].startswith(MODELS[responses]):
                continue
            subset = next((s for start, s in SUBSETS.items() if row["source"].startswith(start)), None)
            if subset is None or row["label"] not in GOLD:
                raise UserError(f"{table.where(n)}: unknown source {row['source']!r} or label {row['label']!r}")
            first = row["label"] == "A>B"
            rows.append(
                {
                    "prompt": asked(row["question"]),
                    "responses": [row["response_A"], row["response_B"]],
                    "preferences": [{"better": 0 if first else 1, "worse": 1 if first else 0}],
                    "gold_rewards": GOLD[row["label"]],
                    "id": row["pair_id"],
                    "subset": subset,
                }
            )
    if not rows:
        raise UserError(f"data.path: {path} holds no responses of {responses}")
    return Suite(rows, items, lambda counts: {"micro": over_items(counts), "macro": over_subsets(counts)})


def items(scored: Sequence[ScoredComparison]) -> list[Item]:
    """1 where the verdict, A>B or B>A, is the label."""
    return [
        Item(c.id, c.prompt_id, c.subset, float(first_wins(c) == (c.gold[0] > c.gold[1])), (c.index,)) for c in scored
    ]


def first_wins(comparison: ScoredComparison) -> bool:
    """Whether the verdict is A>B."""
    return comparison.rewards[0] - comparison.rewards[1] > TIE
