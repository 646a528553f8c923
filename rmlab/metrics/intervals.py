"""95% intervals of what an evaluation set measures, for preferences that may share prompts.

Preferences on one prompt are not independent: ten on one tell less than ten on ten. So a variance is that of prompts
drawn whole, and a share has the interval of as many independent items as would be as uncertain.

Wilson 1927 (the interval), Kish 1965 (the design effect), Korn & Graubard 1998 (the two together, with Student's
quantiles where prompts are few).
"""

import numpy as np

LEVEL = 0.95

Interval = tuple[float, float]


def share_interval(values: np.ndarray, prompts: np.ndarray) -> Interval:
    """Of the mean of `values` (P,) in [0, 1]; never beyond them. prompts: (P,), equal where two belong together."""
    return wilson(float(values.mean()), effective_items(values, prompts))


def wilson(share: float, items: float) -> Interval:
    """Of a share that was seen in so many independent items, which need not be a whole number."""
    z2 = normal_quantile() ** 2
    centre = (share + z2 / (2 * items)) / (1 + z2 / items)
    half = np.sqrt(z2 * (share * (1 - share) / items + z2 / (4 * items**2))) / (1 + z2 / items)
    return max(0.0, min(share, float(centre - half))), min(1.0, max(share, float(centre + half)))


def effective_items(values: np.ndarray, prompts: np.ndarray) -> float:
    """How many independent items would tell as much: the preferences divided by the design effect of their prompts.

    Never more than there are. Where all values are 0 or all are 1, nothing shows how alike those of one prompt are:
    then it is the prompts that count.
    """
    items, groups = len(values), len(np.unique(prompts))
    share = values.mean()
    if groups in (1, items) or share in (0, 1):
        return float(groups)
    variance = variance_of_mean(values, prompts)
    alone = share * (1 - share)  # the variance of one item
    few = (student_quantile(items - 1) / student_quantile(groups - 1)) ** 2
    return float(few * (min(items, alone / variance) if variance > 0 else items))


def mean_interval(values: np.ndarray, prompts: np.ndarray) -> Interval | None:
    """Student's, of the mean of any `values` (P,) with prompts (P,) drawn whole; None where there is one prompt."""
    groups = len(np.unique(prompts))
    if groups < 2:
        return None
    half = student_quantile(groups - 1) * np.sqrt(variance_of_mean(values, prompts))
    return float(values.mean() - half), float(values.mean() + half)


def variance_of_mean(values: np.ndarray, prompts: np.ndarray) -> float:
    """Of the mean of `values` (P,), estimated from how the sums of G >= 2 prompts differ."""
    _, group = np.unique(prompts, return_inverse=True)
    sums = np.bincount(group, weights=values - values.mean())
    return float(len(sums) / (len(sums) - 1) * (sums**2).sum() / len(values) ** 2)


def normal_quantile() -> float:
    """1.96: so many standard deviations on each side hold LEVEL."""
    from scipy.special import ndtri

    return float(ndtri((1 + LEVEL) / 2))


def student_quantile(freedom: int) -> float:
    """The same of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))
