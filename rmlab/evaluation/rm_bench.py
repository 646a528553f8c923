"""RM-Bench (Liu et al. 2025, arXiv 2410.16184): three right and three wrong responses in the same three styles.

Styles are in the order concise, detailed, detailed with markdown. Of the nine pairs of a right and a wrong response,
three are hard (the wrong one is in the fancier style), three normal, three easy. Strictly more reward is right. A
domain's score is the mean of its three accuracies, and the overall score is that of chat, code, math and safety; the
prompts to refuse and those to answer are pooled in safety, not averaged.
"""

from collections.abc import Sequence

from rmlab.evaluation import SUITES, Item, Suite
from rmlab.evaluation.items import complete, over_subsets, row_of
from rmlab.evaluation.read import Part, read
from rmlab.messages import UserError
from rmlab.metrics.evaluate import TIE
from rmlab.metrics.scored import ScoredComparison

DOMAINS = ("chat", "code", "math", "safety")
STYLES = 3
PAIRS = [(right, wrong) for right in range(STYLES) for wrong in range(STYLES)]
DIFFICULTY = {
    "easy": [(right, wrong) for right, wrong in PAIRS if right > wrong],
    "normal": [(right, wrong) for right, wrong in PAIRS if right == wrong],
    "hard": [(right, wrong) for right, wrong in PAIRS if right < wrong],
}


@SUITES.register
def rm_bench(*, path: str) -> Suite:
    """path: the hub name, or the file total_dataset.json or a folder of the authors' files by domain."""
    rows, seen = [], set()
    for table in read(path, Part("train")):
        table.need("id", "prompt", "chosen", "rejected", "domain")
        for n, row in enumerate(table.rows):
            domain = next((name for name in DOMAINS if row["domain"].startswith(name)), None)
            if domain is None or len(row["chosen"]) != STYLES or len(row["rejected"]) != STYLES:
                raise UserError(
                    f"{table.where(n)}: its domain is {row['domain']!r} with {len(row['chosen'])} right and "
                    f"{len(row['rejected'])} wrong responses; it must be one of {', '.join(DOMAINS)} with 3 and 3"
                )
            identity = f"{row['domain']}-{row['id']}"
            key = (identity, row["prompt"])
            if key not in seen:  # the authors' folder has each row twice, by domain and in total_dataset.json
                rows.append(row_of(row["prompt"], row["chosen"], row["rejected"], identity, domain))
            seen.add(key)
    return Suite(rows, items, lambda counts: complete(totals(), counts))


def items(scored: Sequence[ScoredComparison]) -> list[Item]:
    """Of each row an item for each difficulty: the share of its three pairs that are right."""
    return [
        Item(c.id, c.prompt_id, f"{c.subset} {name}", share_right(c, pairs), (c.index,))
        for name, pairs in DIFFICULTY.items()
        for c in scored
    ]


def share_right(comparison: ScoredComparison, pairs: Sequence[tuple[int, int]]) -> float:
    """Of pairs (right, wrong) of styles, those where the right response has more reward."""
    rewards = comparison.rewards
    return sum(rewards[right] - rewards[STYLES + wrong] > TIE for right, wrong in pairs) / len(pairs)


def totals() -> dict[str, dict[str, float]]:
    """The overall score, the domains, the difficulties."""
    named = {
        **{domain: [f"{domain} {difficulty}" for difficulty in DIFFICULTY] for domain in DOMAINS},
        **{difficulty: [f"{domain} {difficulty}" for domain in DOMAINS] for difficulty in DIFFICULTY},
    }
    overall = [f"{domain} {difficulty}" for domain in DOMAINS for difficulty in DIFFICULTY]
    return {name: over_subsets(subsets) for name, subsets in {"overall": overall, **named}.items()}
