"""Intervals of totals: Wilson's where there is one subset, the bootstrap's over prompts where there are several."""

import numpy as np
import pytest
from suites import jsonl, result_of, suite_of

from rmlab.evaluation import Item
from rmlab.evaluation.result import effective_number, number
from rmlab.messages import UserError
from rmlab.metrics.intervals import share_interval

NO_TIES = {0: (0, 1)}


def items_of(values, prompts, subset="a"):
    return [Item(str(n), str(p), subset, float(v), (0,)) for n, (v, p) in enumerate(zip(values, prompts, strict=True))]


@pytest.mark.parametrize("right", [0, 1, 17, 40])
def test_of_one_subset_it_is_the_interval_of_an_evaluation_set(right):
    values = np.array([1.0] * right + [0.0] * (40 - right))
    prompts = np.arange(40) // 3
    found = number(items_of(values, prompts), {"a": 1.0}, NO_TIES)
    assert (found.low, found.high) == pytest.approx(share_interval(values, prompts))


def test_a_total_varies_as_when_prompts_are_drawn_again():
    """Three subsets of unlike sizes and accuracies; half of the prompts have items in two of them."""
    rng = np.random.default_rng(0)
    sizes, right, weight = (30, 120, 60), (0.9, 0.6, 0.3), np.array([0.5, 0.2, 0.3])
    prompts = np.concatenate([rng.choice(90, size) for size in sizes])
    ease = rng.normal(size=90)[prompts]
    subset = np.repeat(np.arange(3), sizes)
    values = (rng.random(210) < np.clip(np.array(right)[subset] + 0.2 * ease, 0, 1)).astype(float)
    drawn = []
    for _ in range(2000):
        times = np.bincount(rng.integers(0, 90, 90), minlength=90)[prompts]
        counts = np.bincount(subset, times)
        drawn.append((weight * np.bincount(subset, times * values) / counts).sum())
    share = float((weight * np.bincount(subset, values) / np.bincount(subset)).sum())
    few = effective_number(share, values, subset, np.unique(prompts, return_inverse=True)[1], weight)
    assert np.sqrt(share * (1 - share) / few) == pytest.approx(np.std(drawn), rel=0.06)


def test_of_equal_answers_the_prompts_of_each_subset_count():
    items = [*items_of(np.ones(10), range(10)), *items_of(np.ones(90), range(90), "b")]
    whole = number(items, {"a": 0.5, "b": 0.5}, NO_TIES)
    assert whole.value == whole.high == 1
    z2 = 1.959964**2  # Wilson's lower end of n out of n is n / (n + z^2)
    count = 1 / (0.25 / 10 + 0.25 / 90)
    assert whole.low == pytest.approx(count / (count + z2), abs=1e-5)


def test_a_bonus_point_is_within_its_interval():
    found = number(items_of([1.01, 1.01, 0.98], range(3)), {"a": 1.0}, NO_TIES)
    assert found.value == found.high == pytest.approx(1.0)
    assert number(items_of([1.01] * 3, range(3)), {"a": 1.0}, NO_TIES).high == pytest.approx(1.01)


def test_of_a_part_of_the_data_there_is_no_overall_score(tmp_path):
    """Two subsets of one section: neither its score nor the overall one would be what readers take it for."""
    rows = [
        {"id": n, "prompt": f"q{n}", "chosen": f"x {n}", "rejected": "y 0.5", "subset": subset}
        for n, subset in enumerate(["hep-go", "hep-cpp", "hep-cpp"])
    ]
    result = result_of(suite_of("reward_bench", path=jsonl(tmp_path / "part.jsonl", rows)))
    assert list(result.totals) == ["mean of items"]
    told = result.as_dict()
    assert told["overall"] == "mean of items"
    assert told["totals"]["mean of items"]["weights"] == pytest.approx({"hep-go": 1 / 3, "hep-cpp": 2 / 3})
    assert result.totals["mean of items"].value == pytest.approx(2 / 3)


def test_rewards_that_are_no_numbers_are_refused(tmp_path):
    path = jsonl(tmp_path / "mine.jsonl", [{"prompt": "q", "chosen": "x nan", "rejected": "y 1"}])
    with pytest.raises(UserError, match="1 of 1 comparisons are not finite"):
        result_of(suite_of("rows", path=path))
