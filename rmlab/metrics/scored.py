"""A comparison with the rewards of its responses: what metrics, scores files and the report share."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ScoredComparison:
    """K responses with their rewards, and P preferences between them. `index` is its place in the evaluation set."""

    index: int
    id: str
    prompt_id: str
    subset: str
    rewards: list[float]  # (K,)
    lengths: list[int]  # (K,) tokens of each response without its prompt
    gold: list[float]  # (K,) the true rewards, or ratings; empty where they are not known
    better: list[int]  # (P,)
    worse: list[int]  # (P,)
    strength: list[float]  # (P,)
    probability: list[float]  # (P,)
    # What is known of the texts: of evaluation sets and suites, where the rows are not token ids.
    style: list[list[int]] = field(default_factory=list)  # (K, S) counts of each response, see data/style.py
    excerpts: list[str] = field(default_factory=list)  # (1 + K) the end of the prompt, the beginning of each response
    weight: list[float] = field(default_factory=list)  # (P,) what a preference counts in the loss; empty: 1 each
    outputs: list[list[float]] = field(default_factory=list)  # (K, D) what the head returned, where D > 1
    columns: dict[str, list[list[float]]] = field(default_factory=dict)  # that terms read: (K or P, 1 or D) by name
