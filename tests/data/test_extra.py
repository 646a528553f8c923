"""Weights of preferences, and the columns that terms of the loss read."""

import math
from dataclasses import replace

import pytest
import torch
from datafiles import write
from datasets import Dataset

from rmlab.data.config import DataConfig, Options
from rmlab.data.merge import merge, merged_by_prompt
from rmlab.data.prepare import tokenize
from rmlab.data.rows import to_comparison
from rmlab.data.sets import build_sets, load_rows
from rmlab.data.trees import TokenTree
from rmlab.messages import UserError
from rmlab.scoring.collator import PreferenceCollator

RATINGS, USER, TIME = ("ratings", "output"), ("user", "pair"), ("time", "response")
PAIR = {"prompt": "p ", "chosen": "a", "rejected": "b"}
THREE = {"prompt": "p ", "responses": ["a", "b", "c"], "scores": [3, 1, 2]}
NATIVE = {**THREE, "preferences": [{"better": 0, "worse": 1}, {"better": 2, "worse": 1}]}
NATIVE.pop("scores")
NAN = math.nan


def read(row, *columns, complete=True):
    return to_comparison(row, "train row 7", Options(columns=columns, complete=complete)).columns


def same(one, other):
    return torch.equal(torch.tensor(one).nan_to_num(-99), torch.tensor(other).nan_to_num(-99))


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        ({**PAIR, "ratings_chosen": [4, 5], "ratings_rejected": [1, None]}, RATINGS, [[4, 5], [1, NAN]]),
        ({**PAIR, "ratings_chosen": 4, "ratings_rejected": "N/A"}, RATINGS, [[4], [NAN]]),
        ({**PAIR, "ratings": [[4, 5], None]}, RATINGS, [[4, 5], [NAN, NAN]]),
        ({**PAIR, "score_chosen": 4, "score_rejected": 2}, RATINGS, [[4], [2]]),
        (THREE, RATINGS, [[3], [1], [2]]),
        ({**THREE, "ratings": [1, 2.5, "3"]}, RATINGS, [[1], [2.5], [3]]),
        ({**THREE, "ratings": None}, RATINGS, [[NAN], [NAN], [NAN]]),
        ({**PAIR, "ratings": [[None, "N/A"], None]}, RATINGS, [[NAN], [NAN]]),
        ({**THREE, "time": [1, 2, 3]}, TIME, [[1], [2], [3]]),
        ({**PAIR, "time_chosen": 1, "time_rejected": 2}, TIME, [[1], [2]]),
        ({**PAIR, "user": 5}, USER, [[5]]),
        ({**PAIR, "user": None}, USER, [[NAN]]),
        ({**THREE, "user": 5}, USER, [[5], [5], [5]]),
        ({**NATIVE, "user": [5, 6]}, USER, [[5], [6]]),
        ({**NATIVE, "preferences": [{"better": 0, "worse": 1, "user": 8}, {"better": 2, "worse": 1}]}, USER,
         [[8], [NAN]]),
        ({"chosen_ids": [1, 2], "rejected_ids": [1, 3], "ratings": [1, 2]}, RATINGS, [[1], [2]]),
    ],
)  # fmt: skip
def test_a_column_is_read_in_every_way_that_rows_state_it(row, column, expected):
    assert same(read(row, column)[column[0]], expected)


@pytest.mark.parametrize("column", [RATINGS, USER, TIME])
def test_a_column_that_a_row_lacks_is_named_in_training_and_unknown_in_evaluation(column):
    name = column[0]
    with pytest.raises(UserError, match=rf"train row 7: the loss reads the column '{name}'.*data.columns.{name}="):
        read(PAIR, column)
    assert same(read(PAIR, column, complete=False)[name], [[NAN]] * (1 if column is USER else 2))


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ({**PAIR, "ratings": [1, 2, 3]}, RATINGS, "ratings holds 3 values, 2 are needed"),
        ({**PAIR, "ratings": [[1, 2], [3]]}, RATINGS, r"ratings holds lists of \[1, 2\] numbers"),
        ({**PAIR, "ratings": [[], []]}, RATINGS, r"ratings holds lists of \[0\] numbers"),
        ({**PAIR, "ratings": ["good", "bad"]}, RATINGS, "ratings is 'good', not a finite number"),
        ({**PAIR, "ratings_chosen": 1}, RATINGS, None),
        ({**PAIR, "time": [[1, 2], [3, 4]]}, TIME, "time holds lists of 2 numbers, and the loss reads one per resp"),
        ({**PAIR, "user": "ada"}, USER, "user is 'ada', not a finite number"),
        ({**PAIR, "weight": -1}, USER, "weight is -1.0, below 0; .*data.columns.weight=null"),
        ({**PAIR, "weight": "heavy"}, USER, "weight is 'heavy', not a finite number"),
        ({**NATIVE, "weight": [1]}, USER, "weight holds 1 values, 2 are needed"),
    ],
)
def test_a_value_that_is_no_number_is_named(row, column, message):
    if message is None:  # of one side alone the other is unknown
        assert same(read(row, column)["ratings"], [[1], [NAN]])
        return
    with pytest.raises(UserError, match=f"train row 7: {message}"):
        read({"user": 1, **row}, column)


def test_weights_are_of_the_row_of_each_preference_or_of_both():
    def weights(row):
        return [p.weight for p in to_comparison(row, "row").preferences]

    native = {**NATIVE, "preferences": [{**NATIVE["preferences"][0], "weight": 0.5}, NATIVE["preferences"][1]]}
    assert weights(PAIR) == [1]
    assert weights({**PAIR, "weight": 2}) == [2]
    assert weights({**THREE, "weight": 0}) == [0, 0, 0]
    assert weights({**NATIVE, "weight": [3, 4]}) == [3, 4]
    assert weights(native) == [0.5, 1]
    assert weights({**native, "weight": 4}) == [2, 4]


def test_rows_of_weight_0_are_left_out_and_counted(tokenizer, capsys):
    rows = [{**PAIR, "prompt": f"p{n} ", "weight": n % 2} for n in range(6)]
    assert [tree.id for tree in trees(rows, tokenizer)] == ["1", "3", "5"]
    assert "3 weightless" in capsys.readouterr().out
    with pytest.raises(UserError, match="every row has weight 0"):
        trees(rows[::2], tokenizer)


def test_columns_of_a_mixture_and_of_a_stream_are_those_of_its_rows(tokenizer, tmp_path):
    for name, start in (("a", 0), ("b", 10)):
        rows = [{**PAIR, "prompt": f"{name}{n} ", "user": start + n, "weight": 1 + n} for n in range(4)]
        write(tmp_path / f"{name}.jsonl", rows, "jsonl")

    def built(**options):
        specs = {name: {"source": "load", "path": str(tmp_path / f"{name}.jsonl"), **options} for name in "ab"}
        data = DataConfig(train=specs, eval_fraction=0.0)
        return list(build_sets(load_rows(data, (USER,)), data, tokenizer).train)

    expected = {(f"{u}", 1.0 + u % 10) for u in (0, 1, 2, 3, 10, 11, 12, 13)}
    for rows in (built(), built(streaming=True)):
        assert {(f"{row['columns'][0][0][0]:.0f}", (row["weight"] or [1.0])[0]) for row in rows} == expected


def trees(rows, tokenizer, *columns, **options):
    data = tokenize(Dataset.from_list(rows), tokenizer, Options(columns=columns, **options), "t")
    return [TokenTree.of(row) for row in data]


@pytest.mark.parametrize("pair_weighting", ["pair", "prompt"])
def test_a_weight_of_2_is_the_pair_twice(pair_weighting, tokenizer):
    other = {"prompt": "q ", "chosen": "yes", "rejected": "no"}
    collate = PreferenceCollator(0, pair_weighting=pair_weighting)
    one = collate.batch(trees([{**PAIR, "weight": 2}, {**other, "weight": 1}], tokenizer))
    twice = collate.batch(trees([PAIR, PAIR, other], tokenizer))
    assert torch.equal(one.weights.totals(), twice.weights.totals())
    assert one.weights.pair.tolist() == [2, 1]


def test_what_is_read_belongs_to_the_preferences_and_responses_that_are_left(tokenizer):
    """The first preference is between equal responses, and is left out."""
    row = {
        "prompt": "p ",
        "responses": ["a", "a", "c"],
        "preferences": [
            {"better": 0, "worse": 1, "weight": 5, "user": 7},
            {"better": 2, "worse": 1, "weight": 3, "user": 8},
        ],
        "ratings": [[1, 2], [3, None], [5, 6]],
        "time": [1, 2, 3],
    }
    long = {**row, "prompt": "a long prompt that is cut " * 5}
    for tree in trees([row, long], tokenizer, TIME, USER, RATINGS, max_length=20, overlong="truncate"):
        assert (tree.better, tree.weight) == ([2], [3])
        assert [len(values) for values in tree.columns] == [3, 1, 3]
        assert same(tree.columns[0], [[1], [2], [3]])
        assert same(tree.columns[1], [[8]])
        assert same(tree.columns[2], [[1, 2], [3, NAN], [5, 6]])


def test_a_weight_or_rating_makes_another_row_of_what_is_otherwise_a_duplicate(tokenizer):
    rows = [{**PAIR, "weight": w, "user": u} for w, u in ((1, 1), (1, 1), (2, 1), (1, 2))]
    assert len(trees(rows, tokenizer, USER, duplicates="drop")) == 3
    assert len(trees(rows, tokenizer, duplicates="drop")) == 2


def test_who_stated_which_preference_tells_rows_apart_in_whatever_order_they_are(tokenizer):
    """Of two users one says a, one b: two preferences of two responses."""
    row = {"prompt": "p ", "responses": ["a", "b"]}
    said = [{"better": 0, "worse": 1, "user": 5}, {"better": 1, "worse": 0, "user": 6}]
    other = [{**said[0], "user": 6}, {**said[1], "user": 5}]
    rows = [{**row, "preferences": those} for those in (said, said[::-1], other, other[::-1])]
    assert [tree.id for tree in trees(rows, tokenizer, USER, duplicates="drop")] == ["0", "2"]


def test_merged_rows_keep_what_is_read_of_each(tokenizer):
    rows = [
        {**PAIR, "weight": 2, "user": 5, "time": [1, 2]},
        {"prompt": "p ", "chosen": "c", "rejected": "b", "user": 6, "time": [3, 2]},
    ]
    (tree,) = [TokenTree.of(r) for r in merged_by_prompt(dataset(rows, tokenizer, USER, TIME), (USER, TIME))]
    assert (len(tree.suffixes), tree.weight) == (3, [2, 1])
    assert tree.columns == [[[5], [6]], [[1], [2], [3]]]
    two = trees([rows[0], {**rows[1], "weight": 1, "time": [3, 9]}], tokenizer, USER, TIME)
    again = merge(two, (USER, TIME))
    assert again.columns[1] == [[1], [2], [3], [9]], "the response b, of which two rows know other numbers, stays two"
    assert [again.responses[k] for k in again.worse] == [two[0].responses[1]] * 2
    assert merge([replace(tree, weight=[], columns=[]) for tree in two]).weight == []


def dataset(rows, tokenizer, *columns):
    return tokenize(Dataset.from_list([{"weight": 1, **row} for row in rows]), tokenizer, Options(columns=columns), "t")


def test_a_training_row_without_a_column_is_refused_before_it_is_tokenised_and_an_evaluated_one_is_not(
    tokenizer, tmp_path
):
    write(tmp_path / "a.jsonl", [{**PAIR, "prompt": f"p{n} ", "ratings": [[n, 1], [0, 1]]} for n in range(3)], "jsonl")
    write(tmp_path / "b.jsonl", [{**PAIR, "prompt": f"q{n} "} for n in range(3)], "jsonl")

    def config(**sets):
        return DataConfig(**{k: {"s": {"source": "load", "path": str(tmp_path / v)}} for k, v in sets.items()})

    with pytest.raises(UserError, match=r"s row 0 .*the loss reads the column 'ratings'"):
        load_rows(config(train="b.jsonl", eval="a.jsonl"), (RATINGS,))
    data = config(train="a.jsonl", eval="b.jsonl")
    sets = build_sets(load_rows(data, (RATINGS,)), data, tokenizer)
    assert sets.train["columns"] == [[[[n, 1], [0, 1]]] for n in range(3)]
    assert same(sets.eval["s"]["columns"], [[[[NAN], [NAN]]]] * 3)
    with pytest.raises(UserError, match="the loss reads ratings, user, which its token trees were made without"):
        tokenize(sets.train, tokenizer, Options(columns=(RATINGS, USER)), "t")


def test_rows_that_rate_other_numbers_of_attributes_are_named(tmp_path):
    rows = [{**PAIR, "ratings": ratings} for ratings in ([[1, 2], [3, 4]], None, [[1, 2, 3], [4, 5, 6]])]
    write(tmp_path / "rows.jsonl", rows, "jsonl")
    data = DataConfig(train={"s": {"source": "load", "path": str(tmp_path / "rows.jsonl")}})
    with pytest.raises(UserError, match=r"s row 2 .*: ratings holds 3 numbers per response, and 2 in s row 0"):
        load_rows(data, (RATINGS,))
