"""Which terms are the same thing, and where their minima are."""

import math
from dataclasses import replace

import pytest
import torch
from catalogue import batch, built, pairs
from torch.nn.functional import logsigmoid

from rmlab.heads import build_head
from rmlab.losses import LOSSES, Preferences
from rmlab.losses.reduce import Weights, term_means

PAIRS = torch.tensor([3])  # of the batch: those of the comparison of two responses


def plain():
    return built("bradley_terry", margin=0.0)


def value(term, preferences):
    return term.function(preferences)


def sure(preferences):
    return replace(preferences, probability=torch.ones_like(preferences.probability))


@pytest.mark.parametrize(
    ("name", "options", "same"),
    [
        ("bradley_terry", {"margin": 0.5, "temperature": 1.0, "label_smoothing": 0.0}, {"margin": 0.5}),
        ("focal", {"gamma": 0.0}, {"margin": 0.0}),
        ("focal_internlm2", {"gamma": 0.0}, {"margin": 0.0}),
        ("tempered_log", {"t": 1.0}, {"margin": 0.0}),
        ("length_penalty", {"alpha": 0.0}, {"margin": 0.0}),
        ("discrete_margin", {"margins": [0.0] * 3, "scales": [1.0] * 3}, {"margin": 0.0}),
    ],
)
def test_neutral_options_are_bradley_terry(name, options, same):
    p = batch(name)
    assert torch.equal(value(built(name, **options), p), value(built("bradley_terry", **same), p))


def test_bradley_terry_with_neutral_options_is_what_it_was():
    """Bit for bit, so that finished runs stay comparable."""
    p = batch("bradley_terry")
    z = p.gap - 0.7 * p.strength
    was = p.probability * torch.nn.functional.softplus(-z) + (1 - p.probability) * torch.nn.functional.softplus(z)
    assert torch.equal(value(built("bradley_terry", margin=0.7), p), was)


def test_a_margin_is_the_win_of_rao_kupper_and_no_margin_that_of_davidson_without_ties():
    p = sure(batch("bradley_terry"))
    one = replace(p, strength=torch.ones(6))
    assert torch.allclose(
        value(built("rao_kupper", theta=math.exp(0.7)), one), value(built("bradley_terry", margin=0.7), one), rtol=1e-5
    )
    assert torch.allclose(value(built("davidson", nu=1e-9), p), value(plain(), p), rtol=1e-5)


@pytest.mark.parametrize(("name", "key"), [("rao_kupper", "theta"), ("davidson", "nu")])
def test_win_loss_and_tie_are_all_that_can_happen(name, key):
    p = batch("bradley_terry", dtype=torch.double)
    term = built(name, **{key: 2.5})
    win, loss, tie = (
        value(term, replace(p, probability=torch.full((6,), of, dtype=torch.double))) for of in (1.0, 0.0, 0.5)
    )
    assert torch.allclose((-win).exp() + (-loss).exp() + (-tie).exp(), torch.ones(6, dtype=torch.double))


@pytest.mark.parametrize(("name", "key", "width"), [("rao_kupper", "theta", math.exp(0.4)), ("davidson", "nu", 0.4)])
def test_a_learned_width_is_a_fixed_one_that_has_a_gradient(name, key, width):
    p = batch(name)
    outputs = torch.stack([p.rewards, torch.full((9,), math.log(0.4))], 1).requires_grad_()
    whole = replace(p, outputs=outputs)
    learned = LOSSES.build(name, {key: "learned"})(whole, outputs)
    assert torch.allclose(learned, value(built(name, **{key: width}), replace(p, outputs=None)), rtol=1e-5)
    assert torch.autograd.grad(learned.sum(), outputs)[0][:, 1].sum() != 0
    for log_width in (-1e4, 1e4):
        far = torch.stack([p.rewards, torch.full((9,), log_width)], 1)
        assert torch.isfinite(LOSSES.build(name, {key: "learned"})(whole, far)).all()


@pytest.mark.parametrize(
    ("name", "gap", "log_width"),
    [
        ("davidson", math.log(0.5 / 0.2), math.log(0.3 / math.sqrt(0.5 * 0.2))),
        ("rao_kupper", (0.0 + math.log(4)) / 2, math.log((0.0 + math.log(4)) / 2)),  # logits of 0.5 and 0.2: 0, -log 4
    ],
)
def test_wins_losses_and_ties_in_any_shares_are_fitted_exactly(name, gap, log_width):
    """0.5 won, 0.2 lost, 0.3 tied: the closed-form maximum of the likelihood has no gradient, in gap and in width."""
    outputs = torch.tensor([[gap, log_width], [0.0, log_width]], dtype=torch.double, requires_grad=True)
    p = torch.tensor([1.0, 0.0, 0.5], dtype=torch.double)
    one, other = torch.zeros(3).long(), torch.ones(3).long()
    rows = Preferences(outputs[:, 0], one, other, p, p, torch.zeros(2).long(), outputs)
    (key,) = LOSSES.options(name)
    losses = LOSSES.build(name, {key: "learned"})(rows, outputs)
    (losses * torch.tensor([0.5, 0.2, 0.3], dtype=torch.double)).sum().backward()
    assert (-losses).exp().tolist() == pytest.approx([0.5, 0.2, 0.3])
    assert outputs.grad.abs().max() < 1e-9


def test_a_strength_scales_the_gradient_as_copies_of_the_pair_would():
    p = batch("scaled_bt")
    p = replace(p, strength=torch.tensor([1.0, 2, 3, 1, 1, 2]), rewards=p.rewards.requires_grad_())
    copies = pairs(p, torch.tensor([0, 1, 1, 2, 2, 2, 3, 4, 5, 5]))
    (scaled,) = torch.autograd.grad(value(built("scaled_bt"), p).sum(), p.rewards)
    (copied,) = torch.autograd.grad(value(plain(), copies).sum(), p.rewards)
    assert torch.allclose(scaled, copied, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "p", "gap"),
    [
        ("bradley_terry", {"margin": 0.0}, 0.8, math.log(4)),
        ("bradley_terry", {"margin": 0.0, "label_smoothing": 0.1}, 1.0, math.log(9)),
        ("bradley_terry", {"margin": 0.0, "temperature": 2.0}, 0.8, 2 * math.log(4)),
        ("margin_mse", {"gap": 2.0}, 0.8, 1.2),
        ("tempered_log", {"t": 0.5}, 0.8, 2 * math.log(4)),
        *(
            (name, {}, 0.5, 0.0)
            for name in ("bradley_terry", "focal", "margin_mse", "rao_kupper", "davidson", "tied_gap")
        ),
    ],
)
def test_soft_labels_have_their_minimum_where_the_docstring_says(name, options, p, gap):
    options = {"margin": 0.0, **options} if name == "bradley_terry" else options
    rewards = torch.tensor([gap, 0.0], dtype=torch.double, requires_grad=True)
    whole = Preferences(
        rewards, *map(torch.tensor, ([0], [1], [1.0])), torch.tensor([p], dtype=torch.double), torch.tensor([0, 0])
    )
    term = built(name, **options).function
    term(whole).sum().backward()
    assert rewards.grad.abs().max() < 1e-6
    for other in (gap - 0.3, gap + 0.3):
        assert term(replace(whole, rewards=torch.tensor([other, 0.0], dtype=torch.double))) > term(whole)


def test_centering_is_least_at_opposite_rewards():
    p = batch("center")
    rewards = p.rewards.clone()
    rewards[p.worse[PAIRS]] = -rewards[p.better[PAIRS]]
    assert value(built("center"), replace(p, rewards=rewards))[PAIRS] == 0


@pytest.mark.parametrize(("name", "options"), [("plackett_luce", {}), ("top_one", {"temperature": 1.0})])
def test_two_responses_are_a_pair(name, options):
    p = sure(batch(name))
    assert value(built(name, **options), p)[1] == pytest.approx(value(plain(), p)[PAIRS].item(), rel=1e-5)


def test_the_mean_within_each_prompt_is_the_mean_where_prompts_have_two_responses():
    """InstructGPT's 1 / C(K, 2), which is data.pair_weighting=prompt, at K = 2."""
    rewards = torch.randn(6)
    even = Preferences(
        rewards, torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5]), torch.ones(3), torch.ones(3), torch.arange(6) // 2
    )
    by_prompt = Weights(torch.ones(3) / 1, torch.ones(6) / 2, torch.ones(3))
    (mean,) = term_means([plain()], even, by_prompt, by_prompt.totals())
    assert mean == pytest.approx(-logsigmoid(rewards[::2] - rewards[1::2]).mean().item(), rel=1e-6)


def ranked(rewards, better, worse, probability=None):
    """One comparison."""
    p = torch.tensor(probability or [1.0] * len(better))
    index = torch.tensor(better), torch.tensor(worse)
    return Preferences(torch.tensor(rewards), *index, torch.ones(len(p)), p, torch.zeros(len(rewards)).long())


def test_a_ranking_is_the_same_said_by_all_pairs_or_by_neighbours():
    rewards = [0.3, -1.0, 2.0, 0.7]  # 2 > 0 > 3 > 1
    all_pairs = ranked(rewards, [2, 2, 2, 0, 0, 3], [0, 3, 1, 3, 1, 1])
    neighbours = ranked(rewards, [0, 2, 3], [3, 0, 1])
    e = [math.exp(r) for r in rewards]
    expected = -math.log(e[2] / sum(e)) - math.log(e[0] / (e[0] + e[3] + e[1])) - math.log(e[3] / (e[3] + e[1]))
    term = built("plackett_luce")
    assert value(term, all_pairs).item() == pytest.approx(expected, rel=1e-5)
    assert value(term, neighbours).item() == pytest.approx(expected, rel=1e-5)


def test_tied_responses_are_each_chosen_before_those_below():
    """0 and 1 tie above 2: neither is compared with the other."""
    term, e = built("plackett_luce"), [math.exp(r) for r in (0.5, 0.1, -0.2)]
    tied = ranked([0.5, 0.1, -0.2], [0, 0, 1], [1, 2, 2], [0.5, 1.0, 1.0])
    expected = -math.log(e[0] / (e[0] + e[2])) - math.log(e[1] / (e[1] + e[2]))
    assert value(term, tied).item() == pytest.approx(expected, rel=1e-5)
    assert value(term, ranked([0.5, 0.1], [0], [1], [0.5])).item() == 0


def test_only_the_best_stated_is_top_one():
    """0 beats the others, of which nothing else is known: Plackett-Luce too is then its first choice."""
    star = ranked([0.5, 0.1, -0.2], [0, 0], [1, 2])
    first = value(built("top_one", temperature=1.0), star)
    assert torch.allclose(first, value(built("plackett_luce"), star))
    several = ranked([0.5, 0.1, -0.2], [0, 1], [2, 2])
    e = [math.exp(r) for r in (0.5, 0.1, -0.2)]
    expected = -0.5 * math.log(e[0] / (e[0] + e[2])) - 0.5 * math.log(e[1] / (e[1] + e[2]))
    assert value(built("top_one", temperature=1.0), several).item() == pytest.approx(expected, rel=1e-5)


def test_odin_without_its_length_head_is_bradley_terry():
    p = batch("odin_preference")
    outputs = p.outputs * torch.tensor([1.0, 0.0, 1.0])
    assert torch.allclose(value(built("odin_preference"), replace(p, outputs=outputs)), value(plain(), p))


def test_members_that_agree_are_one_and_an_anchor_is_none_of_them():
    p = batch("members")
    same = p.rewards[:, None].expand(9, 3)
    assert torch.allclose(value(built("members"), replace(p, outputs=same)), value(plain(), p), rtol=1e-5)
    anchored = torch.cat([p.outputs, torch.full((9, 1), 7.0)], 1)
    assert torch.equal(value(built("members"), replace(p, outputs=anchored)), value(built("members"), p))
    assert value(built("anchor"), replace(p, outputs=anchored)).tolist() == [7.0] * 9


@pytest.mark.parametrize("name", ["purm", "gaussian_preference"])
def test_equal_variances_at_their_limits(name):
    """Nothing unknown: PURM is Bradley-Terry, and a sure Thurstone has the sign of the gap. All unknown: a coin."""
    p = sure(batch(name))
    known = replace(p, outputs=torch.stack([p.rewards, torch.full((9,), -60.0)], 1))
    unknown = replace(p, outputs=torch.stack([p.rewards, torch.full((9,), 60.0)], 1))
    exact = value(built(name, limit=40.0), known)
    assert torch.allclose(exact, value(plain(), p), rtol=1e-5) if name == "purm" else torch.equal(exact < 1, p.gap > 0)
    assert torch.allclose(value(built(name, limit=40.0), unknown), torch.tensor(math.log(2)), atol=1e-3)


def test_a_general_preference_is_antisymmetric_and_may_go_in_circles():
    """s(a, b) = -s(b, a): the two chances add up to 1; and its sign is that of the head's rewards."""
    p = sure(batch("general_preference"))
    term = built("general_preference")
    backwards = value(term, replace(p, better=p.worse, worse=p.better))
    assert torch.allclose((-value(term, p)).exp() + (-backwards).exp(), torch.ones(6))
    turns = torch.tensor([[math.cos(a), math.sin(a)] for a in (0.0, 2.0, 4.0)])  # each beats the next
    circle = replace(ranked([0.0] * 3, [0, 1, 2], [1, 2, 0]), outputs=turns)
    function = LOSSES.build("general_preference", {"temperature": 0.1})
    assert (function(circle, turns) < 0.01).all()
    head = build_head({"preference": {"blocks": 1, "temperature": 0.1, "normalised": True}}, 2)
    rewards = head.rewards(turns[:2], torch.tensor([0, 0]))
    assert -logsigmoid(rewards[0] - rewards[1]) == pytest.approx(function(circle, turns)[0].item(), rel=1e-5)
