"""Losses against the papers' formulas, written out here with Python floats."""

import math

import pytest
import torch

from rmlab.losses import LOSSES, PerResponse, Preferences, build_loss
from rmlab.messages import UserError


def preferences(rewards, better, worse, strength=None, probability=None, dtype=torch.float32):
    count = len(better)
    return Preferences(
        torch.as_tensor(rewards, dtype=dtype),
        torch.tensor(better),
        torch.tensor(worse),
        torch.tensor(strength or [1.0] * count),
        torch.tensor(probability or [1.0] * count),
        torch.zeros(len(rewards), dtype=torch.long),
    )


def log_sigmoid(z: float) -> float:
    return -math.log1p(math.exp(-z)) if z > 0 else z - math.log1p(math.exp(z))


def test_plain_is_minus_log_sigma_of_the_gap():
    """InstructGPT eq. 1 at gaps 1.5 and -0.5: -log sigma(1.5) = 0.201413, -log sigma(-0.5) = 0.974077."""
    got = LOSSES.build("bradley_terry", {"margin": 0.0})(preferences([2.0, 0.5, 0.0, 0.5], [0, 2], [1, 3]))
    assert got.tolist() == pytest.approx([0.2014133, 0.9740770], abs=1e-6)


def test_margin_is_llama_2_equation_2():
    """Llama 2, margin Small, "significantly better" (1) and "better" (2/3): -log sigma(gap - m)."""
    got = LOSSES.build("bradley_terry", {"margin": 1.0})(
        preferences([2.0, 0.5, 0.0, 0.5], [0, 2], [1, 3], strength=[1.0, 2 / 3])
    )
    assert got.tolist() == pytest.approx([-log_sigmoid(1.5 - 1.0), -log_sigmoid(-0.5 - 2 / 3)], abs=1e-6)


def test_margin_scales_the_strength():
    strong = LOSSES.build("bradley_terry", {"margin": 0.5})(preferences([1.0, 0.0], [0], [1], strength=[3.0]))
    assert strong.item() == pytest.approx(-log_sigmoid(1.0 - 1.5), abs=1e-6)


def test_margin_is_the_win_probability_of_rao_kupper():
    """P(win) = e^r1 / (e^r1 + theta e^r2) with theta = e^m."""
    r1, r2, m = 0.3, -0.4, 0.7
    win = math.exp(r1) / (math.exp(r1) + math.exp(m) * math.exp(r2))
    got = LOSSES.build("bradley_terry", {"margin": 1.0})(preferences([r1, r2], [0], [1], strength=[m]))
    assert got.item() == pytest.approx(-math.log(win), abs=1e-6)


def test_soft_labels_have_their_minimum_at_the_logit():
    """-p log sigma(d) - (1 - p) log sigma(-d) is stationary at d = logit(p)."""
    p = 0.8
    rewards = torch.tensor([math.log(p / (1 - p)), 0.0], requires_grad=True)
    batch = Preferences(rewards, *map(torch.tensor, ([0], [1], [1.0], [p], [0, 0])))
    LOSSES.build("bradley_terry", {"margin": 0.0})(batch).sum().backward()
    assert rewards.grad.abs().max() < 1e-6


def test_a_tie_is_least_at_equal_rewards():
    tie = LOSSES.build("bradley_terry", {"margin": 0.0})
    at = {gap: tie(preferences([gap, 0.0], [0], [1], [0.0], [0.5])).item() for gap in (-1.0, 0.0, 1.0)}
    assert at[0.0] == pytest.approx(math.log(2), abs=1e-6)
    assert at[1.0] == pytest.approx(at[-1.0])
    assert at[1.0] > at[0.0]


def test_center_is_eisenstein_equation_2():
    """(r_c + r_r)^2: (2 + 0.5)^2 = 6.25 and (-1 + 1)^2 = 0."""
    got = LOSSES.build("center", {})(preferences([2.0, 0.5, -1.0, 1.0], [0, 2], [1, 3]))
    assert got.tolist() == pytest.approx([6.25, 0.0])


def test_what_a_term_has_one_value_of_is_known_even_where_pairs_equal_responses():
    """K = 3 has three pairs and three responses: the shape of a batch cannot tell."""
    from rmlab.losses import values_per

    assert values_per("per_pair", lambda p: p.gap) == "pair"
    assert values_per("per_response", lambda p: p.rewards) == "response"
    assert values_per("per_comparison", lambda p: p.rewards.new_zeros(p.comparisons)) == "comparison"
    assert values_per("of_the_step", lambda p: p.gap.mean()) == "step"
    with pytest.raises(UserError, match=r"loss.squares returns shape \(4, 4\)"):
        values_per("squares", lambda p: p.gap[:, None] * p.gap)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bradley_tery": {"margin": 0.0}}, "did you mean 'bradley_terry'"),
        (
            {"bradley_terry": {}},
            r"takes \['margin', 'temperature', 'label_smoothing'\], the config gives \[\] \(missing \['margin'\]\)",
        ),
        ({"bradley_terry": {"margin": 0.0, "beta": 1}}, r"unknown \['beta'\]"),
        ({"bradley_terry": {"margin": "big"}}, "margin must be a number, not 'big'"),
        ({"bradley_terry": {"margin": 0.0}, "center": {"weight": -0.01}}, "center.weight must be a finite number >= 0"),
        ({"bradley_terry": 0.0}, "must be a mapping"),
        ({}, "no terms"),
    ],
)
def test_a_wrong_loss_config_is_refused_by_name(config, message):
    with pytest.raises(UserError, match=message):
        build_loss(config)


def test_a_number_of_the_step_that_reads_logps_is_refused(monkeypatch):
    """In parts of a step their gradient would be lost."""

    def likely(preferences: Preferences, logps: PerResponse):
        return logps.mean().square()

    LOSSES.names()
    monkeypatch.setitem(LOSSES._functions, "likely", likely)
    with pytest.raises(UserError, match=r"loss\.likely reads logps, and so must return a value per pair"):
        build_loss({"likely": {}})
