"""Heads: what they return, what it amounts to, and the one linear layer that says the same."""

import math
from pathlib import Path
from statistics import mean, median, pvariance

import pytest
import torch
import yaml
from conftest import ROOT

from rmlab import UserError
from rmlab.heads import HEADS, Head, build_head, outputs_of

OURS = [name for name in HEADS.names() if HEADS[name].__module__.startswith("rmlab.")]
PROMPT = torch.tensor([0, 0, 1, 1, 1, 2])
d = 16


def options_of(kind, **others):
    """Those of its YAML, few enough to be quick."""
    (given,) = yaml.safe_load((ROOT / "conf" / "model" / "head" / f"{kind}.yaml").read_text()).values()
    few = {"mlp": {"width": 8}, "bottleneck": {"latents": 3}, "preference": {"blocks": 2}}.get(kind, {})
    return {kind: {**given, **few, **others}}


def head_for(kind, **options):
    torch.manual_seed(0)
    head = build_head(options_of(kind, **options), d)
    head.draw(lambda n: (n + 1) ** -0.5)
    return head.eval()


def said(head):
    torch.manual_seed(1)
    hidden = torch.randn(len(PROMPT), d)
    outputs = head(hidden)
    return hidden, outputs, head.rewards(outputs, PROMPT)


def softmax_mean(row, grades):
    weights = [math.exp(x) for x in row]
    return sum(w * g for w, g in zip(weights, grades, strict=True)) / sum(weights)


# (kind, options, reward of one row of outputs) from the papers' formulas, in plain Python.
REDUCTIONS = [
    ("linear", {}, lambda row: row[0]),
    ("mlp", {}, lambda row: row[0]),
    ("ties", {}, lambda row: row[0]),
    ("two_head", {}, lambda row: row[0]),
    ("gaussian", {}, lambda row: row[0]),
    ("bottleneck", {}, lambda row: row[0]),
    ("quantile", {"levels": [0.25, 0.75]}, mean),
    ("ordinal", {"grades": [1, 2, 7]}, lambda row: softmax_mean(row, [1, 2, 7])),
    ("attributes", {"names": ["a", "b"], "weights": [0.5, -2]}, lambda row: 0.5 * row[0] - 2 * row[1]),
    ("ensemble", {}, mean),
    ("ensemble", {"reduce": "min", "anchor": True}, lambda row: min(row[:-1])),
    ("ensemble", {"reduce": "median", "members": 4}, median),
    ("ensemble", {"reduce": "mean-var", "c": 0.3}, lambda row: mean(row) - 0.3 * pvariance(row)),
    ("ensemble", {"width": 4}, mean),
]


@pytest.mark.parametrize("kind", OURS)
def test_a_head_returns_a_number_for_each_of_its_names(kind):
    head = head_for(kind)
    _, outputs, rewards = said(head)
    assert outputs.shape == (len(PROMPT), len(head.names))
    assert len({*head.names}) == len(head.names)
    assert outputs_of(options_of(kind)) == head.names
    assert rewards.shape == (len(PROMPT),)
    assert (outputs.dtype, rewards.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize(("kind", "options", "reward"), REDUCTIONS)
def test_the_reward_is_that_of_the_formula(kind, options, reward):
    _, outputs, rewards = said(head_for(kind, **options))
    assert rewards.tolist() == pytest.approx([reward(row) for row in outputs.tolist()], abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "options"), [(kind, options) for kind, options, _ in REDUCTIONS] + [("preference", {})]
)
def test_what_folds_into_one_layer_has_the_same_rewards(kind, options):
    head = head_for(kind, **options)
    hidden, _, rewards = said(head)
    layer = head.folded()
    refused = {"mlp", "ordinal", "preference"} | ({"ensemble"} if options.keys() & {"reduce", "width"} else set())
    assert (layer is None) == (kind in refused)
    if layer is not None:
        assert layer.shape == (1, d)
        assert torch.allclose(hidden @ layer[0], rewards, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", OURS)
def test_all_that_a_head_learns_gets_a_gradient_from_its_outputs(kind):
    head = head_for(kind, **({"anchor": True} if kind == "ensemble" else {}))
    with torch.no_grad():
        for weight in head.parameters():
            weight.add_(torch.randn_like(weight))
    _, outputs, _ = said(head)
    (outputs * torch.randn_like(outputs)).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in head.parameters())


def test_first_weights_are_drawn_for_every_row_and_biases_are_nothing():
    assert build_head(options_of("gaussian"), 4096).weight.shape == (2, 4096)
    head = build_head(options_of("ordinal"), 4096)
    head.draw(lambda n: 0.01)
    assert head.weight.std(1).tolist() == pytest.approx([0.01] * 5, rel=0.05)
    assert not head.bias.any()
    head.draw(lambda n: 0.0)
    assert not head.weight.any()


def test_a_tie_width_and_an_overlap_are_the_same_for_all_responses():
    _, outputs, _ = said(head_for("ties", width=2.0))
    assert outputs[:, 1].tolist() == pytest.approx([math.log(2)] * len(PROMPT))
    head = head_for("two_head")
    quality, length = head.weight.tolist()
    dot = sum(q * w for q, w in zip(quality, length, strict=True))
    _, outputs, _ = said(head)
    assert outputs[:, 2].tolist() == pytest.approx(
        [abs(dot) / math.dist(quality, [0] * d) / math.dist(length, [0] * d)] * 6
    )


def test_an_anchor_is_the_squared_distance_from_the_first_weights_per_member():
    head = head_for("ensemble", members=2, anchor=True)
    assert said(head)[1][:, -1].tolist() == [0.0] * 6
    with torch.no_grad():
        head.weight[0, :3] += 2.0
    assert said(head)[1][:, -1].tolist() == pytest.approx([3 * 4.0 / 2] * 6)
    copy = build_head(options_of("ensemble", members=2, anchor=True), d)
    copy.load_state_dict(head.state_dict())
    assert said(copy)[1][:, -1].tolist() == pytest.approx([6.0] * 6)


def test_latents_are_noisy_in_training_alone():
    head = head_for("bottleneck")
    torch.manual_seed(0)
    hidden = torch.randn(4000, d)
    still, moved = head(hidden), head.train()(hidden)
    assert torch.equal(still[:, 1:], moved[:, 1:])
    means, log_variances = still[:, 1:].split(3, dim=1)
    noise = (moved - still)[:, 0] / (log_variances.exp() @ head.last.weight[0].square()).sqrt()
    assert noise.mean().item() == pytest.approx(0, abs=0.06)
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert torch.allclose(still[:, 0], means @ head.last.weight[0], atol=1e-6)


# ---- general preferences ----


def test_the_gap_of_a_pair_is_its_preference_score():
    """s(a > b) = (a_1 b_2 - a_2 b_1 + a_3 b_4 - a_4 b_3) / t, as in GPM."""
    _, outputs, rewards = said(head_for("preference"))
    a, b = outputs[:2].tolist()
    assert math.hypot(*a) == pytest.approx(1)
    score = (a[0] * b[1] - a[1] * b[0] + a[2] * b[3] - a[3] * b[2]) / 0.1
    assert (rewards[0] - rewards[1]).item() == pytest.approx(score, rel=1e-5)
    assert rewards[:2].sum().item() == pytest.approx(0, abs=1e-5)
    assert rewards[5].item() == 0  # a response alone


def test_where_scores_are_differences_of_rewards_their_gaps_are_those():
    """v = (1, r) has s(a > b) = r_b - r_a."""
    head = head_for("preference", blocks=1, temperature=1.0, normalised=False)
    said = [3.0, 1.0, -2.0]
    rewards = head.rewards(torch.tensor([[1.0, -r] for r in said]), torch.zeros(3, dtype=torch.long))
    assert (rewards - rewards[0]).tolist() == pytest.approx([r - said[0] for r in said])


def test_preferences_may_go_in_circles_and_no_reward_then_tells_them_apart():
    head = head_for("preference", blocks=1)
    circle = torch.tensor([[math.cos(x), math.sin(x)] for x in (0, 2 * math.pi / 3, 4 * math.pi / 3)])
    pairs = [head.rewards(circle[[a, b]], torch.zeros(2)) for a, b in ((0, 1), (1, 2), (2, 0))]
    assert [(a - b).item() for a, b in pairs] == pytest.approx([math.sin(2 * math.pi / 3) / 0.1] * 3, rel=1e-5)
    assert head.rewards(circle, torch.zeros(3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gausian": {}}, "no head named 'gausian'; did you mean 'gaussian'?"),
        ({"gaussian": {"width": 1}}, r"model.head.gaussian takes \[\], the config gives \['width'\]"),
        ({"mlp": {"width": 1}}, "model.head.mlp.width must be a whole number of at least 2, not 1"),
        ({"mlp": {"width": "wide"}}, "model.head.mlp.width must be a number, not 'wide'"),
        ({"ties": {"width": 0.0}}, "model.head.ties.width must be above 0"),
        ({"quantile": {"levels": [0.5, 0.2]}}, "levels must rise between 0 and 1"),
        ({"quantile": {"levels": []}}, "levels must be a list of at least 1 numbers"),
        ({"ordinal": {"grades": [1]}}, "grades must be a list of at least 2 numbers"),
        ({"ordinal": {"grades": [2, 1]}}, "grades must rise from the worst to the best"),
        ({"attributes": {"names": ["a"], "weights": [1, 2]}}, "weights must be 1 numbers"),
        (options_of("ensemble", reduce="max"), "model.head.ensemble.reduce"),
        (options_of("ensemble", reduce="min", members=1), "members must be a whole number of at least 2"),
        (options_of("preference", temperature=0), "temperature must be above 0"),
    ],
)
def test_a_head_that_cannot_be_is_refused_by_its_key(config, message):
    with pytest.raises(UserError, match=message):
        build_head(config, 4)


@pytest.mark.parametrize("kind", ["ensemble", "preference"])
def test_first_weights_of_nothing_are_refused_where_no_training_leads_away_from_them(kind):
    with pytest.raises(UserError, match=r"model\.head_init=zero"):
        build_head(options_of(kind), 4).draw(lambda n: 0.0)


class Odd(Head):
    """Of somebody else, with something wrong."""

    def __init__(self, names, rows=2, value=0.0, folds=True):
        super().__init__(4, rows, bias=False)
        self.names, self.value, self.folds = names, value, folds

    def forward(self, hidden):
        return super().forward(hidden) + self.value

    def folded(self):
        return super().folded() if self.folds else None


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"names": []}, r"names its outputs \[\], and returns shape \(2, 2\)"),
        ({"names": ["a"]}, r"names its outputs \['a'\]"),
        ({"names": ["a", "a"]}, "names its outputs"),
        ({"names": ["a", "b"], "value": math.nan}, "which must be finite"),
        ({"names": ["a"], "rows": 1, "folds": False}, "does not fold into one layer; give it more than one row"),
    ],
)
def test_a_head_of_somebody_else_is_looked_at_when_it_is_built(made, message, monkeypatch):
    monkeypatch.setitem(HEADS._functions, "odd", lambda d: Odd(**made))
    with pytest.raises(UserError, match=message):
        build_head({"odd": {}}, 4)


def test_every_head_has_a_file_of_its_options_and_no_other_is_there():
    files = {path.stem: yaml.safe_load(path.read_text()) for path in Path(ROOT / "conf" / "model" / "head").iterdir()}
    assert sorted(files) == OURS
    for name, config in files.items():
        assert [*config] == [name]
        build_head(config, 4)
