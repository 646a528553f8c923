"""Comparison -> TokenTree: what is shared, what is too long, what is the same twice."""

from dataclasses import replace

import pytest
from datasets import Dataset

from rmlab import UserError
from rmlab.data import Comparison, Preference
from rmlab.data.config import Options
from rmlab.data.drafts import to_tree, truncate
from rmlab.data.prepare import tokenize
from rmlab.data.rows import to_comparison
from rmlab.data.trees import FEATURES, TokenTree

TREE = TokenTree(
    prefix=[1, 5],
    suffixes=[[6, 2], [7, 8, 2], [2]],
    better=[0, 0],
    worse=[1, 2],
    strength=[1.0, 0.5],
    probability=[1.0, 0.75],
    gold=[0.5, -0.5, 0.0],
    id="a",
    prompt_id="p",
    subset="s",
    lengths=[2, 3, 1],
    length=5,
)


def test_a_tree_knows_its_responses_its_tokens_and_the_longest():
    assert TREE.responses == [[1, 5, 6, 2], [1, 5, 7, 8, 2], [1, 5, 2]]
    assert TREE.tokens == 2 + 2 + 3 + 1
    assert TREE.longest == 5


def test_a_tree_is_the_same_after_a_data_set():
    """Its row is what FEATURES says, and other columns of a data set are none of its business."""
    row = TREE.row()
    assert row.keys() == FEATURES.keys()
    assert TokenTree.of(row) == TREE
    (kept,) = Dataset.from_list([row], features=FEATURES)
    assert TokenTree.of(kept) == TREE
    assert TokenTree.of({**kept, "index": 7, "more": None}) == replace(TREE, index=7)


def test_a_comparison_becomes_the_prefix_that_all_responses_share_and_their_ends(tokenizer):
    texts = ["yes it is", "yes it was", "no"]
    comparison = Comparison(
        "is it ? ", texts, [Preference(0, 1, 2.0), Preference(1, 2, 0.0, 0.5)], gold=[3.0, 2.0, 1.0]
    )
    tree = to_tree(comparison, 4, "row 4", tokenizer, Options())
    assert tree.responses == [tokenizer(f"is it ? {text}<|eos|>")["input_ids"] for text in texts]
    assert len({suffix[0] for suffix in tree.suffixes}) > 1
    assert (tree.better, tree.worse) == ([0, 1], [1, 2])
    assert (tree.strength, tree.probability, tree.gold) == ([2.0, 0.0], [1.0, 0.5], [3.0, 2.0, 1.0])
    assert (tree.id, tree.index, tree.implicit, tree.dropped) == ("4", -1, False, "")
    assert tree.length == tree.longest == max(map(len, tree.responses))


def test_response_length_is_without_the_prompt_only(tokenizer):
    """Not what is left after the words that both answers happen to share."""
    rows = [{"prompt": "hi ", "chosen": "maybe perhaps maybe yes", "rejected": "maybe perhaps maybe no"}]
    (tree,) = tokenize(Dataset.from_list(rows), tokenizer, Options())
    expected = [
        len(tokenizer(t + "<|eos|>", add_special_tokens=False)["input_ids"])
        for t in (" maybe perhaps maybe yes", " maybe perhaps maybe no")
    ]
    assert tree["lengths"] == pytest.approx(expected, abs=1)


def test_k_wise_rows_lose_only_the_identical_pair(tokenizer, capsys):
    rows = Dataset.from_list([{"prompt": "p ", "responses": ["a", "a", "b"], "scores": [1, 2, 3]}])
    (tree,) = tokenize(rows, tokenizer, Options())
    assert list(zip(tree["better"], tree["worse"], strict=True)) == [(2, 0), (2, 1)]
    assert "dropped 0 overlong, 1 identical" in capsys.readouterr().out


def test_rule_7_overlong_rows_are_dropped_counted_truncated_or_refused(tokenizer, capsys):
    """Fails if a policy is ignored, a count is wrong, or truncation loses EOS or cuts the two sides differently."""
    rows = Dataset.from_dict({"prompt": ["w " * 30, "w "], "chosen": ["a", "b"], "rejected": ["c", "d"]})
    kept = tokenize(rows, tokenizer, Options(max_length=16))
    assert len(kept) == 1
    assert "1 comparisons of 2 rows" in (line := capsys.readouterr().out)
    assert "dropped 1 overlong, 0 identical; truncated 0" in line
    cut = tokenize(rows, tokenizer, Options(max_length=16, overlong="truncate"))
    assert "truncated 1" in capsys.readouterr().out
    full = [cut[0]["prefix"] + suffix for suffix in cut[0]["suffixes"]]
    assert max(map(len, full)) == 16
    assert all(ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id for ids in full)
    assert "a" in tokenizer.decode(full[0])
    assert "c" in tokenizer.decode(full[1])
    with pytest.raises(UserError, match=r"train row 0 .*tokens, data.max_length is 16"):
        tokenize(rows, tokenizer, Options(max_length=16, overlong="error"))


def test_rule_7_pairs_made_identical_are_dropped_and_counted(tokenizer, capsys):
    """Fails if truncation may leave two equal sequences: their loss is log 2 whatever the model."""
    rows = Dataset.from_dict({"chosen": ["a " * 30 + "x", "b"], "rejected": ["a " * 30 + "y", "c"]})
    kept = tokenize(rows, tokenizer, Options(max_length=8, overlong="truncate"))
    assert len(kept) == 1 or all(p != s for p, s in kept["suffixes"])
    rows = Dataset.from_dict({"chosen": ["same", "b"], "rejected": ["same", "c"]})
    assert len(tokenize(rows, tokenizer, Options())) == 1
    assert "dropped 0 overlong, 1 identical" in capsys.readouterr().out


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8])
def test_truncation_never_says_a_token_twice_and_keeps_the_last(limit):
    tokens = [[1, 10, 11, 12, 13, 20, 21, 22, 2], [1, 10, 11, 12, 13, 30, 2]]
    got, cut = truncate(tokens, limit, before=1, shared=5)
    assert all(len(t) <= limit and len(set(t)) == len(t) and t[-1] == 2 for t in got)
    assert 0 <= cut <= 5
    for short, whole in zip(got, tokens, strict=True):
        assert short == [t for t in whole if t in short], "in their order"


def test_lengths_are_those_of_what_is_scored(tokenizer):
    """The prompt is cut first, then the long response; without truncation it is the response and its EOS."""
    row = {"prompt": "a b c d e f g h ", "chosen": " ".join("xyzuvw" * 5), "rejected": "n o"}
    comparison = to_comparison(row, "row")
    whole = to_tree(comparison, 0, "row", tokenizer, Options(max_length=None))
    prompt = len(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]) + 1  # BOS
    assert whole.lengths == [len(r) - prompt for r in whole.responses]
    for limit in (4, 12, 30, 70):
        cut = to_tree(comparison, 0, "row", tokenizer, Options(max_length=limit, overlong="truncate"))
        assert all(length <= len(r) <= limit for length, r in zip(cut.lengths, cut.responses, strict=True))
        assert cut.lengths[1] <= whole.lengths[1]
        if len(whole.responses[0]) - limit < prompt - 1:  # the prompt was enough
            assert cut.lengths == whole.lengths


def test_lengths_are_without_the_prompt_where_all_of_it_and_more_was_cut(tokenizer):
    """The two answers share their beginning, of which the oldest tokens go too: BOS alone is left of the prompt."""
    row = {"prompt": "a b ", "chosen": "c d e f g h x", "rejected": "c d e f g h y"}
    options = Options(max_length=5, overlong="truncate")
    tree = to_tree(to_comparison(row, "row"), 0, "row", tokenizer, options)
    assert {len(r) for r in tree.responses} == {5}
    assert tree.lengths == [4, 4]


@pytest.mark.parametrize("writes_bos", [True, False])
def test_lengths_of_messages_do_not_count_bos_whoever_writes_it(writes_bos, tokenizer):
    if not writes_bos:
        tokenizer.chat_template = tokenizer.chat_template.removeprefix("{{ bos_token }}")
    turns = {side: [{"role": "assistant", "content": f"{side} it is"}] for side in ("chosen", "rejected")}
    row = {"prompt": [{"role": "user", "content": "is it?"}], **turns}
    tree = to_tree(to_comparison(row, "row"), 0, "row", tokenizer, Options())
    texts = [f"<|assistant|>{side} it is<|eos|>" for side in turns]
    assert tree.lengths == [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


def test_a_prompt_that_the_template_does_not_take_alone_has_the_length_of_what_is_shared(tokenizer):
    tokenizer.chat_template = (
        "{% if messages|length < 2 %}{{ raise_exception('no query') }}{% endif %}" + tokenizer.chat_template
    )
    answers = {side: [{"role": "user", "content": side}] for side in ("yes", "no")}
    row = {"prompt": [{"role": "system", "content": "kind"}], "chosen": answers["yes"], "rejected": answers["no"]}
    tree = to_tree(to_comparison(row, "row"), 0, "row", tokenizer, Options())
    assert tree.lengths == [len(suffix) for suffix in tree.suffixes]


def test_token_ids_of_another_tokenizer_are_named(tokenizer):
    row = {"chosen_ids": [5, len(tokenizer)], "rejected_ids": [5]}
    with pytest.raises(UserError, match=rf"t row 2: token id {len(tokenizer)} is none of the tokenizer's"):
        to_tree(to_comparison(row, "row"), 2, "t row 2", tokenizer, Options())


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 1.5},
        {"max_length": "64"},
        {"max_length": True},
        {"template": {"tokenize": True}, "chat_template_kwargs": ""},
        {"template": ["tools"], "chat_template_kwargs": ""},
    ],
)
def test_options_of_other_types_and_reserved_names_are_refused(options):
    names = [options.popitem()[0]] if "chat_template_kwargs" in options else list(options)
    with pytest.raises(UserError, match=names[0]):
        Options(**options)


@pytest.mark.parametrize("options", [{"max_length": 0}, {"max_length": -1}, {"overlong": "cut"}, {"identical": "keep"}])
def test_options_check_themselves(options):
    with pytest.raises(UserError, match=next(iter(options))):
        Options(**options)


def test_messages_that_the_template_does_not_take_are_named(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    comparison = to_comparison(
        {"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}, "row"
    )
    with pytest.raises(UserError, match=r"t row 3: the chat template does not take its messages: roles must alternate"):
        to_tree(comparison, 3, "t row 3", tokenizer, Options())
