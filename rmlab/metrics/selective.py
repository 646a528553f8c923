"""Whether a measure of doubt knows the errors: how it ranks them, and what is left without what is doubted most.

Hanley & McNeil 1982 (AUROC as a rank statistic), Obuchowski 1997 (its variance where items belong together), Geifman &
El-Yaniv 2017 (risk and coverage). RewardUQ 2602.24040 (rates of what is confidently right and confidently wrong).

Throughout: doubt (P,), large where a preference is judged wrongly; right (P,) 1, 0, or 0.5 where the rewards tie; and
prompt (P,), equal where two preferences belong together.
"""

import numpy as np

from rmlab.metrics.correlation import changes
from rmlab.metrics.pairs import Number, mean, share


def detection(doubt: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """(P,) values whose mean is the AUROC of doubt for errors, and whose variance over prompts is that of the AUROC.

    The AUROC is how likely an error is doubted more than what is right, equal doubt counting half. What a preference
    adds to it is where it stands among those of the other kind. None where all are right, or none is.
    """
    wrong = 1 - right
    if not wrong.sum() or not right.sum():
        return None
    # Of each: how much of what is right is doubted less; how much of what is wrong is doubted more.
    above, below = below_of(doubt, right) / right.sum(), below_of(-doubt, wrong) / wrong.sum()
    value = float((wrong * above).sum() / wrong.sum())
    return value + len(doubt) * (wrong * (above - value) / wrong.sum() + right * (below - value) / right.sum())


def below_of(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(P,) the weight of the values that are smaller than each, and half of the weight of those that equal it."""
    _, block = np.unique(values, return_inverse=True)
    each = np.bincount(block, weights=weight)
    return (np.cumsum(each) - each / 2)[block]


def auroc(doubt: np.ndarray, right: np.ndarray, prompt: np.ndarray) -> Number | None:
    """{value, low, high, n}, 95%, prompts drawn whole; None where all are right, or none is."""
    values = detection(doubt, right)
    return None if values is None else mean(values, prompt)


def auroc_difference(doubt: np.ndarray, other: np.ndarray, right: np.ndarray, prompt: np.ndarray) -> Number | None:
    """The same of the AUROC of one doubt minus that of the other, on the same preferences."""
    first, second = detection(doubt, right), detection(other, right)
    return None if first is None or second is None else mean(first - second, prompt)


# ---- what is left without what is doubted most ----


def coverage(doubt: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(P,) accuracy of the k preferences that are doubted least, k = 1 ... P; of equal doubt any order, on average."""
    order = np.argsort(doubt, kind="stable")
    block = np.cumsum(changes(doubt[order])) - 1
    expected = (np.bincount(block, weights=right[order]) / np.bincount(block))[block]
    return np.cumsum(expected) / np.arange(1, len(right) + 1)


def area(doubt: np.ndarray, right: np.ndarray) -> float:
    """Under the curve of risk (share of errors) over coverage: 0 is best, and doubt at random has the error rate."""
    return float(1 - coverage(doubt, right).mean())


def kept(doubt: np.ndarray, right: np.ndarray, prompt: np.ndarray, part: float) -> Number:
    """Accuracy of the part that is doubted least, with its interval; what equals the last one's doubt stays too."""
    limit = np.sort(doubt)[max(1, round(part * len(doubt))) - 1]
    return share(right[doubt <= limit], prompt[doubt <= limit])


# ---- what is claimed with confidence ----


def confident_rates(gap: np.ndarray, sd: np.ndarray, right: np.ndarray, width: float) -> dict[str, float]:
    """Shares of all: `true`, `false` (right or wrong), `confident_true`, `confident_false`: |gap| above width * sd."""
    sure = np.abs(gap) > width * sd
    rates = {"true": right, "false": 1 - right}
    return {name: float(of.mean()) for name, of in rates.items()} | {
        f"confident_{name}": float((of * sure).mean()) for name, of in rates.items()
    }


def confidence_score(rates: dict[str, float], beta: float) -> float:
    """RewardUQ's one number: CTR / ((1 - beta) TR + beta) - CFR / ((1 - beta) FR + beta).

    beta 1: confidently right minus confidently wrong, of all; 0: each of those that are right and wrong.
    """

    def part(name: str) -> float:
        whole = (1 - beta) * rates[name] + beta
        return rates[f"confident_{name}"] / whole if whole else 0.0

    return part("true") - part("false")
