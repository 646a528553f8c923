"""Labels that are likely wrong: found where they are known, and rows written without them."""

import json

import numpy as np
import pytest

from rmlab.data import DATASETS, ROW
from rmlab.data.config import Options
from rmlab.data.rows import to_comparison
from rmlab.lab.cleaned import write_cleaned
from rmlab.lab.suspects import Row, average_precision, precision_recall, suspects
from rmlab.messages import UserError

WEIGHTS = {"topic": 2.0, "form": 1.5, "tone": 1.0, "hedge": -0.7, "length": 0.1}


@pytest.fixture(scope="module")
def rows():
    """A quarter of the labels are flipped."""
    options = {
        "prompts": 200, "responses": 2, "temperature": 0.01, "weights": WEIGHTS, "grades": 3, "tie_width": 0.0,
        "label_noise": 0.25, "seed": 0,
    }  # fmt: skip
    read = [json.loads(r[ROW]) for r in DATASETS.build("synthetic", options)()]
    return [Row(row, to_comparison(row, "row"), str(n)) for n, row in enumerate(read)]


def panel(rows, sign=1.0):
    """Two models that know gold, each of what it has held out: even rows, and rows in the first half."""
    gaps = {
        row.keys()[0]: sign * (row.comparison.gold[row.keys()[0][1]] - row.comparison.gold[row.keys()[0][2]])
        for row in rows
    }
    return [{k: g for k, g in gaps.items() if int(k[0]) % 2 == 0}, {k: g for k, g in gaps.items() if int(k[0]) < 100}]


def test_models_that_know_gold_find_the_flips_first(rows):
    table = suspects(rows, panel(rows))
    known = table.dropna(subset="suspicion")
    assert len(table) == 200
    assert len(known) == 150, "odd rows of the second half were never held out"
    assert table["models"].value_counts().to_dict() == {0: 50, 1: 100, 2: 50}
    assert known["flipped"].sum() > 20
    score, flipped = known["suspicion"].to_numpy(), known["flipped"].to_numpy(bool)
    assert average_precision(score, flipped) > 0.97  # equal gold rewards have labels by chance
    assert known["flipped"][: int(flipped.sum()) - 3].all()


def test_suspicion_is_the_mean_probability_of_the_opposite(rows):
    key = rows[0].keys()[0]
    (line,) = suspects(rows[:1], [{key: 1.0}, {key: -2.0}, {}]).to_dict("records")
    wrong = [1 / (1 + np.exp(1.0)), 1 / (1 + np.exp(-2.0))]
    assert line["suspicion"] == pytest.approx(np.mean(wrong))
    assert (line["gap"], line["gap_sd"]) == pytest.approx((-0.5, 4.5**0.5))


def test_average_precision_by_hand():
    """Flips at ranks 1 and 3: (1 + 2/3) / 2; of equal scores, as of one step."""
    flipped = np.array([True, False, True, False])
    assert average_precision(np.array([4.0, 3.0, 2.0, 1.0]), flipped) == pytest.approx(5 / 6)
    assert average_precision(np.zeros(4), flipped) == pytest.approx(0.5)
    precision, recall = precision_recall(np.array([2.0, 2.0, 1.0, 0.0]), flipped)
    assert (precision.tolist(), recall.tolist()) == (pytest.approx([0.5, 2 / 3, 0.5]), [0.5, 1.0, 1.0])


def written(rows, table, how, tmp_path, share=None):
    out = tmp_path / "out.jsonl"
    told = write_cleaned(rows, table, how, share, out)
    return told, [json.loads(line) for line in out.read_text().splitlines()]


def test_flipping_what_is_doubted_mends_the_labels(rows, tmp_path):
    table = suspects(rows, panel(rows))
    (changed, count), mended = written(rows, table, "flip", tmp_path)
    assert (changed, count) == (int((table["suspicion"] > 0.5).sum()), 200)
    read = [to_comparison(row, "row") for row in mended]
    assert [c.id for c in read] == [row.id for row in rows]
    for row, c in zip(rows, read, strict=True):
        assert (c.prompt, c.responses, c.gold) == (row.comparison.prompt, row.comparison.responses, row.comparison.gold)
    held_out = set(table.dropna(subset="suspicion")["id"])
    gaps = [c.gold[c.preferences[0].better] - c.gold[c.preferences[0].worse] for c in read if c.id in held_out]
    assert min(gaps) >= 0


def test_dropping_a_share_leaves_out_the_most_suspicious(rows, tmp_path):
    table = suspects(rows, panel(rows))
    (changed, count), kept = written(rows, table, "drop", tmp_path, share=0.1)
    assert (changed, count) == (20, 180)
    assert not set(table["id"][:20]) & {row["id"] for row in kept}


def test_weights_are_what_is_not_suspected(rows, tmp_path):
    table = suspects(rows, panel(rows)).set_index("id")
    _, read = written(rows, table.reset_index(), "down-weight", tmp_path)
    for row in read:
        weight = to_comparison(row, "row").preferences[0].weight
        known = table.loc[row["id"], "suspicion"]
        assert weight == pytest.approx(1.0 if np.isnan(known) else 1 - known, abs=1e-6)


@pytest.mark.parametrize("how", ["drop", "flip", "down-weight"])
def test_who_stated_a_preference_and_ratings_stay(how, tmp_path):
    said = [{"better": 0, "worse": 1, "user": 5, "weight": 2.0, "flipped": True}, {"better": 1, "worse": 0, "user": 6}]
    told = {"prompt": "q ", "responses": ["a", "b"]}
    given = [{**told, "preferences": said}, {**told, "scores": [1, 3]}]
    read = [Row(row, to_comparison(row, "row"), str(n)) for n, row in enumerate(given)]
    table = suspects(read, [{("0", 0, 1): -9.0, ("0", 1, 0): 9.0}])
    _, (one, other) = written(read, table, how, tmp_path)
    options = Options(columns=(("user", "pair"), ("ratings", "output")), complete=False)
    assert to_comparison(one, "row", options).columns["user"] == ([[6]] if how == "drop" else [[5], [6]])
    assert to_comparison(other, "row", options).columns["ratings"] == [[1], [3]]
    assert not any("flipped" in p for p in one["preferences"])


def test_token_ids_are_not_written(tmp_path):
    row = {"chosen_ids": [1, 2], "rejected_ids": [1, 3]}
    ids = [Row(row, to_comparison(row, "row"), "0")]
    with pytest.raises(UserError, match="token ids"):
        write_cleaned(ids, suspects(ids, [{}]), "flip", None, tmp_path / "out.jsonl")
