"""Doubt of seeds and of heads, and the tables of what it finds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from comparisons import random_set, scored
from studies import write_run

from rmlab.commands import lab
from rmlab.lab.beliefs import of_head, of_seeds


def test_doubt_of_seeds_is_the_spread_of_their_gaps():
    """Also where the likelier side is the one that is called worse."""
    runs = [[scored([r, 0.0], [0], [1]), scored([r, 1.0], [0], [1], [0.1])] for r in (1.0, 2.0, 6.0)]
    belief = of_seeds("plain", runs)
    assert belief.pairs.gap == pytest.approx([3.0, 1 - 3.0])
    assert belief.sd == pytest.approx([7**0.5] * 2)  # (2^2 + 1^2 + 3^2) / 2
    assert belief.doubts["gap / sd"] == pytest.approx([-3 / 7**0.5, -2 / 7**0.5])


def test_seeds_that_agree_have_no_doubt_and_no_gap_has_all():
    belief = of_seeds("plain", [[scored([1.0, 0.0], [0], [1]), scored([0.0, 0.0], [0], [1])]] * 2)
    assert belief.sd == pytest.approx([0, 0])
    assert belief.doubts["gap / sd"].tolist() == [-np.inf, 0]


def by_grades(logits, grades):
    """Variance of a grade drawn a great many times."""
    likely = np.exp(logits) / np.exp(logits).sum()
    return np.var(np.random.default_rng(0).choice(grades, 400_000, p=likely))


@pytest.mark.parametrize(
    ("head", "outputs", "variance"),
    [
        ({"gaussian": {}}, [[1.0, 0.5], [0.0, -1.0]], np.exp(0.5) + np.exp(-1.0)),
        ({"quantile": {"levels": [0.25, 0.75]}}, [[1.0, 3.0], [0.0, 1.0]], 1 + 0.25),
        (
            {"ordinal": {"grades": [0, 1, 4]}},
            [[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]],
            by_grades([0.0, 1.0, 2.0], [0, 1, 4]) + by_grades([3.0, 0.0, 0.0], [0, 1, 4]),
        ),
    ],
)
def test_doubt_of_a_head_is_the_variance_of_what_it_tells(head, outputs, variance):
    comparison = replace(scored([1.0, 0.0], [0], [1]), outputs=outputs)
    assert of_head("arm", 0, [comparison], head).sd == pytest.approx([variance**0.5], rel=5e-3)


def test_members_of_a_head_are_those_of_an_ensemble():
    """The distance from the first weights, which a head may tell too, is none of them."""
    comparison = replace(scored([9.0, 0.0], [0], [1]), outputs=[[1.0, 2.0, 77.0], [0.0, -3.0, 77.0]])
    belief = of_head("arm", 0, [comparison], {"ensemble": {"members": 2}})
    assert belief.pairs.gap == pytest.approx([3.0])
    assert belief.sd == pytest.approx([8**0.5])


def test_a_head_of_one_reward_has_no_doubt():
    assert of_head("arm", 0, [scored([1.0, 0.0], [0], [1])], {"linear": {}}) is None


@pytest.fixture
def study(tmp_path):
    """Four seeds whose rewards are gold and noise of their own; one run of another arm."""
    for seed in range(4):
        out = write_run(tmp_path, seed, [1.0, -1.0])
        rng = np.random.default_rng(seed)
        noisy = [replace(c, rewards=[g + rng.normal() for g in c.gold]) for c in random_set(80, prompts=40)]
        out.write_scores("eval", noisy)
    write_run(tmp_path, 0, [1.0, -1.0], loss="margin")
    return tmp_path


def test_the_tables_tell_an_ensemble_from_its_members(study, capsys):
    lab.main(["disagreement", str(study), "--c", "0.5"])
    told = pd.read_csv(study / "lab" / "ensembles.csv").set_index("reward")
    found = pd.read_csv(study / "lab" / "disagreement.csv").set_index("doubt")
    assert {*told["arm"]} == {"plain"}  # the other arm has one seed
    assert told.loc["mean", "accuracy"] == pytest.approx(
        told.loc["of one member", "accuracy"] + told.loc["mean", "difference"]
    )
    assert told.loc["mean", "diff_low"] > 0  # independent noise is averaged away
    assert found.loc["gap / sd", "auroc"] > 0.5 > found.loc["sd", "low"]
    assert found.loc["small gap", "accuracy"] == pytest.approx(told.loc["mean", "accuracy"])
    assert found.loc["sd", "score_1"] == pytest.approx(
        found.loc["sd", "confident_true"] - found.loc["sd", "confident_false"]
    )
    assert {file.suffix for file in (study / "lab").glob("disagreement.*")} == {".md", ".csv", ".png", ".pdf", ".svg"}
    assert "Errors found by doubt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arm", "message"),
    [("margin", "no arm has two finished seeds, or a head that tells its doubt"), ("x", "arm: no arm 'x'")],
)
def test_an_arm_without_doubt_is_refused_in_a_sentence(arm, message, study, capsys):
    with pytest.raises(SystemExit):
        lab.main(["disagreement", str(study), "--arm", arm])
    assert message in capsys.readouterr().err
