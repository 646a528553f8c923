"""Rows with an ensemble's margins: what is written is what training reads."""

import json

import numpy as np
import pytest
from conftest import make_model, make_pairs, trainer_for
from datasets import Dataset

from rmlab import RewardModel
from rmlab.commands import lab
from rmlab.data.config import Options
from rmlab.data.rows import to_comparison
from rmlab.data.tokenizer import build_tokenizer
from rmlab.lab.margins import stated


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Folders of three models."""
    folders = [tmp_path_factory.mktemp("member") for _ in range(3)]
    for seed, folder in enumerate(folders):
        make_model(seed=seed).save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
    return [str(folder) for folder in folders]


PAIRS = [{**row, "id": f"é{n}", "score_chosen": 1, "score_rejected": 0} for n, row in enumerate(make_pairs(5))]
SEVERAL = [{"prompt": f"q{n} ", "responses": ["a b", "c", "d e f"], "scores": [2, 1, 2]} for n in range(3)]


def written(rows, members, place, *options):
    """The rows that the command writes of these."""
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lab.main(["margins", *members, str(place / "rows.jsonl"), "-o", str(place / "out.jsonl"), *options])
    return [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]


def test_a_pair_has_the_mean_gap_of_the_members_and_its_sd(members, tmp_path):
    rewards = np.stack([RewardModel(member).score(PAIRS) for member in members])
    gaps = rewards[:, :, 0] - rewards[:, :, 1]
    found = written(PAIRS, members, tmp_path)
    assert [row["margin"] for row in found] == pytest.approx(gaps.mean(0), abs=1e-5)
    assert [row["margin_sd"] for row in found] == pytest.approx(gaps.std(0, ddof=1), abs=1e-5)
    assert [row["id"] for row in found] == [row["id"] for row in PAIRS]
    read = [to_comparison(row, "row").preferences[0].strength for row in found]
    assert read == pytest.approx(gaps.mean(0), abs=1e-5)


def test_each_preference_of_several_responses_has_its_own_and_a_tie_stays_one(members, tmp_path):
    rewards = np.mean([RewardModel(member).score(SEVERAL) for member in members], axis=0)
    for row, own in zip(written(SEVERAL, members, tmp_path), rewards, strict=True):
        read = to_comparison(row, "row").preferences
        decided = {(p.better, p.worse): p.strength for p in read if p.probability == 1}
        assert decided == pytest.approx({(0, 1): own[0] - own[1], (2, 1): own[2] - own[1]}, abs=1e-5)
        assert [p.strength for p in read if p.probability == 0.5] == [0.0]


ADDED = [
    {"better": 0, "worse": 1, "probability": 1.0, "strength": 0.5, "margin_sd": 0.1},
    {"better": 2, "worse": 0, "probability": 1.0, "strength": -0.25, "margin_sd": 0.2},
]


def test_what_a_preference_says_beside_its_strength_stays():
    """The second is between equal responses, and has no margin."""
    said = [{"better": 0, "worse": 1, "weight": 3.0, "user": 7}, {"better": 0, "worse": 3}, {"better": 2, "worse": 0}]
    row = {"prompt": "q ", "responses": ["a", "b", "c", "a"], "preferences": said, "weight": 2.0}
    read = to_comparison(stated(row, ADDED, "row"), "row", Options(columns=(("user", "pair"),), complete=False))
    assert [(p.strength, p.weight) for p in read.preferences] == [(0.5, 6.0), (-0.25, 2.0)]
    assert read.columns["user"][0] == [7]


def test_gold_that_was_read_of_scores_is_gold_still():
    row = {"prompt": "q ", "responses": ["a", "b"], "scores": [2, 1]}
    assert to_comparison(stated(row, ADDED[:1], "row"), "row").gold == [2, 1]


def test_several_chosen_responses_have_a_margin_each():
    row = {"prompt": "q ", "chosen": ["a", "b"], "rejected": ["c"], "margin": 9.0, "id": "x"}
    added = [{**ADDED[0], "worse": 2}, {**ADDED[1], "better": 1, "worse": 2}]
    read = to_comparison(stated(row, added, "row"), "row")
    assert (read.prompt, read.responses, read.id) == ("q ", ["a", "b", "c"], "x")
    assert [(p.better, p.worse, p.strength) for p in read.preferences] == [(0, 2, 0.5), (1, 2, -0.25)]


def test_a_pair_beside_other_responses_is_read_as_a_pair():
    row = {"prompt": "q ", "chosen": "a", "rejected": "b", "responses": ["a", "b", "c"]}
    assert [p.strength for p in to_comparison(stated(row, ADDED[:1], "row"), "row").preferences] == [0.5]


def test_margins_are_clipped_and_training_takes_them(members, tmp_path, tokenizer):
    found = written(PAIRS, members, tmp_path, "--clip", "-0.25", "0.5")
    margins = [row["margin"] for row in found]
    assert min(margins) == -0.25
    assert max(margins) == 0.5
    rows = Dataset.from_list([{k: v for k, v in row.items() if k != "id"} for row in found])
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, train=rows, num_train_epochs=1, loss={"bradley_terry": {"margin": 1.0}}
    )
    assert np.isfinite(trainer.train().training_loss)


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (1, [], "give two models at least"),
        (2, ["--clip", "1", "0"], "--clip 1 0: the first number must be below the second"),
        (2, ["--columns", "margin"], "--columns 'margin': say NAME=VALUE"),
    ],
)
def test_what_is_asked_wrongly_is_named(models, options, message, members, tmp_path, capsys):
    with pytest.raises(SystemExit):
        written(PAIRS, members[:models], tmp_path, *options)
    assert message in capsys.readouterr().err


def test_a_row_without_a_preference_is_named(members, tmp_path, capsys):
    with pytest.raises(SystemExit):
        written([{"prompt": "q ", "response": "a"}], members, tmp_path)
    assert "row 0 (counting from 0): it states no preference" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
