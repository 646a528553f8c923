"""What the prompt of a row is: said once, and the same whatever its wrapping."""

import hashlib
import json

import pytest
from datasets import Dataset

from rmlab.data.cache import digest
from rmlab.data.config import Options
from rmlab.data.prepare import tokenize
from rmlab.data.rows import to_comparison
from rmlab.data.sets import split_by_prompt, without_overlap
from rmlab.data.trees import prompt_id
from rmlab.messages import UserError


def turns(*contents, first="user"):
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]


def identity(system=True, **row):
    return prompt_id(to_comparison({"chosen": "a", "rejected": "b", **row}, "row"), system)


# ---- once ----


def test_the_last_user_turn_as_the_prompt_of_whole_dialogues_is_not_said_twice():
    """As capybara has it."""
    chosen, rejected = (turns("first", "yes", "and then?", answer) for answer in ("so", "no"))
    comparison = to_comparison({"prompt": "and then?", "chosen": chosen, "rejected": rejected}, "row")
    assert comparison.prompt == chosen[:3]
    assert comparison.responses == [chosen[3:], rejected[3:]]


def test_whole_dialogues_as_responses_are_cut_where_they_part():
    """As arenas have them."""
    row = {"responses": [turns("hi", "a"), turns("hi", "b"), turns("hi", "c", "so?")], "scores": [1, 2, 3]}
    comparison = to_comparison(row, "row")
    assert comparison.prompt == turns("hi")
    assert [r[0]["content"] for r in comparison.responses] == ["a", "b", "c"]
    assert to_comparison({**row, "prompt": "hi"}, "row").responses == comparison.responses


def test_a_prompt_said_twice_in_a_dialogue_is_cut_at_the_last_time():
    chosen, rejected = (turns("q", "a", "go on", "b", "go on", answer) for answer in ("so", "no"))
    comparison = to_comparison({"prompt": "go on", "chosen": chosen, "rejected": rejected}, "row")
    assert (comparison.prompt, comparison.responses) == (chosen[:5], [chosen[5:], rejected[5:]])


@pytest.mark.parametrize("repeated", [1, 2, 3])
def test_the_end_of_a_prompt_with_which_both_sides_begin_is_not_said_twice(repeated):
    prompt = [{"role": "system", "content": "Be kind."}, *turns("hi", "yes", "and?")]
    sides = {side: [*prompt[-repeated:], *turns(side, first="assistant")] for side in ("chosen", "rejected")}
    comparison = to_comparison({"prompt": prompt, **sides}, "row")
    assert comparison.prompt == prompt
    assert comparison.responses == [turns(side, first="assistant") for side in sides]


def test_two_calls_of_tools_are_not_the_same_turn_for_having_no_text():
    def call(name):
        return {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": name, "arguments": {}}}]}

    prompt, answer = [*turns("hi"), call("f")], {"role": "tool", "content": "1"}
    comparison = to_comparison(
        {"prompt": prompt, "chosen": [call("g"), answer], "rejected": [call("h"), answer]}, "row"
    )
    assert comparison.responses == [[call("g"), answer], [call("h"), answer]]


@pytest.mark.parametrize("prompt", ["hi ", "hi\n", turns("hi")])
def test_white_space_does_not_make_a_prompt_be_said_twice(prompt):
    comparison = to_comparison({"prompt": prompt, "chosen": turns("hi", "a"), "rejected": turns("hi", "b")}, "row")
    assert comparison.prompt == turns("hi")
    assert comparison.responses == [turns("a", first="assistant"), turns("b", first="assistant")]


def test_a_prompt_that_only_one_side_repeats_is_refused():
    with pytest.raises(UserError, match="row 3: some responses repeat the prompt and others do not"):
        to_comparison({"prompt": "hi", "chosen": turns("hi", "a"), "rejected": turns("b", first="assistant")}, "row 3")


def test_an_answer_that_repeats_the_question_is_an_answer():
    comparison = to_comparison({"prompt": "hi", "chosen": turns("hi"), "rejected": turns("b")}, "row")
    assert comparison.prompt == turns("hi")
    assert len(comparison.responses[0]) == 1


def test_a_prompt_of_0_is_a_prompt():
    assert to_comparison({"prompt": 0, "chosen": "a", "rejected": "b"}, "row").prompt == "0"


# ---- the same ----


@pytest.mark.parametrize(
    "prompt",
    ["What is it?", "What is it? ", "\nWhat is it?", turns("What is it?"), turns("What is it?\n")],
)
def test_neither_white_space_nor_wrapping_makes_another_prompt(prompt):
    sides = {} if isinstance(prompt, str) else {"chosen": turns("a", first="assistant"), "rejected": turns("b")}
    assert identity(prompt=prompt, **sides) == digest([{"role": "user", "content": "What is it?"}])


@pytest.mark.parametrize(
    ("content", "digits"),
    [
        ("Ada from Oslo asks : tell me about rivers , as steps .", "8052a16962a4f6e6"),
        ("def f():\n    return 1\n\nWhat does  it do?", None),
    ],
)
def test_messages_of_one_user_turn_keep_the_id_by_which_published_splits_were_made(content, digits):
    messages = [{"role": "user", "content": content}]
    expected = digits or hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()[:16]
    assert identity(prompt=messages) == identity(prompt=messages, system=False) == identity(prompt=content) == expected


def test_a_system_prompt_makes_another_prompt_and_the_same_question():
    asked = turns("hi")
    with_system = [{"role": "system", "content": "Be kind."}, *asked]
    assert identity(prompt=asked) != identity(prompt=with_system)
    assert identity(prompt=asked, system=False) == identity(prompt=with_system, system=False)
    developer = [{"role": "developer", "content": "Be kind."}, *asked]
    assert identity(prompt=asked, system=False) == identity(prompt=developer, system=False)
    alone = [{"role": "system", "content": "Be kind."}]
    assert identity(prompt=alone, system=False) == identity(prompt=alone)


def test_rows_of_plain_text_without_a_prompt_share_none():
    texts = [{"chosen": f"The {n} is good", "rejected": f"The {n} is bad"} for n in ("cat", "dog")]
    assert len({identity(**row) for row in texts}) == 2
    swapped = {"chosen": texts[0]["rejected"], "rejected": texts[0]["chosen"]}
    assert identity(**swapped) == identity(**texts[0]), "the same two texts are the same row"


def test_dialogues_share_whole_turns_only():
    first = to_comparison({"chosen": turns("hi", "The cat"), "rejected": turns("hi", "The dog")}, "row")
    assert first.prompt == turns("hi")
    nothing = to_comparison({"chosen": turns("hi", "a"), "rejected": turns("ho", "b")}, "row")
    assert nothing.prompt == []
    assert prompt_id(nothing) != prompt_id(first)


# ---- splits ----


def rows(tokenizer, *prompts):
    data = [{"prompt": p, "chosen": f"yes {n}", "rejected": f"no {n}"} for n, p in enumerate(prompts)]
    texts = [row for row in data if isinstance(row["prompt"], str)]
    chats = [{**row, "prompt": row["prompt"]} for row in data if not isinstance(row["prompt"], str)]
    parts = [tokenize(Dataset.from_list(part), tokenizer, Options(), "t") for part in (texts, chats) if part]
    return parts[0] if len(parts) == 1 else __import__("datasets").concatenate_datasets(parts)


def test_a_question_in_four_wrappings_never_falls_on_both_sides(tokenizer):
    questions = [f"Question {n}?" for n in range(40)]
    wrapped = [
        form for q in questions for form in (q, q + " ", turns(q), [{"role": "system", "content": "x"}, *turns(q)])
    ]
    train, test = split_by_prompt(rows(tokenizer, *wrapped), 0.3, 0)
    assert len(train) + len(test) == 160
    assert len(test) % 4 == 0
    assert not set(train["split_id"]) & set(test["split_id"])


def test_an_evaluation_prompt_in_another_wrapping_is_found_in_the_training_set(tokenizer):
    train, test = rows(tokenizer, "hi", "ho"), rows(tokenizer, turns("hi "))
    with pytest.raises(UserError, match="1 of 1 comparisons are on prompts of the training set"):
        without_overlap(train, test, "dev", "error")
    other_system = rows(tokenizer, [{"role": "system", "content": "x"}, *turns("hi")])
    assert without_overlap(train, other_system, "dev", "error") is other_system


def test_rows_without_a_prompt_are_split_one_by_one(tokenizer, capsys):
    data = Dataset.from_list([{"chosen": f"The answer {n}", "rejected": f"There is no {n}"} for n in range(100)])
    trees = tokenize(data, tokenizer, Options(), "t")
    _, test = split_by_prompt(trees, 0.1, 0)
    assert 1 < len(test) < 25
    assert "no row has a prompt of its own" in capsys.readouterr().out
