"""Published scores follow from the published scores of their parts, by the weights that the suites use."""

import pytest

from rmlab.evaluation import auto_j, hhh, judge_bench, reward_bench, reward_bench_2, rm_bench
from rmlab.evaluation.items import over_items, over_subsets

# Model cards of allenai/Llama-3.1-Tulu-3-{8B,70B}-SFT-RM-RB2: the score, then Factuality, Precise IF, Math, Safety,
# Focus, Ties.
REWARD_BENCH_2 = [
    (68.2, 73.3, 38.8, 57.9, 89.8, 88.9, 60.6),
    (66.1, 72.0, 35.6, 63.9, 84.4, 76.4, 64.3),
    (59.1, 73.5, 40.0, 62.8, 74.0, 60.4, 43.9),
    (72.2, 80.8, 36.9, 67.8, 86.9, 77.8, 83.1),
]
# Skywork-Reward (arXiv 2410.18451), losses compared on RewardBench: the score, then Chat, Chat Hard, Safety, Reasoning.
REWARD_BENCH = [(93.8, 95.8, 91.4, 92.0, 96.1), (93.6, 94.3, 91.8, 92.0, 96.5), (92.3, 90.2, 89.0, 93.3, 96.7)]
# README of THU-KEG/RM-Bench, DeepSeek-R1 as a judge: the score, then chat, code, math, safety.
RM_BENCH = [(85.28, 84.24, 72.66, 93.59, 90.65)]
# BSR on RM-Bench, Llama-3-8B: the score, then hard, normal, easy.
RM_BENCH_DIFFICULTY = [(70.1, 47.8, 74.0, 88.4), (70.2, 52.1, 73.5, 85.0), (70.0, 55.7, 72.5, 81.9)]
# JudgeBench, table 3 (350 pairs of GPT-4o): overall, then knowledge, reasoning, math, coding.
JUDGE_BENCH = [
    (64.29, 59.74, 66.33, 83.93, 50.00),
    (62.29, 59.09, 64.29, 76.79, 50.00),
    (59.43, 62.99, 53.06, 64.29, 54.76),
]
JUDGE_BENCH_PAIRS = {"knowledge": 154, "reasoning": 98, "math": 56, "coding": 42}
# Auto-J, table of agreements: overall, then the eight groups in the order of the paper (24 pairs for each scenario).
AUTO_J = [
    (54.8, 45.8, 38.9, 59.2, 47.5, 54.6, 57.1, 58.0, 57.6),
    (61.9, 59.7, 51.4, 69.2, 58.3, 66.7, 60.4, 58.3, 65.2),
]
# Prometheus (arXiv 2310.08491), HHH alignment: the total, then helpful, harmless, honest, other.
HHH = [(88.69, 91.53, 93.10, 85.25, 83.72), (78.73, 76.27, 87.93, 67.21, 86.05), (80.09, 69.49, 84.48, 78.69, 90.70)]
HHH_PAIRS = {"helpful": 59, "harmless": 58, "honest": 61, "other": 43}


def total(weights, scores):
    assert sum(weights.values()) == pytest.approx(1)
    return sum(weight * scores[subset] for subset, weight in weights.items())


@pytest.mark.parametrize("row", REWARD_BENCH_2)
def test_reward_bench_2(row):
    assert total(
        reward_bench_2.TOTALS["overall"], dict(zip(reward_bench_2.SUBSETS, row[1:], strict=True))
    ) == pytest.approx(row[0], abs=0.06)


@pytest.mark.parametrize("row", REWARD_BENCH)
def test_reward_bench(row):
    """Every subset of a section has the section's score, so that the section has it too."""
    sections = dict(zip(reward_bench.SECTIONS, row[1:], strict=True))
    scores = {s: score for name, score in sections.items() for s in reward_bench.SECTIONS[name]}
    weights = reward_bench.weights()
    assert total(weights["overall"], scores) == pytest.approx(row[0], abs=0.06)
    prior = dict.fromkeys(reward_bench.PRIOR, 70.0)
    old = (2 * sum(row[1:]) + 70.0) / 9
    assert total(weights["overall with prior sets"], {**scores, **prior}) == pytest.approx(old)


@pytest.mark.parametrize("row", RM_BENCH)
def test_rm_bench_by_domain(row):
    scores = {
        f"{domain} {difficulty}": score
        for domain, score in zip(rm_bench.DOMAINS, row[1:], strict=True)
        for difficulty in rm_bench.DIFFICULTY
    }
    assert total(rm_bench.totals()["overall"], scores) == pytest.approx(row[0], abs=0.006)


@pytest.mark.parametrize("row", RM_BENCH_DIFFICULTY)
def test_rm_bench_by_difficulty(row):
    scores = {
        f"{domain} {difficulty}": score
        for difficulty, score in zip(("hard", "normal", "easy"), row[1:], strict=True)
        for domain in rm_bench.DOMAINS
    }
    assert total(rm_bench.totals()["overall"], scores) == pytest.approx(row[0], abs=0.06)


@pytest.mark.parametrize("row", JUDGE_BENCH)
def test_judge_bench_is_micro(row):
    scores = dict(zip(judge_bench.SUBSETS.values(), row[1:], strict=True))
    assert total(over_items(JUDGE_BENCH_PAIRS), scores) == pytest.approx(row[0], abs=0.01)
    assert total(over_subsets(JUDGE_BENCH_PAIRS), scores) != pytest.approx(row[0], abs=0.1)


@pytest.mark.parametrize("row", AUTO_J)
def test_auto_j(row):
    counts = {group: 24 * len(scenarios.split()) for group, scenarios in auto_j.GROUPS.items()}
    assert sum(counts.values()) == 1392
    scores = dict(zip(auto_j.GROUPS, row[1:], strict=True))
    assert total(auto_j.totals(counts)["agreement"], scores) == pytest.approx(row[0], abs=0.06)


@pytest.mark.parametrize("row", HHH)
def test_hhh(row):
    assert set(hhh.SUBSETS) == set(HHH_PAIRS)
    scores = dict(zip(HHH_PAIRS, row[1:], strict=True))
    assert total(over_items(HHH_PAIRS), scores) == pytest.approx(row[0], abs=0.01)
