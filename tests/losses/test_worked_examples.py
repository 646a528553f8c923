"""Every term on numbers that are worked out here, from the paper's formula, with Python's floats."""

import math
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from catalogue import OPTIONS, TERMS, batch, built

from rmlab.losses import Preferences, build_loss
from rmlab.messages import UserError

R = [1.2, -0.3, 0.4, 2.0]  # rewards of a comparison of two responses, and of another
NAN = math.nan


def log_sigma(z: float) -> float:
    return -math.log(1 + math.exp(-z))


def sigma(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def log_phi(z: float) -> float:
    return math.log(0.5 * math.erfc(-z / math.sqrt(2)))


def average_of_sigma(mean: float, variance: float) -> float:
    """E sigma(g), g normal: the integral as a sum over 40,001 places within 10 deviations."""
    deviation = math.sqrt(variance)
    places = [(n - 20_000) / 2_000 for n in range(40_001)]
    weights = [math.exp(-0.5 * t * t) for t in places]
    return sum(w * sigma(mean + deviation * t) for w, t in zip(weights, places, strict=True)) / sum(weights)


def corr(x: list[float], y: list[float]) -> float:
    mx, my = fmean(x), fmean(y)
    both = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return both / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def mixed(p: float, loss) -> list[float]:
    """Of the pairs 0 > 1, surely, with a gap of 1.5, and 2 > 3, with probability p and a gap of -1.6."""
    return [loss(1.5), p * loss(-1.6) + (1 - p) * loss(1.6)]


def focal_of_internlm2(d: float) -> float:
    return -((1 - 2 * max(0, sigma(d) - 0.5)) ** 2) * log_sigma(d)


def softmax(logits: list[float]) -> list[float]:
    total = sum(map(math.exp, logits))
    return [math.exp(x) / total for x in logits]


LOGITS = [[0.1, 0.5, -0.2, 1.0], [0.0, 0.3, 0.2, -1.0], [1.0, 0.0, 0.0, 0.5], [-0.4, 0.2, 0.6, 0.1]]
GRADES = [softmax(logits) for logits in LOGITS]
NORMAL = [[1.2, 0.1], [-0.3, -0.5], [0.4, 0.3], [2.0, -1.0]]  # means and log variances
LATENT = [
    [1.2, 0.5, -1.0, 0.2, -0.4],
    [-0.3, 0.1, 0.3, 0.0, 0.6],
    [0.4, 0.0, 0.0, 0.0, 0.0],
    [2.0, 2.0, 1.0, -1.0, 0.5],
]
VECTORS = [[0.6, 0.8, 1.0, 0.0], [0.0, 1.0, 0.5, 0.5], [1.0, 0.0, 0.2, 0.1], [0.8, -0.6, 0.0, 1.0]]
HEADS = [[1.2, 0.3, 0.7], [-0.3, 0.9, 0.7], [0.4, 0.1, 0.7], [2.0, -0.5, 0.7]]
RATED = [[1.0, NAN], [0.0, 2.0], [NAN, NAN], [3.0, 1.5]]
VARIANCE = [sum(math.exp(NORMAL[r][1]) for r in pair) for pair in ((0, 1), (2, 3))]
CHANCE = [  # of each pair: that the first has the higher grade, that the second has
    [sum(GRADES[b][i] * GRADES[w][j] for i in range(4) for j in range(i)) for b, w in ((x, y), (y, x))]
    for x, y in ((0, 1), (2, 3))
]
LOGPS, REFERENCE, LENGTHS = [-2.0, -3.0, -5.0, -4.0], [-2.5, -2.0, -5.0, -4.5], [10.0, 30.0, 20.0, 50.0]

SHORTER = [30.0, 50.0, 40.0, 10.0]  # where the first output is higher: their correlation is negative


def kl(mu: float, s: float) -> float:
    return -0.5 * (1 + s - mu**2 - math.exp(s))


def gpm(a: list[float], b: list[float]) -> float:
    return a[0] * b[1] - a[1] * b[0] + a[2] * b[3] - a[3] * b[2]


def pinball(rating: float, quantiles: list[float]) -> float:
    return fmean((rating - q) * (t - (rating < q)) for t, q in zip((0.1, 0.5, 0.9), quantiles, strict=True))


# term -> (options, outputs or None, columns, probability of the second pair, what it is worth)
EXAMPLES = {
    "anchor": ({"count": 2}, HEADS, {}, 1.0, [0.7] * 4),
    "batch_zero": ({}, None, {}, 1.0, ((1.2 - 0.3 + 0.4 + 2.0) / 4) ** 2),
    "bottleneck_kl": ({}, LATENT, {}, 1.0, [0.5 * (kl(x[1], x[3]) + kl(x[2], x[4])) for x in LATENT]),
    "bradley_terry": (
        {"margin": 0.5, "temperature": 2.0, "label_smoothing": 0.1}, None, {}, 0.7,
        [-0.9 * log_sigma((1.5 - 0.5) / 2) - 0.1 * log_sigma(-(1.5 - 0.5) / 2),
         -0.66 * log_sigma((-1.6 - 1.5) / 2) - 0.34 * log_sigma((1.6 + 1.5) / 2)],
    ),
    "center": ({}, None, {}, 1.0, [0.9**2, 2.4**2]),
    "cross_entropy": (
        {}, None, {}, 0.7,
        [-log_sigma(1.2) - log_sigma(0.3),
         -0.7 * (log_sigma(0.4) + log_sigma(-2.0)) - 0.3 * (log_sigma(-0.4) + log_sigma(2.0))],
    ),
    "davidson": (
        {"nu": 0.5}, None, {}, 0.5,
        [-math.log(math.exp(0.75) / (math.exp(0.75) + math.exp(-0.75) + 0.5)),
         -math.log(0.5 / (math.exp(0.8) + math.exp(-0.8) + 0.5))],
    ),
    "discrete_margin": (
        {}, None, {}, 1.0,  # strengths 1 and 3 of levels 1 and 2: the second and the third band
        [-3 * log_sigma(1.5 - 0.5), -10 * log_sigma(-1.6 - 1.0)],
    ),
    "focal": ({}, None, {}, 0.7, mixed(0.7, lambda d: -((1 - sigma(d)) ** 2) * log_sigma(d))),
    "focal_internlm2": ({}, None, {}, 0.7, mixed(0.7, focal_of_internlm2)),
    "gaussian_nll": (
        {}, NORMAL, {"ratings": [1.0, NAN, 2.0, 0.0]}, 1.0,
        [0.5 * math.log(math.exp(0.1)) + (1 - 1.2) ** 2 / (2 * math.exp(0.1)), 0.0,
         0.15 + (2 - 0.4) ** 2 / (2 * math.exp(0.3)), -0.5 + 4 / (2 * math.exp(-1))],
    ),
    "gaussian_preference": (
        {}, NORMAL, {}, 0.7,
        [-log_phi(1.5 / VARIANCE[0] ** 0.5),
         -0.7 * log_phi(-1.6 / VARIANCE[1] ** 0.5) - 0.3 * log_phi(1.6 / VARIANCE[1] ** 0.5)],
    ),
    "general_preference": (
        {"temperature": 0.5}, VECTORS, {}, 1.0,
        [-log_sigma(gpm(VECTORS[0], VECTORS[1]) / 0.5), -log_sigma(gpm(VECTORS[2], VECTORS[3]) / 0.5)],
    ),
    "grm_dpo": (
        {}, None, {"logps": LOGPS, "reference_logps": REFERENCE}, 1.0,
        [-log_sigma(0.1 * ((-2.0 + 2.5) - (-3.0 + 2.0))), -log_sigma(0.1 * (0.0 - 0.5))],
    ),
    "grm_dpo_noref": ({}, None, {"logps": LOGPS}, 1.0, [-log_sigma(0.1), -log_sigma(-0.1)]),
    "grm_logp": ({}, None, {"logps": LOGPS}, 0.7, [2.0, 0.7 * 5 + 0.3 * 4]),
    "grm_sft": ({}, None, {"logps": LOGPS}, 0.7, [-log_sigma(-0.2), -0.7 * log_sigma(-0.5) - 0.3 * log_sigma(-0.4)]),
    "hinge": ({}, None, {}, 0.7, mixed(0.7, lambda d: max(0.0, 1 - d))),
    "l2": ({}, None, {}, 1.0, [r**2 for r in R]),
    "length_penalty": ({}, None, {"lengths": LENGTHS}, 1.0, [-log_sigma(1.5 - 0.2), -log_sigma(-1.6 - 0.3)]),
    "log_barrier": ({}, None, {}, 1.0, [-(math.log(r + 5) + math.log(5 - r)) for r in R]),
    "logit_norm": (
        {"epsilon": 1e-6}, None, {}, 1.0,
        [-log_sigma(1.5 / math.hypot(1.2, 0.3)), -log_sigma(-1.6 / math.hypot(0.4, 2.0))],
    ),
    "margin_mse": ({}, None, {}, 0.7, mixed(0.7, lambda d: (d - 1) ** 2)),
    "members": (
        {}, HEADS, {}, 1.0,
        [fmean(-log_sigma(HEADS[b][m] - HEADS[w][m]) for m in range(3)) for b, w in ((0, 1), (2, 3))],
    ),
    "odin_length": (
        {}, HEADS, {"lengths": SHORTER}, 1.0,
        abs(corr([x[0] for x in HEADS], SHORTER)) + 1 - corr([x[1] for x in HEADS], SHORTER),
    ),
    "odin_overlap": ({}, HEADS, {}, 1.0, [0.7] * 4),
    "odin_preference": ({}, HEADS, {}, 1.0, [-log_sigma(1.5 - 0.6), -log_sigma(-1.6 + 0.6)]),
    "ordinal_ce": (
        {}, LOGITS, {"ratings": [1.0, 3.0, NAN, 0.0]}, 1.0,  # grades 0, 1, 2, 4: a rating of 3 is half of two grades
        [-math.log(GRADES[0][1]), -0.5 * math.log(GRADES[1][2]) - 0.5 * math.log(GRADES[1][3]), 0.0,
         -math.log(GRADES[3][0])],
    ),
    "ordinal_preference": (
        {}, LOGITS, {}, 0.7,
        [-math.log(CHANCE[0][0]), -0.7 * math.log(CHANCE[1][0]) - 0.3 * math.log(CHANCE[1][1])],
    ),
    "pinball": (
        {}, HEADS, {"ratings": [1.0, 0.5, NAN, -1.0]}, 1.0,
        [pinball(1.0, HEADS[0]), pinball(0.5, HEADS[1]), 0.0, pinball(-1.0, HEADS[3])],
    ),
    "plackett_luce": ({}, None, {}, 1.0, [-log_sigma(1.5), -log_sigma(-1.6)]),
    "pos_reg": ({}, None, {}, 0.7, [-log_sigma(1.2), -0.7 * log_sigma(0.4) - 0.3 * log_sigma(2.0)]),
    "purm": (
        {"points": 64}, NORMAL, {}, 0.7,
        [-math.log(average_of_sigma(1.5, VARIANCE[0])),
         -0.7 * math.log(average_of_sigma(-1.6, VARIANCE[1])) - 0.3 * math.log(average_of_sigma(1.6, VARIANCE[1]))],
    ),
    "rao_kupper": (
        {"theta": 3.0}, None, {}, 0.5,
        [-math.log(math.exp(1.2) / (math.exp(1.2) + 3 * math.exp(-0.3))),
         -math.log(8 * math.exp(2.4) / ((math.exp(0.4) + 3 * math.exp(2)) * (3 * math.exp(0.4) + math.exp(2))))],
    ),
    "regression": (
        {}, [x[:2] for x in HEADS], {"ratings": RATED}, 1.0,
        [(1.2 - 1) ** 2 / 2, (0.3**2 + (0.9 - 2) ** 2) / 2, 0.0, ((2 - 3) ** 2 + (-0.5 - 1.5) ** 2) / 2],
    ),
    "reward_mse": ({}, None, {"ratings": [1.0, 0.0, NAN, 3.0]}, 1.0, [0.04, 0.09, 0.0, 1.0]),
    "scaled_bt": ({}, None, {}, 0.7, [-log_sigma(1.5), -3 * (0.7 * log_sigma(-1.6) + 0.3 * log_sigma(1.6))]),
    "tempered_log": ({"t": 0.8}, None, {}, 0.7, mixed(0.7, lambda d: -(sigma(d) ** 0.2 - 1) / 0.2)),
    "tied_dropped": ({}, None, {}, 0.5, -log_sigma(1.5)),
    "tied_gap": ({}, None, {}, 0.5, [0.0, 1.6**2]),
    "top_one": ({}, None, {}, 1.0, [-log_sigma(1.5 / 2), -log_sigma(-1.6 / 2)]),
}  # fmt: skip


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_worth_what_its_formula_says(name):
    options, outputs, columns, probability, expected = EXAMPLES[name]
    (term,) = build_loss({name: {**OPTIONS.get(name, ({}, 1))[0], **options}}, len(outputs[0]) if outputs else 1)
    preferences = Preferences(
        rewards=torch.tensor(R),
        better=torch.tensor([0, 2]),
        worse=torch.tensor([1, 3]),
        strength=torch.tensor([1.0, 3.0]),
        probability=torch.tensor([1.0, probability]),
        prompt=torch.tensor([0, 0, 1, 1]),
        outputs=torch.tensor(outputs) if outputs else None,
        columns={column: torch.tensor(values) for column, values in columns.items()},
    )
    assert term.function(preferences).tolist() == pytest.approx(expected, rel=2e-5, abs=2e-6)


def test_the_kl_of_the_mean_latent_is_another():
    """What InfoRM's code computes: one mean and one log variance per response."""
    term = built("bottleneck_kl", over="means")
    preferences = Preferences(torch.tensor(R), *[torch.tensor([0])] * 4, torch.zeros(4).long(), torch.tensor(LATENT))
    expected = [kl((x[1] + x[2]) / 2, (x[3] + x[4]) / 2) for x in LATENT]
    assert term.function(preferences).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_as_many_ratings_as_outputs_and_no_broadcast():
    term, preferences = built("regression"), batch("regression")
    single = replace(preferences, columns={"ratings": preferences.columns["ratings"][:, :1]})
    with pytest.raises(UserError, match="the rows have 1 ratings of a response, the head 2 outputs"):
        term.function(single)


def test_a_rating_outside_the_grades_is_refused():
    preferences = replace(batch("ordinal_ce"), columns={"ratings": torch.full((9,), 5.0)})
    with pytest.raises(UserError, match="a rating lies outside the grades from 0 to 4"):
        built("ordinal_ce").function(preferences)
