"""What is known of the texts of evaluation sets."""

from datafiles import write
from datasets import Dataset

from rmlab.data import Comparison, Preference
from rmlab.data.config import DataConfig, Options
from rmlab.data.excerpts import CUT, EXCERPT, texts_of, with_texts
from rmlab.data.merge import merged_by_prompt
from rmlab.data.prepare import tokenize
from rmlab.data.sets import build_sets, load_rows
from rmlab.data.style import counts

FIRST = [Preference(0, 1)]


def test_the_end_of_the_prompt_and_the_beginning_of_each_response_are_kept():
    prompt, responses = "p" * 900 + " end ", ["a" * 900, " short "]
    style, (asked, first, second) = texts_of(Comparison(prompt, responses, FIRST))
    assert asked == CUT + ("p" * 900 + " end")[-EXCERPT:]
    assert (first, second) == ("a" * EXCERPT + CUT, "short")
    assert style == [counts(response) for response in responses]


def test_a_chat_is_what_its_messages_say():
    prompt = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi?"}]
    call = [{"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]
    style, excerpts = texts_of(Comparison(prompt, [[{"role": "assistant", "content": "**Yes**"}], call], FIRST))
    assert excerpts == ["system: Be kind.\n\nuser: Hi?", "**Yes**", '[{"name": "f"}]']
    assert style == [counts("**Yes**"), counts('[{"name": "f"}]')]


def test_without_a_prompt_it_is_what_the_responses_begin_with_in_whole_words():
    dialogues = ["Human: why?\n\nAssistant: because", "Human: why?\n\nAssistant: before"]
    style, excerpts = texts_of(Comparison("", dialogues, FIRST))
    assert excerpts == ["Human: why?\n\nAssistant:", "because", "before"]
    assert [row[0] for row in style] == [len("because"), len("before")]
    assert texts_of(Comparison("", ["yes", "yet"], FIRST))[1] == ["", "yes", "yet"]


def test_half_of_a_surrogate_pair_does_not_stop_a_file():
    assert texts_of(Comparison("p", ["\ud83d ok", "b"], FIRST))[1] == ["p", "? ok", "b"]


def test_token_ids_have_no_texts():
    assert texts_of(Comparison("", [[1, 2], [1, 3]], FIRST, tokenised=True)) == ([], [])


def row_of(name, n):
    texts = {"prompt": f"prompt {name} {n} ", "chosen": f"a{n} " * (n % 5 + 1), "rejected": "b " * (30 * (n % 3))}
    return {"id": f"{name}{n}", **texts}


def test_held_out_rows_have_their_own_texts_and_training_rows_none(tokenizer, tmp_path):
    """Of two sources of which rows are dropped: each tree has the texts of the row whose id it bears."""
    rows = {name: [row_of(name, n) for n in range(40)] for name in "xy"}
    for name, of in rows.items():
        write(tmp_path / f"{name}.jsonl", of, "jsonl")
    spec = {name: {"source": "load", "path": str(tmp_path / f"{name}.jsonl")} for name in rows}
    config = DataConfig(train=spec, eval_fraction=0.4, max_length=60)
    sets = build_sets(load_rows(config), config, tokenizer)
    assert not {"style", "excerpts"} & set(sets.train.column_names)
    by_id = {row["id"]: row for of in rows.values() for row in of}
    assert {row["id"][0] for row in sets.eval["eval"]} == {"x", "y"}
    for tree in sets.eval["eval"]:
        row = by_id[tree["id"]]
        assert tree["excerpts"] == [row[part].strip() for part in ("prompt", "chosen", "rejected")]
        assert tree["style"] == [counts(row["chosen"]), counts(row["rejected"])]
    assert len(sets.train) + len(sets.eval["eval"]) < 80


def test_merged_comparisons_keep_the_text_of_each_different_response(tokenizer):
    rows = Dataset.from_dict({"prompt": ["p "] * 2, "chosen": ["aa"] * 2, "rejected": ["b", "**cc**"]})
    (merged,) = merged_by_prompt(with_texts(tokenize(rows, tokenizer, Options()), rows, "rows"))
    assert merged["excerpts"] == ["p", "aa", "b", "**cc**"]
    assert merged["style"] == [counts("aa"), counts("b"), counts("**cc**")]
