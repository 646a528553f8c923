"""Data sets of token trees: counts, cache, processes."""

import pytest
from conftest import make_pairs
from datasets import Dataset

from rmlab import UserError
from rmlab.data.config import Options
from rmlab.data.prepare import check_rows, tokenize


def test_a_missing_column_is_named_with_the_nearest_present_one():
    with pytest.raises(
        UserError, match=r"no column 'rejected'; did you mean 'reject'.*data.columns.rejected=YOUR_COLUMN"
    ):
        check_rows(Dataset.from_list([{"chosen": "a", "reject": "b"}]), "train", Options())


def test_identical_responses_are_refused_by_row():
    rows = make_pairs(3).to_list()
    rows[1]["rejected"] = rows[1]["chosen"]
    with pytest.raises(UserError, match=r"train row 1 \(counting from 0\): .* identical"):
        check_rows(Dataset.from_list(rows), "train", Options(identical="error"))


def test_tokens_are_cached_by_content(tokenizer, tmp_path, monkeypatch):
    """The second time nothing is tokenised; another row, option or tokenizer is another entry."""
    import rmlab.data.drafts as module

    cache, calls = tmp_path / "cache", []
    real = module.finished
    monkeypatch.setattr(module, "finished", lambda *a: calls.append(1) or real(*a))

    def again(rows=None, tokens=tokenizer, **options):
        calls.clear()
        tokenize(rows or make_pairs(5), tokens, Options(**options), cache_dir=cache)
        return len(calls)

    assert again() == 5
    assert again() == 0
    tokenizer("something longer", padding="max_length", max_length=32, truncation=True)  # leaves state behind
    assert again() == 0
    assert again(max_length=500) == 5
    assert again(rows=make_pairs(5, seed=2)) == 5
    tokenizer.chat_template = "{{ messages }}"
    assert again() == 5
    assert len(list(cache.iterdir())) == 4


def test_two_processes_may_tokenise(tokenizer):
    one = tokenize(make_pairs(8), tokenizer, Options())
    two = tokenize(make_pairs(8), tokenizer, Options(), num_proc=2)
    assert one.to_dict() == two.to_dict()


def test_negative_strengths_are_counted(tokenizer, capsys):
    tokenize(make_pairs(3, score_chosen=[1, 2, 3], score_rejected=[5, 1, 1]), tokenizer, Options())
    assert "1 preferences have a negative strength" in capsys.readouterr().out


def test_a_prompt_said_twice_is_refused():
    rows = [{"prompt": "Question: ", "chosen": "Question: yes", "rejected": "Question: no"}] * 3
    with pytest.raises(UserError, match="already start with the prompt"):
        check_rows(Dataset.from_list(rows), "train", Options())


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Question:\n", "chosen": " Question: yes", "rejected": "Question: no"},
        {"prompt": "Question:", "responses": ["Question: yes", "Question: no", "Question: -"], "scores": [3, 2, 1]},
    ],
)
def test_a_prompt_said_twice_is_refused_whatever_the_white_space_and_the_format(row, tokenizer):
    data = Dataset.from_list([row] * 3)
    for check in (
        lambda: check_rows(data, "train", Options()),
        lambda: tokenize(data.to_iterable_dataset(), None, Options()),
    ):
        with pytest.raises(UserError, match="already start with the prompt"):
            check()


@pytest.mark.parametrize(
    ("row", "options", "advice"),
    [
        ({"chosen": "same", "rejected": "same"}, {}, "are the columns the right ones"),
        ({"chosen": "a " * 30 + "x", "rejected": "a " * 30}, {"max_length": 9}, "data.overlong=truncate"),
        (
            {"chosen": "yes it is", "rejected": "no"},
            {"max_length": 1, "overlong": "truncate"},
            "was cut off; raise data.max_length",
        ),
    ],
)
def test_the_advice_where_nothing_is_left_is_of_what_happened(row, options, advice, tokenizer):
    with pytest.raises(UserError, match=rf"nothing is left of 3 rows.*{advice}"):
        tokenize(Dataset.from_list([row] * 3), tokenizer, Options(**options))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": "q", "system": "s", "id": "1"}, "nor what is in question, system;"),
        ({"question": "q", "prompt": "p"}, None),
        ({"id": "1", "subset": "x", "rating": 3}, None),
    ],
)
def test_texts_that_are_not_read_are_named_where_there_is_no_prompt(row, told, tokenizer, capsys):
    tokenize(Dataset.from_list([{**row, "chosen": "a", "rejected": "b"}]), tokenizer, Options())
    out = capsys.readouterr().out
    assert ("no prompt is read" in out) == bool(told)
    assert (told or "") in out


def test_token_trees_in_a_format_are_read_like_any_other(tokenizer):
    trees = tokenize(make_pairs(3), tokenizer, Options())
    assert tokenize(trees, tokenizer, Options()) is trees
    assert tokenize(trees.with_format("torch"), tokenizer, Options())[:] == trees[:]


def test_other_code_makes_other_cache_entries(tokenizer, tmp_path, monkeypatch):
    import rmlab.data.prepare as module

    for version in ("one", "two"):
        monkeypatch.setattr(module, "code", lambda v=version: v)
        tokenize(make_pairs(2), tokenizer, Options(), cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_rule_7_an_empty_result_is_an_error(tokenizer):
    """Fails if a max_length that drops every row trains on nothing."""
    with pytest.raises(UserError, match="nothing is left of 21 rows"):
        tokenize(make_pairs(), tokenizer, Options(max_length=2))
