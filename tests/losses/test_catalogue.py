"""What every term of the catalogue promises."""

import inspect
import re
from dataclasses import replace

import pytest
import torch
import yaml
from catalogue import OPTIONS, TERMS, batch, built, configs, head_of, moved, outputs_for, pairs
from conftest import ROOT

from rmlab.losses import LOSSES, build_loss
from rmlab.messages import UserError

# What a term of the whole step is, and what it has a value of per response or comparison; of pairs all others.
PER = {
    "step": {"batch_zero", "odin_length", "tied_dropped"},
    "comparison": {"plackett_luce", "top_one"},
    "response": {
        "anchor", "bottleneck_kl", "gaussian_nll", "l2", "log_barrier", "odin_overlap", "ordinal_ce", "pinball",
        "regression", "reward_mse",
    },
}  # fmt: skip

GAPS = {  # functions of what is the better response's minus what is the worse one's
    "bradley_terry", "davidson", "discrete_margin", "focal", "focal_internlm2", "hinge", "margin_mse", "members",
    "odin_preference", "rao_kupper", "scaled_bt", "tempered_log", "tied_dropped", "tied_gap",
}  # fmt: skip
# What leaves the value of a term alone. Terms of the table must not change, all others must.
UNCHANGED = {
    # A constant added to all, or one for each prompt.
    "shift": GAPS | {
        "grm_dpo", "grm_dpo_noref", "length_penalty", "odin_length", "ordinal_preference", "ordinal_ce",
        "plackett_luce", "top_one",
    },
    "shift by prompt": GAPS | {
        "grm_dpo", "grm_dpo_noref", "length_penalty", "ordinal_preference", "ordinal_ce", "plackett_luce", "top_one",
    },
    "scale": {"logit_norm", "odin_length"},
    # Everything negated, and better and worse swapped.
    "mirror": GAPS | {
        "batch_zero", "center", "cross_entropy", "grm_dpo_noref", "l2", "log_barrier", "logit_norm",
    },
    # Better and worse swapped, and each probability p made 1 - p: the same said the other way round.
    "swap": set(TERMS) - {"bradley_terry", "discrete_margin"},  # those have a margin, which is given to one side
}  # fmt: skip


def swapped(p):
    return replace(p, better=p.worse, worse=p.better)


CHANGES = {
    "shift": lambda p: moved(p, lambda x: x + 1.5),
    "shift by prompt": lambda p: moved(p, lambda x: x + (p.prompt * 1.5).reshape(-1, *[1] * (x.ndim - 1))),
    "scale": lambda p: moved(p, lambda x: x * 2.0),
    "mirror": lambda p: swapped(moved(p, lambda x: -x)),
    "swap": lambda p: replace(swapped(p), probability=1 - p.probability),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_unchanged_by_what_is_declared_and_by_nothing_else(name, change):
    term, preferences = built(name), batch(name, dtype=torch.double)
    before, after = term.function(preferences), term.function(CHANGES[change](preferences))
    assert torch.allclose(before, after, rtol=1e-6, atol=1e-6) == (name in UNCHANGED[change])


@pytest.mark.parametrize("name", TERMS)
def test_what_there_is_one_value_of(name):
    per = next((per for per, names in PER.items() if name in names), "pair")
    assert built(name).per == per


@pytest.mark.parametrize("name", TERMS)
def test_the_order_of_preferences_and_of_comparisons_is_nothing(name):
    term, p = built(name), batch(name, dtype=torch.double)
    order = torch.tensor([4, 2, 5, 0, 3, 1])
    shuffled = term.function(pairs(p, order))
    value = term.function(p)
    assert torch.allclose(shuffled, value[order] if term.per == "pair" else value)
    other = replace(p, prompt=2 - p.prompt)  # the last comparison first
    again = term.function(other)
    assert torch.allclose(again, value.flip(0) if term.per == "comparison" else value)


@pytest.mark.parametrize("name", [name for name in TERMS if name not in PER["step"]])
def test_what_a_comparison_counts_does_not_depend_on_the_others(name):
    """So a step may be split anywhere: its parts add up."""
    term, p = built(name), batch(name, dtype=torch.double)
    r, q = p.prompt < 2, p.pair_prompt < 2
    alone = pairs(p, q.nonzero()[:, 0])
    per_pair = {name for name, column in p.columns.items() if len(column) == len(p.better)}
    columns = {name: column[q if name in per_pair else r] for name, column in p.columns.items()}
    alone = replace(alone, rewards=p.rewards[r], prompt=p.prompt[r], outputs=p.outputs[r], columns=columns)
    part = {"pair": q, "response": r, "comparison": torch.tensor([True, True, False])}[term.per]
    assert torch.allclose(term.function(alone), term.function(p)[part])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", TERMS)
def test_values_and_gradients_are_finite_at_extremes(name, dtype):
    """Rewards of +-1e4, and all equal (a new head of zeros), as a body in 16 bits rounds them."""
    term, p = built(name), batch(name)
    for scale in (1e4, 0.0):
        said = moved(p, lambda x, scale=scale: (x.sign() * scale).to(dtype).float().requires_grad_())
        value = term.function(said)
        assert torch.isfinite(value).all()
        given = [said.rewards, said.outputs, said.columns["logps"]]
        gradients = torch.autograd.grad(value.sum(), given, materialize_grads=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_is_that_of_the_value(name):
    term, p = built(name), batch(name, dtype=torch.double)
    given = [x.requires_grad_() for x in (p.rewards, p.outputs, p.columns["logps"])]

    def value(rewards, outputs, logps):
        return term.function(replace(p, rewards=rewards, outputs=outputs, columns={**p.columns, "logps": logps}))

    assert torch.autograd.gradcheck(value, given)
    assert any(x.abs().sum() > 0 for x in torch.autograd.grad(value(*given).sum(), given, materialize_grads=True))


def test_the_outside_of_the_barrier_points_in():
    term, p = built("log_barrier"), batch("log_barrier")
    rewards = torch.tensor([-1e4, -5.0, -4.99, 0.0, 1.0, 4.99, 5.0, 1e4, 0.0], requires_grad=True)
    term.function(replace(p, rewards=rewards)).sum().backward()
    assert rewards.grad[[0, 1, 2]].lt(0).all()
    assert rewards.grad[[4, 5, 6, 7]].gt(0).all()


@pytest.mark.parametrize("name", TERMS)
def test_a_term_says_its_equation_and_where_it_is_from(name):
    said = inspect.getdoc(LOSSES[name])
    assert re.search(r"\blog(_t)?\b|\^2|max\(|corr\(|cos\(|t - 1|P\(win\) = ", said.partition("\n")[0])
    assert re.search(r"\b\d{4}\.\d{5}\b|[A-Z]\w+ \(19\d\d\)", said), "no source"
    options = LOSSES.options(name).values()
    assert name == "bradley_terry" or all(option.default is option.empty for option in options)


@pytest.mark.parametrize("config", configs(), ids=lambda config: config.stem)
def test_every_config_builds_on_the_head_that_it_names(config):
    text = config.read_text()
    terms = build_loss(yaml.safe_load(text), outputs_for(config))
    assert text.startswith("# ")
    for term in terms:
        options = {"weight"} | set(LOSSES.options(term.name))
        for line in text.splitlines():
            key = line.strip().partition(":")[0]
            plain = key not in options or (key == "margin" and "margin: 0.0" in line) or key == "count"
            assert plain or "  # " in line or "learned" in line, f"{line!r} has no comment"


def test_the_page_of_losses_has_every_term_and_every_config():
    page = (ROOT / "docs" / "losses.md").read_text()
    named = {config.relative_to(ROOT / "conf" / "loss").with_suffix("").as_posix() for config in configs()}
    assert [name for name in [*TERMS, *named] if f"`{name}`" not in page] == []


def test_every_term_is_in_a_config():
    assert {name for config in configs() for name in yaml.safe_load(config.read_text())} == set(TERMS)


@pytest.mark.parametrize("config", [c for c in configs() if len(outputs_for(c)) > 1], ids=lambda config: config.stem)
def test_another_head_is_refused_with_the_name_of_the_right_one(config):
    head = head_of(config)[0]
    loss = yaml.safe_load(config.read_text())
    if set(loss) == {"regression"}:
        pytest.skip("any number of attributes may be rated")
    with pytest.raises(UserError, match=f"the head returns 1; choose model/head={head}"):
        build_loss(loss, 1)
    with pytest.raises(UserError, match=f"`other_1` in its place; choose model/head={head}"):
        build_loss(loss, [f"other_{n}" for n in range(1, len(outputs_for(config)) + 1)])


def test_a_head_of_as_many_outputs_is_not_taken_for_the_right_one():
    """Five members and a distance are six outputs, and so are six members, one of which nothing would train."""
    six = [f"member_{n}" for n in range(1, 7)]
    anchored = [*six[:5], "distance"]
    assert build_loss({"members": {"count": 5}, "anchor": {"count": 5}}, anchored)
    for term in ("members", "anchor"):
        with pytest.raises(UserError, match="reads the output `distance`, but the head has `member_6` in its place"):
            build_loss({term: {"count": 5}}, six)
    with pytest.raises(UserError, match=r"`quantile_0\.2`, but the head has `quantile_0\.25` .* with these levels"):
        build_loss({"pinball": {"levels": [0.2, 0.5]}}, ["quantile_0.25", "quantile_0.5"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bradley_terry", {"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ("bradley_terry", {"label_smoothing": 0.6}, "label_smoothing is 0.6; it must be between 0 and 0.5"),
        ("discrete_margin", {"levels": [2, 1]}, "discrete_margin.levels must rise"),
        ("discrete_margin", {"margins": [0.0]}, r"margins must be a list of 3 numbers, not \[0.0\]"),
        ("hinge", {"gap": 0.0}, "must be above 0"),
        ("tempered_log", {"t": 1.5}, "at most 1"),
        ("rao_kupper", {"theta": 1.0}, "a number above 1, or learned"),
        ("davidson", {"nu": "lerned"}, "a number above 0, or learned"),
        ("pinball", {"levels": "0.1"}, "must be a list of numbers"),
        ("pinball", {"levels": [0.1, 0.5, 1.0]}, "between 0 and 1"),
        ("pinball", {"levels": [0.1, 0.5]}, "reads 2 outputs of a response, but the head returns 3"),
        ("bottleneck_kl", {"over": "dims"}, "known: dimensions, means"),
        ("members", {"count": 1}, "at least 2"),
        ("log_barrier", {"edge": 6.0}, "0 < edge < bound"),
    ],
)
def test_a_wrong_option_is_refused_when_the_loss_is_built(name, options, message):
    with pytest.raises(UserError, match=message):
        built(name, **options)


def test_the_table_of_options_is_about_known_terms():
    assert set(OPTIONS) <= set(TERMS)
    assert {name for names in UNCHANGED.values() for name in names} <= set(TERMS)
