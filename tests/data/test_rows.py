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


def test_ratings_are_gold_where_they_say_who_wins_and_no_true_rewards_are_given():
    rated = {"prompt": "p", "responses": ["a", "b"], "scores": [1, 3]}
    assert to_comparison(rated, "row").gold == [1, 3]
    assert to_comparison({**rated, "gold_rewards": [0.5, 0.25]}, "row").gold == [0.5, 0.25]
    assert to_comparison({**rated, "preferences": [{"better": 1, "worse": 0}]}, "row").gold is None


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


def test_a_tie_has_no_strength():
    """With loss=margin a tie must still be least at equal rewards."""
    pair = {"chosen": "a", "rejected": "b", "margin": 2.0}
    assert preferences({**pair, "probability": 0.5}) == [Preference(0, 1, 0.0, 0.5)]


STATED = [{"margin": -2.0}, {"score_chosen": 1, "score_rejected": 3}, {"margin": 2.0}, {}]


@pytest.mark.parametrize("stated", STATED)
@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 0.7, 1.0])
def test_a_comparison_written_the_other_way_round_is_the_same_preference(stated, probability):
    """A strength is that of chosen minus rejected, whatever the probability; unknown, it is 1 for the likelier side."""
    other = {k: -v for k, v in stated.items() if k == "margin"}
    if "score_chosen" in stated:
        other = {"score_chosen": stated["score_rejected"], "score_rejected": stated["score_chosen"]}
    (one,) = preferences({"chosen": "a", "rejected": "b", **stated, "probability": probability})
    (two,) = preferences({"chosen": "b", "rejected": "a", **other, "probability": 1 - probability})
    assert (one.strength, one.probability) == (two.strength, pytest.approx(two.probability))
    assert one.probability == 0.5 or ("ab"[one.better], "ab"[one.worse]) == ("ba"[two.better], "ba"[two.worse])


def test_what_is_rated_higher_and_likelier_has_a_strength_above_0():
    (got,) = preferences({"chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 3, "probability": 0.2})
    assert got == Preference(1, 0, 2.0, 0.8)
    native = [{"better": 0, "worse": 1, "strength": -2.0, "probability": 0.2}]
    assert preferences({"responses": ["a", "b"], "preferences": native}) == [got]


def test_columns_that_say_the_same_may_stand_together_and_contradicting_ones_may_not():
    row = {"responses": ["a", "b", "c"], "scores": [3, 2, 1], "ranks": [1, 2, 3], "label": "unrelated", "votes": None}
    assert len(preferences(row)) == 3
    with pytest.raises(
        UserError, match=r"train row 0: scores and ranks contradict each other; data.columns.ranks=null"
    ):
        preferences({**row, "ranks": [2, 1, 3]})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "a", "rejected": "b", "margin": float("nan")}, "train row 7 .*margin is nan, not a finite number"),
        ({"chosen": "a", "rejected": "b", "margin": None}, "margin is missing, but other rows have it"),
        ({"chosen": "a", "rejected": "b", "margin": "big"}, "margin is 'big'"),
        ({"chosen": "a", "rejected": "b", "probability": 1.2}, "probability is 1.2, not between 0 and 1"),
        ({"chosen": "a", "rejected": None}, "rejected is neither text nor chat messages"),
        ({"chosen": "a", "rejected": [{"role": "user", "content": "b"}]}, "must be text or all be messages"),
        ({"prompt": "p", "responses": ["a"], "scores": [1]}, "responses holds 1"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1]}, "scores holds 1 values, 2 are needed"),
        ({"prompt": "p", "responses": ["a", "b"], "label": "left"}, "vote 'left' is none of"),
        ({"prompt": "p", "responses": ["a", "b"], "preferences": [{"better": 0, "worse": 2}]}, "worse is 2"),
        ({"prompt": "p", "responses": ["a", "b"], "preferences": [{"better": 1, "worse": 1}]}, "does not name two"),
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
        ({"chosen": "a", "rejected": "b", "score_chosen": 1}, "score_rejected is missing"),
        ({"chosen": "a", "rejected": "b", "margin": 1e39}, "margin is 1e[+]39, not a finite number"),
        ({"chosen": "a", "rejected": "b", "margin": 10**400}, "margin is .*, not a finite number"),
        ({"chosen": "a", "rejected": "b", "margin": 10**5000}, "margin is a int that cannot be printed"),
        ({"responses": ["a", "b"], "scores": [3e38, -3e38]}, "a difference of scores is 6e[+]38, not a finite"),
        ({"responses": ["a", "b"], "preferences": [{"better": 1.7, "worse": 0}]}, "better is 1.7, which does not name"),
        ({"responses": ["a", "b"], "preferences": [{"better": True, "worse": 0}]}, "better is True"),
        ({"responses": ["a", "b"], "preferences": [{"better": -1, "worse": 0}]}, "better is -1"),
        ({"responses": ["a", [{"role": "user", "content": "b"}]], "scores": [1, 2]}, "must be text or all be messages"),
        (
            {"responses": ["a", "b"], "scores": [1, 2], "gold_rewards": [1.0]},
            "gold_rewards holds 1 values, 2 are needed",
        ),
        ({"responses": ["a", "b"], "scores": [1, 2], "gold_rewards": [1.0, float("nan")]}, "gold_rewards is nan"),
        ({"chosen": "a\ud800", "rejected": "b"}, "chosen holds half a character"),
        ({"chosen": "a", "rejected": "b", "id": "\udfff"}, "id holds half a character"),
        ({"chosen": "a", "rejected": "b", "subset": "\udfff"}, "subset holds half a character"),
        ({"chosen": [], "rejected": [{"role": "user", "content": "b"}]}, "chosen holds no message"),
        ({"chosen": [{"role": "user"}], "rejected": [{"role": "user", "content": "b"}]}, "message 0 has no text"),
        ({"chosen": "a", "rejected": "b", "images": ["x.png"]}, "images is not read"),
        ({"chosen": "a", "rejected": "b", "chat_template_kwargs": {"tokenize": True}}, "tokenize is no variable"),
        ({"chosen": "a", "rejected": "b", "chat_template_kwargs": {"chat_template": "x"}}, "set model.chat_template"),
        ({"chosen": "a", "rejected": "b", "tools": '{"a": 1}'}, "tools must be a list"),
        ({"chosen_ids": "123", "rejected_ids": [1]}, "chosen_ids must be a list"),
        ({"chosen_ids": [1.9], "rejected_ids": [1]}, "chosen_ids holds 1.9, which is no token id"),
        ({"chosen_ids": [-1], "rejected_ids": [1]}, "chosen_ids holds -1"),
        ({"chosen_ids": [2**31], "rejected_ids": [1]}, "chosen_ids holds 2147483648"),
        ({"chosen_ids": [True], "rejected_ids": [1]}, "chosen_ids holds True"),
        (
            {"input_ids_chosen": [1, 2], "attention_mask_chosen": [1], "input_ids_rejected": [1]},
            "attention_mask_chosen holds 1 values, 2 are needed",
        ),
        (
            {"input_ids_chosen": [1, 2], "attention_mask_chosen": [1, "0"], "input_ids_rejected": [1]},
            "attention_mask_chosen holds '0', neither 0 nor 1",
        ),
        ({"chosen": 10**5000, "rejected": "b"}, "chosen is a int that cannot be printed"),
        ({"chosen": "a", "rejected": "b", "subset": {"a": 1}}, "subset is {'a': 1}, neither text nor a number"),
        ({"chosen": "a", "rejected": "b", "tools": "[" * 3000 + "]" * 3000}, "tools is text but no JSON"),
        ({"chosen": [{"role": None, "content": "a"}], "rejected": "b"}, "chosen is neither text nor chat messages"),
        ({"chosen": "a", "rejected": "b", "id": 10**5000}, "id is a int that cannot be printed"),
        ({"chosen": "a", "rejected": "b", "margin": 1, "score_chosen": 1, "score_rejected": 3}, "have other signs"),
        ({"chosen": "a", "rejected": "b", "margin": 1, "score_chosen": 1}, "score_rejected is missing"),
        ({"chosen": "a", "rejected": "b", "tools": [{"name": "f"}]}, r"\['tools'\] are for a chat template"),
        ({"chosen": "a", "rejected": "b", "chat_template_kwargs": {"a b": 1}}, "'a b' is no name of a variable"),
    ],
)
def test_a_row_of_the_wrong_shape_is_named(row, message):
    with pytest.raises(UserError, match=message):
        to_comparison(row, "train row 0")


@pytest.mark.parametrize(("given", "text"), [(True, "True"), (42, "42"), (0.5, "0.5"), (10**400, str(10**400))])
def test_a_number_for_an_answer_is_its_text(given, text):
    assert to_comparison({"chosen": given, "rejected": "b"}, "row").responses[0] == text


def test_a_mask_keeps_what_it_marks():
    row = {"input_ids_chosen": [7, 8, 0], "attention_mask_chosen": [1, True, 0], "input_ids_rejected": [7]}
    assert to_comparison(row, "row").responses == [[7, 8], [7]]
