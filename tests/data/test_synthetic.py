"""The synthetic generator against its own definition."""

import hashlib
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


def row_texts(**options):
    return [(r["prompt"], r["responses"], r["gold_rewards"]) for r in synthetic(**options)]


def test_neutral_options_give_the_rows_of_earlier_versions():
    """A hash of what version 0.1.0 wrote, before it had these options."""
    neutral = {"skip": 0, "stated": None, "long_tail": 0.0, "biases": {}, "annotators": {}, "ratings": {}}
    for given in ({}, neutral):
        rows = [json.dumps(row) for row in synthetic(prompts=400, responses=4, **given)]
        assert hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16] == "85995f4d7aa377e7"


def test_what_is_asked_of_annotators_changes_no_text():
    told = {"biases": {"length": 1.0}, "annotators": {"count": 3, "taste": 1.0, "care": 1.0}}
    rates = {"attributes": ["gold", "tone"], "noise": 0.5, "growth": 0.5}
    for shape in ({"responses": 4}, {"responses": 4, "long_tail": 2.0}):
        assert row_texts(prompts=50, **shape) == row_texts(prompts=50, ratings=rates, **told, **shape)


def test_skipped_prompts_are_those_of_the_other_set():
    first, second = synthetic(prompts=40), synthetic(prompts=60, skip=40)
    prompts = [{r["prompt"][0]["content"] for r in rows} for rows in (first, second)]
    assert not prompts[0] & prompts[1]
    assert prompts[0] | prompts[1] == {r["prompt"][0]["content"] for r in synthetic(prompts=100)}
    assert not {r["responses"][0][0]["content"] for r in first} & {r["responses"][0][0]["content"] for r in second[:5]}


def test_only_stated_preferences_are_there():
    for row in synthetic(prompts=9, responses=32, stated=31):
        assert len({(p["better"], p["worse"]) for p in row["preferences"]}) == 31
    with pytest.raises(UserError, match="the synthetic stated is 4; 3 responses have 3 preferences"):
        synthetic(responses=3, stated=4)


def test_a_long_tail_is_of_sentences_more():
    """Of a geometric number with mean m, P(at least k) is (m / (1 + m))^k."""
    sentences = [r[0]["content"].count(" .") for row in synthetic(prompts=800, long_tail=4.0) for r in row["responses"]]
    assert np.mean(sentences) == pytest.approx(1 + 1.5 + 4.0, abs=0.5)  # sd of a mean of 1,600: 0.12
    assert np.mean(np.array(sentences) >= 4 + 12) > 0.8**12 * 0.7


def test_annotators_like_what_they_are_biased_to():
    """With a bias alone in what they see, the one with more filler wins as sigma of the difference says."""
    rows = synthetic(prompts=4000, temperature=1.0, weights=dict.fromkeys(WEIGHTS, 0.0), biases={"length": 1.0})
    sentences = np.array([[r[0]["content"].count(" .") for r in row["responses"]] for row in rows])
    one_more = sentences[:, 0] - sentences[:, 1] == 1
    won = np.array([row["preferences"][0]["better"] == 0 for row in rows])
    assert won[one_more].mean() == pytest.approx(1 / (1 + math.exp(-1)), abs=0.06)  # about 750: 3 errors
    assert all(g == 0 for row in rows for g in row["gold_rewards"])


def test_flips_are_told_and_change_nothing_but_the_side():
    clean, noisy = synthetic(prompts=2000), synthetic(prompts=2000, label_noise=0.25)
    flipped = [row["preferences"][0].get("flipped", False) for row in noisy]
    turned = [
        one["preferences"][0]["better"] != other["preferences"][0]["better"]
        for one, other in zip(clean, noisy, strict=True)
    ]
    assert flipped == turned
    assert np.mean(flipped) == pytest.approx(0.25, abs=0.04)


def test_ratings_are_gold_with_the_variance_that_they_state():
    rows = synthetic(prompts=1500, ratings={"attributes": ["gold", "tone"], "noise": 0.3, "growth": 0.5})
    gold = np.array([row["gold_rewards"] for row in rows]).ravel()
    ratings = np.array([row["ratings"] for row in rows]).reshape(-1, 2)
    variance = np.array([row["rating_variance"] for row in rows]).ravel()
    hedges = [
        sum(r[0]["content"].count(h) for h in ("maybe", "perhaps", "I guess")) for x in rows for r in x["responses"]
    ]
    assert variance == pytest.approx((0.3 * np.exp(0.5 * np.array(hedges))) ** 2)
    for level in np.unique(variance):
        those = variance == level
        assert np.mean((ratings[those, 0] - gold[those]) ** 2) == pytest.approx(level, rel=0.2)


def test_each_annotator_has_a_taste_of_its_own():
    """How often one prefers the politer answer differs between them."""
    options = {"prompts": 2400, "temperature": 0.1, "weights": dict.fromkeys(WEIGHTS, 0.0)}
    rows = synthetic(**options, annotators={"count": 6, "taste": 3.0, "care": 0.0})
    rude = {"Ugh": -1, "Wha": -1, "Gla": 1, "Of ": 1}
    likes = {user: [] for user in range(6)}
    for row in rows:
        tones = [rude.get(r[0]["content"][:3], 0) for r in row["responses"]]
        if tones[0] != tones[1]:
            likes[row["user"]].append(tones[row["preferences"][0]["better"]] == max(tones))
    assert min(map(len, likes.values())) > 150
    assert np.ptp([np.mean(of) for of in likes.values()]) > 0.2  # by chance alone 0.1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("skip", -1), ("stated", 0), ("long_tail", -1.0), ("biases", {"lenght": 1.0}), ("biases", {"length": "1"}),
        ("annotators", {"count": 3}), ("annotators", {"count": 0, "taste": 0.0, "care": 0.0}),
        ("annotators", {"count": 2, "taste": "x", "care": 0.0}), ("ratings", {"attributes": ["gold"]}),
        ("ratings", {"attributes": ["golden"], "noise": 1.0, "growth": 0.0}),
        ("ratings", {"attributes": ["gold"], "noise": -1.0, "growth": 0.0}),
        ("ratings", {"attributes": ["gold"], "noise": 1.0, "growth": float("-inf")}),
    ],
)  # fmt: skip
def test_a_wrong_further_option_is_named(name, value):
    with pytest.raises(UserError, match=f"the synthetic {name}"):
        synthetic(**{name: value})


def test_preferences_apart_are_those_of_the_whole_rows():
    """The same texts, labels and gold, each preference in a row of its own."""
    whole = synthetic(prompts=5, responses=3)
    apart = synthetic(prompts=5, responses=3, apart=True)
    said = [
        (row["responses"][p["better"]], row["responses"][p["worse"]], p["strength"], row["gold_rewards"][p["better"]])
        for rows in (whole, apart)
        for row in rows
        for p in row["preferences"]
    ]
    assert all(len(row["responses"]) == len(row["gold_rewards"]) == 2 for row in apart)
    assert len(apart) == 15
    assert said[:15] == said[15:]
