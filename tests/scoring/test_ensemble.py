"""Several models as one: what their rewards are reduced to, and that nothing of the members is lost."""

import numpy as np
import pytest
from comparisons import scored
from conftest import make_model, make_pairs

from rmlab import Ensemble, RewardModel, UserError, reward_function
from rmlab.metrics.ensemble import together

# Three members' rewards of two responses; means 2 and 1, population variances 2/3 and 8/3.
MEMBERS = [scored(rewards, [0], [1]) for rewards in ([1.0, 3.0], [2.0, 1.0], [3.0, -1.0])]


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("mean", [2, 1]),
        ("min", [1, -1]),
        ("median", [2, 1]),
        ("mean-std", [2 - 0.5 * (2 / 3) ** 0.5, 1 - 0.5 * (8 / 3) ** 0.5]),
        ("mean-var", [2 - 0.5 * 2 / 3, 1 - 0.5 * 8 / 3]),
    ],
)
def test_rewards_are_reduced_as_the_papers_say(reduce, expected):
    """By hand; UWO with the variance over M that stands in Coste et al.'s equation, not over M - 1."""
    found = together(MEMBERS, reduce, 0.5)
    assert found.rewards == pytest.approx(expected, abs=1e-6)
    assert found.outputs == [[1, 2, 3], [3, 1, -1]]


@pytest.mark.parametrize("reduce", ["min", "median", "mean-var"])
def test_what_a_member_adds_to_a_whole_prompt_decides_nothing(reduce):
    """Only on one level is the smallest reward that of the model which doubts, and not of the one that speaks low."""
    moved = [scored([r + shift for r in m.rewards], [0], [1]) for m, shift in zip(MEMBERS, (5, 9, 0), strict=True)]
    one, other = (together(those, reduce, 0.5, "prompt") for those in (MEMBERS, moved))
    assert np.diff(one.rewards) == pytest.approx(np.diff(other.rewards), abs=1e-5)
    assert np.diff(together(moved, reduce, 0.5).rewards) != pytest.approx(np.diff(one.rewards), abs=0.1)


def test_on_one_level_rewards_have_the_level_of_the_mean():
    levels = np.mean(together(MEMBERS, "mean", align="prompt").outputs, axis=0)
    assert levels == pytest.approx([1.5] * 3)


def test_an_ensemble_keeps_what_every_member_says(tokenizer):
    """As outputs, so that how far they agree is known wherever scores are."""
    members = [RewardModel.of(make_model(seed=seed), tokenizer) for seed in (0, 1)]
    rows = make_pairs(4)
    found = list(Ensemble(members, "min").scored(rows, "rows"))
    each = np.stack([member.score(rows) for member in members], axis=-1)
    assert np.array([one.outputs for one in found]) == pytest.approx(each, abs=1e-6)
    assert np.array([one.rewards for one in found]) == pytest.approx(each.min(-1), abs=1e-6)
    with pytest.raises(UserError, match="row 0 has one response, whose rewards align=prompt would make the same"):
        Ensemble(members, align="prompt").score([{"prompt": "q ", "response": "a"}])


def test_several_models_are_one_reward_function(tokenizer, tmp_path):
    """For RL, where the worst case is to be feared."""
    for seed in (0, 1):
        make_model(seed=seed).save_pretrained(tmp_path / str(seed))
        tokenizer.save_pretrained(tmp_path / str(seed))
    paths, prompts, answers = [str(tmp_path / "0"), str(tmp_path / "1")], ["q ", "why "], ["yes", "no more"]
    each = [reward_function(path)(prompts, answers) for path in paths]
    worst = reward_function(paths, reduce="min")
    assert worst(prompts, answers) == pytest.approx(np.minimum(*each), abs=1e-6)
    assert worst.__name__ == "min_of_2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduce": "mean-vra"}, "reduce is 'mean-vra'; did you mean 'mean-var'"),
        ({"c": -1.0}, "c is -1.0; it must be at least 0"),
        ({"align": "prompts"}, "align is 'prompts'; did you mean 'prompt'"),
    ],
)
def test_options_of_an_ensemble_are_checked_before_a_model_loads(options, message):
    with pytest.raises(UserError, match=message):
        Ensemble.load(["nowhere"], **options)
