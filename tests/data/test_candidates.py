"""Rows to be scored: training's formats, and responses that nobody has compared yet."""

import pytest

from rmlab.data.candidates import to_candidates
from rmlab.data.rows import to_comparison
from rmlab.messages import UserError

USER, ANSWER = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}
TALK = [USER, ANSWER, {"role": "user", "content": "and?"}]


@pytest.mark.parametrize(
    ("row", "prompt", "responses"),
    [
        ({"prompt": "q", "response": "a"}, "q", ["a"]),
        ({"prompt": "q", "responses": ["a"]}, "q", ["a"]),
        ({"prompt": "q", "responses": ["a", "a", ""]}, "q", ["a", "a", ""]),
        ({"response": "all of it"}, "", ["all of it"]),
        ({"prompt": "q", "response": 42}, "q", ["42"]),
        ({"prompt": TALK, "response": "so"}, TALK, [[{"role": "assistant", "content": "so"}]]),
        ({"prompt": "hello", "response": [ANSWER]}, [USER], [[ANSWER]]),
        ({"messages": [*TALK, ANSWER]}, TALK, [[ANSWER]]),
        ({"messages": [ANSWER]}, [], [[ANSWER]]),
        ({"prompt": [USER], "messages": [USER, ANSWER]}, [USER], [[ANSWER]]),
        ({"prompt": "q", "response": "a", "responses": None, "messages": None}, "q", ["a"]),
        ({"input_ids": [5, 6, 7]}, "", [[5, 6, 7]]),
        ({"input_ids": [5, 6, 0], "attention_mask": [1, 1, 0]}, "", [[5, 6]]),
        ({"input_ids": [[0, 5], [6, 7]], "attention_mask": [[0, 1], [1, 1]]}, "", [[5], [6, 7]]),
    ],
)  # fmt: skip
def test_what_is_to_be_scored(row, prompt, responses):
    got = to_candidates({**row, "id": 3, "subset": "hard"}, "row 3")
    assert (got.prompt, got.responses, got.preferences) == (prompt, responses, [])
    assert (got.id, got.subset, got.tokenised) == ("3", "hard", "input_ids" in row)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 2.0},
        {"prompt": "q", "responses": ["a", "b", "c"], "scores": [1, 1, 0]},
        {"chosen_ids": [3, 4], "rejected_ids": [3, 5]},
    ],
)
def test_rows_of_training_keep_their_preferences(row):
    assert to_candidates(row, "row") == to_comparison(row, "row")


def test_columns_of_preferences_without_a_value_are_none():
    got = to_candidates({"prompt": "q", "responses": ["a", "b"], "scores": None}, "row")
    assert (len(got.responses), got.preferences) == (2, [])


def test_answers_that_are_right_or_wrong_say_so():
    assert to_candidates({"responses": ["a", "b"], "gold_rewards": [1, 0]}, "row").gold == [1, 0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answer": "a"}, r"row 7: columns \['answer', 'question'\] hold nothing to score; give"),
        ({"prompt": "q", "response": None}, r"hold nothing to score"),
        ({"prompt": "q", "responses": []}, "row 7: responses holds none"),
        ({"prompt": "q", "responses": "a"}, "row 7: responses must be a list, not 'a'"),
        ({"prompt": "q", "response": {"a": 1}}, "row 7: response is neither text nor chat messages"),
        ({"response": "a", "messages": [USER, ANSWER]}, "it has response and messages, and one of them"),
        ({"messages": TALK}, "row 7: messages must end in the assistant's, which is scored; the last one is .*user"),
        ({"messages": "hello"}, "messages must end in the assistant's, which is scored; the last one is text"),
        ({"messages": []}, "messages holds no message"),
        ({"prompt": "q", "responses": ["a", [ANSWER]]}, "must be text or all be messages"),
        ({"input_ids": []}, "row 7: input_ids is empty"),
        ({"input_ids": [[1], ["x"]]}, "input_ids holds 'x', which is no token id"),
        ({"input_ids": [[1], [2]], "attention_mask": [[1]]}, "attention_mask holds 1 lists, and input_ids 2"),
        ({"prompt": "q", "response": "a", "images": ["x"]}, "images is not read"),
        ({"prompt": "q", "response": "a", "tools": [{}]}, "are for a chat template"),
        ({"response": "a", "gold_rewards": [1, 0]}, "gold_rewards holds 2 values, 1 are needed"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_one_sentence(row, message):
    with pytest.raises(UserError, match=message):
        to_candidates(row, "row 7")
