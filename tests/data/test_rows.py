"""One row of any accepted format -> Comparison, or an error that names it."""

import pytest

from rmlab.data import Preference
from rmlab.data.rows import to_comparison
from rmlab.messages import UserError


def preferences(row):
    return to_comparison(row, "train row 0").preferences


def test_strength_comes_from_margin_or_scores():
    pair = {"chosen": "a", "rejected": "b"}
    assert preferences(pair) == [Preference(0, 1, 1.0, 1.0)]
    assert preferences({**pair, "margin": 2}) == [Preference(0, 1, 2.0, 1.0)]
    assert preferences({**pair, "score_chosen": 4.5, "score_rejected": 1}) == [Preference(0, 1, 3.5, 1.0)]
    assert preferences({**pair, "probability": 0.7}) == [Preference(0, 1, 1.0, 0.7)]


def test_scores_give_all_pairs_with_ties():
    got = preferences({"prompt": "p", "responses": ["a", "b", "c"], "scores": [1.0, 3.0, 3.0]})
    assert got == [Preference(1, 0, 2.0, 1.0), Preference(2, 0, 2.0, 1.0), Preference(1, 2, 0.0, 0.5)]


def test_ranks_say_who_wins_but_not_how_strongly():
    got = preferences({"prompt": "p", "responses": ["a", "b", "c"], "ranks": [2, 1, 2]})
    assert got == [Preference(1, 0, 1.0, 1.0), Preference(0, 2, 0.0, 0.5), Preference(1, 2, 1.0, 1.0)]


def test_votes_give_probability_and_strength():
    """Three votes: 2 for the second, 1 tie: the second's share is 2.5 / 3."""
    got = preferences({"prompt": "p", "responses": ["a", "b"], "votes": [2, 0, 2]})
    assert got == [Preference(1, 0, pytest.approx(2 * 2.5 / 3 - 1), pytest.approx(2.5 / 3))]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (1, (0, 1, 1.0)),
        ("2", (1, 0, 1.0)),
        ("tie", (0, 1, 0.5)),
        (0, (0, 1, 0.5)),
        ("A", (0, 1, 1.0)),
        (2.0, (1, 0, 1.0)),
    ],
)
def test_a_label_names_the_winner_by_position(label, expected):
    (got,) = preferences({"prompt": "p", "responses": ["a", "b"], "label": label})
    assert (got.better, got.worse, got.probability) == expected


def test_k_wise_labels_are_one_per_pair():
    """QA-Feedback's order: (1,2) (1,3) (2,3)."""
    got = preferences({"prompt": "p", "responses": ["a", "b", "c"], "label": [1, 2, 0]})
    assert [(p.better, p.worse, p.probability) for p in got] == [(0, 1, 1.0), (2, 0, 1.0), (1, 2, 0.5)]


def test_a_prompt_that_both_sides_repeat_is_not_said_twice():
    turn, a, b = ({"role": r, "content": c} for r, c in (("user", "hi"), ("assistant", "yes"), ("assistant", "no")))
    for row in (
        {"prompt": [turn], "chosen": [turn, a], "rejected": [turn, b]},
        {"prompt": "hi", "chosen": [turn, a], "rejected": [turn, b]},
        {"chosen": [turn, a], "rejected": [turn, b]},
        {"prompt": [turn], "chosen": [a], "rejected": [b]},
        {"prompt": [turn], "chosen": "yes", "rejected": "no"},
    ):
        comparison = to_comparison(row, "row")
        assert comparison.prompt == [turn]
        assert comparison.responses == [[a], [b]]


def test_a_tie_has_no_strength_and_a_probability_below_one_half_turns_the_pair():
    """With loss=margin a tie must still be least at equal rewards."""
    pair = {"chosen": "a", "rejected": "b", "margin": 2.0}
    assert preferences({**pair, "probability": 0.5}) == [Preference(0, 1, 0.0, 0.5)]
    assert preferences({**pair, "probability": 0.25}) == [Preference(1, 0, 2.0, 0.75)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "a", "rejected": "b", "margin": float("nan")}, "train row 7 .*margin is nan, not a finite number"),
        ({"chosen": "a", "rejected": "b", "margin": None}, "margin is missing, but other rows have it"),
        ({"chosen": "a", "rejected": "b", "margin": "big"}, "margin is 'big'"),
        ({"chosen": "a", "rejected": "b", "probability": 1.2}, "probability is 1.2, not between 0 and 1"),
        ({"chosen": "a", "rejected": None}, "rejected is neither text nor chat messages"),
        ({"chosen": "a", "rejected": [{"role": "user", "content": "b"}]}, "must both be text or both be messages"),
        ({"prompt": "p", "responses": ["a"], "scores": [1]}, "responses holds 1"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1]}, "scores holds 1 values, 2 are needed"),
        ({"prompt": "p", "responses": ["a", "b"], "label": "left"}, "vote 'left' is none of"),
        ({"prompt": "p", "responses": ["a", "b"], "preferences": [{"better": 0, "worse": 2}]}, "does not name two"),
        ({"chosen_ids": [], "rejected_ids": [1]}, "chosen_ids is empty"),
        ({"text": "a"}, "none of the accepted formats"),
    ],
)
def test_a_bad_row_is_named(row, message):
    with pytest.raises(UserError, match=message):
        to_comparison(row, "train row 7 (counting from 0)")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"responses": "abc", "scores": [1, 2, 3]}, "responses must be a list"),
        ({"responses": ["a", "b"], "votes": 1}, "votes must be a list"),
        ({"responses": ["a", "b"], "scores": None}, "scores must be a list"),
        ({"responses": ["a", "b"], "preferences": []}, "preferences states no preference"),
        ({"responses": ["a", "b"], "preferences": [{"better": 0}]}, "does not name better and worse"),
        (
            {"responses": ["a", "b"], "preferences": [{"better": 0, "worse": 1, "probability": 7}]},
            "not between 0 and 1",
        ),
        ({"chosen": float("nan"), "rejected": "b"}, "chosen is neither text nor chat messages"),
        ({"chosen": "a", "rejected": "b", "tools": "{"}, "tools is text but no JSON"),
        ({"chosen": "a", "rejected": "b", "chat_template_kwargs": "x"}, "chat_template_kwargs must be a mapping"),
    ],
)
def test_a_row_of_the_wrong_shape_is_named(row, message):
    with pytest.raises(UserError, match=message):
        to_comparison(row, "train row 0")
