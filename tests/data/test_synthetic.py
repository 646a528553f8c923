"""The synthetic generator against its own definition."""

import json
import math

import numpy as np
import pytest

from rmlab.data import DATASETS, ROW
from rmlab.messages import UserError

WEIGHTS = {"topic": 2.0, "form": 1.5, "tone": 1.0, "hedge": -0.7, "length": 0.1}


def synthetic(**options):
    given = {
        "prompts": 4000, "responses": 2, "temperature": 0.5, "weights": WEIGHTS, "grades": 3, "tie_width": 0.0,
        "label_noise": 0.0, "seed": 0,
    }  # fmt: skip
    return [json.loads(r[ROW]) for r in DATASETS.build("synthetic", {**given, **options})()]


def test_synthetic_labels_are_bradley_terry_on_the_gold_gap():
    """In bins of sigma(gap / T), the share of wins is the bin's mean probability within 4 standard errors."""
    p, won = [], []
    for row in synthetic(prompts=12000):
        (preference,) = row["preferences"]
        p.append(1 / (1 + math.exp(-(row["gold_rewards"][0] - row["gold_rewards"][1]) / 0.5)))
        won.append(preference["better"] == 0)
    p, won = np.array(p), np.array(won)
    for low in np.arange(0, 1, 0.1):
        inside = (p >= low) & (p < low + 0.1)
        error = math.sqrt((p[inside] * (1 - p[inside])).mean() / inside.sum())
        assert abs(won[inside].mean() - p[inside].mean()) < 4 * error


def test_gold_rewards_are_the_weighted_attributes_read_off_the_text():
    for row in synthetic(prompts=300):
        prompt = row["prompt"][0]["content"]
        for response, gold in zip(row["responses"], row["gold_rewards"], strict=True):
            text = response[0]["content"]
            topic = prompt.split("tell me about ")[1].split(" ,")[0]
            form = prompt.split(", ")[1].removesuffix(" .")
            opening = {"in one line": "in short", "as steps": "step one", "with an example": "for example"}[form]
            tone = (
                1.0
                if text.startswith(("Gladly", "Of course"))
                else -1.0
                if text.startswith(("Ugh", "Whatever"))
                else 0.0
            )
            hedges = sum(text.count(h) for h in ("maybe", "perhaps", "I guess"))
            length = text.count(" .") - 1
            expected = 2.0 * (f"about {topic}" in text) + 1.5 * (opening in text) + tone - 0.7 * hedges + 0.1 * length
            assert gold == pytest.approx(expected)


def test_synthetic_options_do_what_they_say():
    kwise = synthetic(prompts=50, responses=4)
    assert all(len(r["responses"]) == 4 and len(r["preferences"]) == 6 for r in kwise)
    tied = synthetic(prompts=500, tie_width=1.0)
    share = np.mean([r["preferences"][0]["probability"] == 0.5 for r in tied])
    assert 0.05 < share < 0.5
    strengths = {p["strength"] for r in synthetic(prompts=500) for p in r["preferences"]}
    assert sorted(strengths) == pytest.approx([1 / 3, 2 / 3, 1.0])

    def agreement(**options):
        rows = synthetic(temperature=0.01, **options)
        return np.mean(
            [r["gold_rewards"][p["better"]] >= r["gold_rewards"][p["worse"]] for r in rows for p in r["preferences"]]
        )

    assert agreement() > 0.99
    assert agreement(label_noise=0.2) == pytest.approx(0.8, abs=0.03)
    assert len({json.dumps(r["prompt"]) for r in kwise}) == 50
    with pytest.raises(UserError, match="19200 distinct prompts"):
        synthetic(prompts=20000)


def test_unknown_synthetic_weights_are_refused():
    with pytest.raises(UserError, match="the synthetic weights are"):
        synthetic(weights={**WEIGHTS, "lenght": 1.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompts", 0), ("prompts", 2.5), ("responses", 1), ("grades", 0), ("seed", -1), ("temperature", 0),
        ("temperature", float("nan")), ("temperature", float("inf")), ("tie_width", -1.0), ("label_noise", 1.5),
        ("label_noise", float("nan")), ("weights", {**WEIGHTS, "topic": float("nan")}),
        ("weights", {**WEIGHTS, "topic": "2"}),
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_named(name, value):
    with pytest.raises(UserError, match=f"the synthetic {name}"):
        synthetic(**{name: value})
