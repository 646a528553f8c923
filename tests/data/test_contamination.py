"""Evaluated prompts that are in the training data: planted ones are found, others are not."""

import random

import pytest

from rmlab.data.contamination import SIMILAR, Match, contamination, prompts_of

ALPHABET = [f"word{n}" for n in range(400)]


def sentence(seed, words=40):
    return " ".join(random.Random(seed).choices(ALPHABET, k=words))


def similarity(a, b):
    """Of the runs of five words, by hand."""
    one, two = ({tuple(text.split()[n : n + 5]) for n in range(len(text.split()) - 4)} for text in (a, b))
    return len(one & two) / len(one | two)


def test_planted_prompts_are_found_among_many_and_unrelated_ones_are_not():
    """Exact ones; with a word changed at the end; with one in the middle, which is too much for 0.8."""
    own = {name: sentence(name) for name in ("same", "nearly", "reworded", "other")}
    nearly = own["nearly"].rsplit(" ", 1)[0] + " changed"
    words = own["reworded"].split()
    reworded = " ".join([*words[:20], "changed", *words[21:]])
    assert similarity(own["nearly"], nearly) >= SIMILAR > similarity(own["reworded"], reworded)
    trained = [(f"t{n}", sentence(n)) for n in range(2000)]
    trained[700:700] = [("planted", own["same"]), ("near", nearly), ("far", reworded)]
    found = contamination(own.items(), trained)
    assert found == [
        Match("same", "planted", 1.0, True),
        Match("nearly", "near", pytest.approx(similarity(own["nearly"], nearly)), False),
    ]


def test_none_is_missed_that_is_just_similar_enough():
    """A hundred prompts of 40 words, four of which are left out at the end: 32 of 36 runs of five are in both."""
    own = [(str(n), sentence(f"e{n}")) for n in range(100)]
    cut = [(f"t{n}", " ".join(text.split()[:-4])) for n, text in own]
    assert similarity(own[0][1], cut[0][1]) == pytest.approx(32 / 36)
    found = contamination(own, cut)
    assert [(m.id, m.row) for m in found] == [(str(n), f"t{n}") for n in range(100)]


def test_the_same_prompt_is_the_same_however_it_is_wrapped():
    message = [{"role": "user", "content": " What is  2 + 2? "}]
    assert contamination([("e", "What is  2 + 2?\n")], [("t", message)]) == [Match("e", "t", 1.0, True)]


def test_case_and_punctuation_make_a_near_prompt_and_not_the_same():
    found = contamination([("e", "Tell me: why is the sky blue?")], [("t", "tell me why is the SKY blue")])
    assert found == [Match("e", "t", 1.0, False)]


@pytest.mark.parametrize(("trained", "near"), [("hi THERE", True), ("hi there you", False), ("there hi", False)])
def test_short_prompts_are_near_where_all_words_are_the_same(trained, near):
    assert bool(contamination([("e", "Hi there!")], [("t", trained)])) is near


def test_prompts_without_words_are_only_ever_the_same():
    assert contamination([("e", "?!"), ("f", "...")], [("t", "..."), ("u", "-")]) == [Match("f", "t", 1.0, True)]


@pytest.mark.parametrize("nothing", ["", " ", [{"role": "user", "content": ""}]])
def test_rows_without_a_prompt_have_none_in_common(nothing):
    assert contamination([("a", nothing)], [("0", nothing)]) == []


def test_the_most_similar_training_prompt_is_told_the_first_of_several():
    text = sentence("x")
    shorter = " ".join(text.split()[:-2])
    trained = [("a", shorter), ("b", text), ("c", text), ("d", shorter)]
    assert contamination([("e", text), ("f", text)], trained) == [Match(n, "b", 1.0, True) for n in "ef"]


def test_prompts_of_rows_are_those_they_state_or_begin_with_alike():
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "id": "x"},
        {"chosen": "Human: hi Assistant: yes", "rejected": "Human: hi Assistant: no"},
        {"chosen_ids": [1], "rejected_ids": [2]},
    ]
    assert list(prompts_of(rows, "rows")) == [("x", "p"), ("1", "Human: hi Assistant: ")]


def test_training_prompts_are_never_all_in_memory():
    """One at a time: an iterator that counts what is alive."""

    class Counted(str):
        alive = most = 0

        def __new__(cls, text):
            cls.alive += 1
            cls.most = max(cls.most, cls.alive)
            return super().__new__(cls, text)

        def __del__(self):
            type(self).alive -= 1

    contamination([("e", sentence("e"))], ((str(n), Counted(sentence(n))) for n in range(200)))
    assert Counted.most <= 3
