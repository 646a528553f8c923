"""Length, style, strength and scale; and that whatever set there is, what is told of it is JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest
from comparisons import random_set, scored

from rmlab.data.style import STYLE
from rmlab.metrics.diagnostics import by_strength, diagnose
from rmlab.metrics.length import LEAST
from rmlab.metrics.pairs import Pairs
from rmlab.metrics.scale import between


def pairs_of(*rows):
    """Comparisons of two: (gap, tokens of the better one, of the worse one)."""
    return [scored([gap, 0.0], [0], [1], lengths=[b, w], prompt=f"{n:03}") for n, (gap, b, w) in enumerate(rows)]


def test_accuracy_is_told_by_which_side_is_longer():
    """A tenth longer is as long; the wider side is longer whichever the label calls better."""
    rows = pairs_of((1, 9, 20), (-1, 9, 20), (-1, 8, 20), (0, 20, 9), (1, 110, 100), (1, 100, 111), (1, 7, 7))
    rows += [scored([0.0, 5.0], [0], [1], [0.1], lengths=[3, 30], prompt="999")]  # the second, longer one is better
    found = diagnose(rows)["length"]
    assert {k: (found[k]["value"], found[k]["n"]) for k in ("shorter", "longer", "matched")} == {
        "shorter": (2 / 4, 4),
        "longer": (2.5 / 3, 3),
        "matched": (1.0, 2),
    }


def test_a_model_of_length_is_found_out():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 99, (60, 2))
    rows = [
        scored([float(a), float(b)], [0], [1], lengths=[int(a), int(b)], prompt=str(n))
        for n, (a, b) in enumerate(lengths)
    ]
    found = diagnose(rows)["length"]
    assert found["gap_correlation"]["value"] == pytest.approx(1.0)
    assert found["correlation"]["value"] == pytest.approx(1.0)
    assert (found["longer"]["value"], found["shorter"]["value"]) == (1.0, 0.0)


def styled(more, fewer):
    """So many comparisons whose better response has more bold words, and fewer; the reward is their number."""
    kinds = [(2, 1)] * more + [(0, 1)] * fewer
    bold = STYLE.index("bold")

    def style(count):
        return [count if s == bold else 0 for s in range(len(STYLE))]

    return [
        scored([float(b), float(w)], [0], [1], style=[style(b), style(w)], prompt=f"{n:03}")
        for n, (b, w) in enumerate(kinds)
    ]


def test_style_is_told_where_it_varies_enough():
    found = diagnose(styled(LEAST + 5, LEAST))["style"]
    assert list(found) == ["bold"]
    assert (found["bold"]["more"]["value"], found["bold"]["more"]["n"]) == (1.0, LEAST + 5)
    assert (found["bold"]["fewer"]["value"], found["bold"]["fewer"]["n"]) == (0.0, LEAST)
    assert found["bold"]["correlation"]["value"] == pytest.approx(1.0)
    assert "style" not in diagnose(styled(LEAST, LEAST - 1))
    assert "style" not in diagnose([*styled(LEAST, LEAST), scored([1.0, 0.0], [0], [1])]), "it is not known of all"


def test_few_strengths_are_told_one_by_one_and_many_in_thirds():
    def rated(strengths):
        return Pairs.of(
            [scored([s - 1.5, 0.0], [0], [1], strength=[s], prompt=f"{n:03}") for n, s in enumerate(strengths)]
        )

    told = by_strength(rated([1.0, 2.0, 2.0, 3.0]))
    assert [(s["from"], s["to"], s["value"], s["n"]) for s in told] == [(1, 1, 0, 1), (2, 2, 1, 2), (3, 3, 1, 1)]
    thirds = by_strength(rated([float(n) for n in range(9)]))
    assert [(s["from"], s["to"], s["n"]) for s in thirds] == [(0, 2, 3), (3, 5, 3), (6, 8, 3)]
    assert by_strength(rated([1.0, 1.0])) == []


def test_the_share_of_prompts_in_the_variance_is_that_of_an_analysis_of_variance():
    """Drawn with sds 2 between and 1 within prompts, in groups of 2 to 6: 4 / (4 + 1); none where there is none."""
    rng = np.random.default_rng(0)
    prompt = np.repeat(np.arange(3000), rng.integers(2, 7, 3000))
    reward = 2 * rng.normal(size=3000)[prompt] + rng.normal(size=len(prompt))
    found = between(reward, prompt)
    assert found["within_sd"] == pytest.approx(1.0, rel=0.03)
    assert found["between_share"] == pytest.approx(0.8, abs=0.02)
    assert between(rng.normal(size=len(prompt)), prompt)["between_share"] < 0.03


def test_drift_is_told_in_the_units_of_the_reference():
    found = diagnose(pairs_of((4.0, 1, 2), (2.0, 1, 2)), reference=(0.5, 2.0))["scale"]
    assert found["mean"] == 1.5
    assert found["shift"] == pytest.approx((1.5 - 0.5) / 2.0)
    assert found["stretch"] == pytest.approx(np.std([4, 0, 2, 0]) / 2.0)
    assert "shift" not in diagnose(pairs_of((4.0, 1, 2)))["scale"]


SETS = {
    "one pair": pairs_of((1.0, 3, 4)),
    "equal rewards": pairs_of((0.0, 3, 4), (0.0, 4, 3)),
    "label ties alone": [scored([1.0, 0.0], [0], [1], [0.5], strength=[0.0])],
    "empty responses": pairs_of((1.0, 0, 4), (1.0, 4, 0), (1.0, 0, 0)),
    "one prompt": [replace(c, prompt_id="p") for c in random_set(5, 4)],
    "huge rewards": pairs_of((1e30, 3, 4), (-1e30, 5, 5)),
    "many": random_set(60, 4, prompts=20),
    "of other sizes": [*random_set(4, 5), *random_set(4, 2, seed=1)],
}


@pytest.mark.parametrize("name", SETS)
def test_whatever_the_set_it_is_json_without_nan(name):
    told = diagnose(SETS[name], reference=(0.0, 1.0))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert {"calibration", "scale"} <= set(told)


def test_of_scored_responses_without_preferences_the_rest_is_told():
    bare = [replace(c, better=[], worse=[], strength=[], probability=[]) for c in random_set(40, 4)]
    told, whole = diagnose(bare), diagnose(random_set(40, 4))
    assert list(told) == ["length", "scale", "best_of_n"]
    assert told["best_of_n"] == whole["best_of_n"]
    assert told["length"] == {"correlation": whole["length"]["correlation"]}
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_whole_set_is_told_in_every_part():
    told = diagnose(random_set(120, 4))
    assert list(told) == ["calibration", "strength", "length", "style", "scale", "best_of_n"]
    assert list(told["style"]) == list(STYLE)
