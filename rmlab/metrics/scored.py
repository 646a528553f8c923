"""A comparison with the rewards of its responses: what metrics, scores files and the report share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoredComparison:
    """K responses with their rewards, and P preferences between them. `index` is its place in the evaluation set."""

    index: int
    id: str
    prompt_id: str
    subset: str
    rewards: list[float]  # (K,)
    lengths: list[int]  # (K,) tokens of each response without its prompt
    gold: list[float]  # (K,) the true rewards, or empty
    better: list[int]  # (P,)
    worse: list[int]  # (P,)
    strength: list[float]  # (P,)
    probability: list[float]  # (P,)
