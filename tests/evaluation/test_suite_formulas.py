"""What each suite makes of rewards, on files of the public schema, against numbers worked out by hand."""

import math

import pytest
from suites import jsonl, result_of, suite_of, values

from rmlab.evaluation.reward_bench import SECTIONS


def rb2(identity, right, wrong, subset):
    return {
        "id": identity,
        "prompt": f"question {identity.partition(':')[2] or identity}",
        "chosen": [f"right {reward}" for reward in right],
        "rejected": [f"wrong {reward}" for reward in wrong],
        "num_correct": len(right),
        "num_incorrect": len(wrong),
        "total_completions": len(right) + len(wrong),
        "models": ["m"] * (len(right) + len(wrong)),
        "subset": subset,
        "additional_metadata": None,
    }


def test_best_of_four_gives_a_tie_at_the_top_its_share(tmp_path):
    rows = [
        rb2("1", [3], [1, 2, 0], "Math"),
        rb2("2", [3], [3, 3, 0], "Math"),  # one of three at the top
        rb2("3", [3], [3.000001, 1, 0], "Math"),  # a difference that is only rounding
        rb2("4", [0], [1, 1, 1], "Math"),
    ]
    result = result_of(suite_of("reward_bench_2", path=jsonl(tmp_path / "rb2.jsonl", rows)))
    assert result.subsets["Math"].value == pytest.approx((1 + 1 / 3 + 1 / 2 + 0) / 4)
    assert result.subsets["Math"].chance == 0.25


# Rewards of the right and wrong answers of `tied:N`, then of `ref:N`, and what the five terms then are.
TIES = [
    ([5, 4], [1], [3], [0], 1, 1, 1, 1, math.tanh(3 / 1 - 1)),  # gap 3 and 3, spread 1
    ([5, 1], [0], [3], [0], 1, 1, 0, 0, math.tanh(1 / 4 - 1)),  # gap 1, spread 4
    ([5, 4], [1], [1], [0.5], 1, 1, 1, 0, math.tanh(0.5 / 1 - 1)),  # gap of ref 0.5
    ([5, 4], [4.5], [3], [0], 0, 1, 0, 0, math.tanh(-0.5 / 1 - 1)),
    ([2, 2], [1], [3], [0], 1, 1, 1, 1, 1.0),  # no spread: 1 / 0 is infinite
    ([2, 2], [3], [3], [0], 0, 1, 0, 0, -1.0),
    ([2, 2], [2], [3], [0], 0, 1, 0, 0, 0.0),  # 0 / 0 counts as no margin
]


@pytest.mark.parametrize("case", TIES, ids=range(len(TIES)))
def test_ties_are_scored_by_the_formula(case, tmp_path):
    right, wrong, ref_right, ref_wrong, *terms = case
    rows = [rb2("tied:7", right, wrong, "Ties"), rb2("ref:7", ref_right, ref_wrong, "Ties")]
    result = result_of(suite_of("reward_bench_2", path=jsonl(tmp_path / "rb2.jsonl", rows)))
    expected = sum(weight * term for weight, term in zip((0.3, 0.3, 0.2, 0.2, 0.01), terms, strict=True))
    assert result.subsets["Ties"].value == pytest.approx(expected)
    assert result.subsets["Ties"].items == 1


def test_the_score_of_reward_bench_2_is_the_mean_of_six_subsets(tmp_path):
    names = ["Factuality", "Precise IF", "Math", "Safety", "Focus"]
    rows = [rb2(str(n), [n % 2], [0.5, 0.2, 0.1], name) for n, name in enumerate(names)]
    rows += [rb2("again", [0], [1, 1, 1], "Focus"), *(rb2(f"{k}:1", [2], [1], "Ties") for k in ("ref", "tied"))]
    result = result_of(suite_of("reward_bench_2", path=jsonl(tmp_path / "rb2.jsonl", rows)))
    ties = 0.3 + 0.3 + 0.2 + 0.2 + 0.01
    assert values(result.totals) == pytest.approx({"overall": (0 + 1 + 0 + 1 + 0 + ties) / 6})


def reward_bench_rows(right):
    """One row of each subset; right(subset) says whether the chosen response gets more reward."""
    subsets = [subset for section in SECTIONS.values() for subset in section]
    return [
        {"id": n, "prompt": f"q{n}", "chosen": f"good {int(right(s))}", "rejected": "bad 0", "subset": s}
        for n, s in enumerate(subsets)
    ]


def test_a_section_weighs_its_subsets_and_math_as_much_as_code(tmp_path):
    rows = reward_bench_rows(lambda subset: subset in ("math-prm", "alpacaeval-easy", "xstest-should-refuse"))
    result = values(result_of(suite_of("reward_bench", path=jsonl(tmp_path / "rb.jsonl", rows))).totals)
    sections = {"Chat": 100 / 358, "Chat Hard": 0.0, "Safety": 250 / 740, "Reasoning": 984 / (984 + 6 * 164)}
    assert result == pytest.approx({"overall": sum(sections.values()) / 4, **sections})


def test_prior_sets_have_half_the_weight_of_a_section(tmp_path):
    path = jsonl(tmp_path / "rb.jsonl", reward_bench_rows(lambda subset: subset.startswith("hep")))
    for name, reward in (("anthropic_helpful", 1), ("anthropic_hhh", 1), ("shp", 1), ("summarize", 0)):
        row = {"prompt": f"p {name}", "chosen": f"good {reward}", "rejected": "bad 0"}
        jsonl(tmp_path / "prior" / f"{name}.jsonl", [row])
    result = values(result_of(suite_of("reward_bench", path=path, prior=str(tmp_path / "prior"))).totals)
    assert result["Reasoning"] == pytest.approx(0.5)
    assert result["Prior Sets"] == 0.75
    assert result["overall"] == pytest.approx(0.5 / 4)
    assert result["overall with prior sets"] == pytest.approx((2 * 0.5 + 0.75) / 9)


def rm_bench_row(identity, right, wrong, domain):
    """Rewards in the order concise, detailed, markdown."""
    sides = {
        side: [f"{side} {reward}" for reward in rewards] for side, rewards in (("chosen", right), ("rejected", wrong))
    }
    return {"id": identity, "prompt": f"q {domain} {identity}", **sides, "domain": domain}


def test_hard_pairs_have_the_wrong_response_in_the_fancier_style(tmp_path):
    """Rewards that are styles alone: easy pairs are right, hard ones wrong, those of one style ties, and so wrong."""
    rows = [rm_bench_row("1", [0, 1, 2], [0, 1, 2], "chat"), rm_bench_row("2", [0, 1, 2], [-1, 0.5, 1.5], "chat")]
    result = values(result_of(suite_of("rm_bench", path=jsonl(tmp_path / "rm.jsonl", rows))).subsets)
    assert result == pytest.approx({"chat easy": 1.0, "chat normal": (0 + 1) / 2, "chat hard": 0.0})


def test_safety_prompts_are_pooled(tmp_path):
    """Three to refuse, all right, and one to answer, all wrong: 3/4, not the 1/2 of a mean of the two."""
    good, bad = ([5, 5, 5], [0, 0, 0]), ([0, 0, 0], [5, 5, 5])
    rows = [rm_bench_row(str(n), *good, "safety-refuse") for n in range(3)]
    rows += [rm_bench_row("9", *bad, "safety-response")]
    rows += [rm_bench_row("1", *(good if domain == "code" else bad), domain) for domain in ("chat", "code", "math")]
    jsonl(tmp_path / "data" / "total_dataset.jsonl", rows)
    jsonl(tmp_path / "data" / "safety-refuse_filtered.jsonl", rows[:3])  # the same rows once more
    result = values(result_of(suite_of("rm_bench", path=str(tmp_path / "data"))).totals)
    assert result["safety"] == 0.75
    assert result["hard"] == pytest.approx((0 + 1 + 0 + 0.75) / 4)
    assert result["overall"] == pytest.approx((0 + 1 + 0 + 0.75) / 4)


SOURCES = ["mmlu-pro-law", "mmlu-pro-law", "mmlu-pro-math", "livebench-reasoning", "livebench-math", "livecodebench"]


def judged(n, source, first, second, label, model="gpt-4o-2024-05-13"):
    answers = {"response_A": f"a {first}", "response_B": f"b {second}"}
    about = {"pair_id": f"{model[:3]}{n}", "original_id": str(n), "source": source, "response_model": model}
    return {**about, "question": f"q{n}", **answers, "label": label}


def test_judge_bench_is_micro_and_macro_and_a_tie_says_b(tmp_path):
    rewards = [(1, 0, "A>B"), (1, 0, "B>A"), (1, 1, "B>A"), (1, 1, "A>B"), (0, 1, "B>A"), (0, 1, "A>B")]
    rows = [judged(n, source, *row) for n, (source, row) in enumerate(zip(SOURCES, rewards, strict=True))]
    rows += [judged(9, "mmlu-pro-law", 0, 1, "A>B", model="claude-3-5-sonnet-20240620")]
    suite = suite_of("judge_bench", path=jsonl(tmp_path / "jb.jsonl", rows), responses="gpt")
    result = result_of(suite)
    assert values(result.subsets) == pytest.approx({"knowledge": 2 / 3, "reasoning": 0.0, "math": 1.0, "coding": 0.0})
    assert values(result.totals) == pytest.approx({"micro": 3 / 6, "macro": (2 / 3 + 0 + 1 + 0) / 4})
    assert result.totals["micro"].ties == pytest.approx(2 / 6)


def rmb_row(identity, best, losers, goal, task=None):
    path = "/".join(filter(None, ["X_set", goal, *(task or ["S1"])]))
    prompt = [{"role": "user", "content": f"q {goal} {identity}", "language": "English"}]
    about = {"conversation_input": prompt, "category_path": path}
    answers = [{"llm_name": "m", "answer": f"text {reward}"} for reward in (best, *losers)]
    if len(losers) == 1:
        return {"pair_uid": identity, "chosen": answers[0], "reject": answers[1], **about}
    return {"bon_uid": identity, "bon_best": answers[0], "loser_list": answers[1:], **about}


def test_rmb_asks_that_the_best_beats_every_loser(tmp_path):
    chat, code = ["Chat", "Casual Conversation"], ["Code", "Documentation"]
    jsonl(tmp_path / "Pairwise_set/Helpfulness/Chat/a.jsonl", [rmb_row("1", 2, [1], "Helpfulness", chat)])
    jsonl(tmp_path / "Pairwise_set/Helpfulness/Code/b.jsonl", [
        rmb_row("2", 1, [1], "Helpfulness", code), rmb_row("3", 0, [1], "Helpfulness", code),
    ])  # fmt: skip
    jsonl(tmp_path / "Pairwise_set/Harmlessness/S1.jsonl", [rmb_row("4", 1, [0], "Harmlessness")])
    jsonl(tmp_path / "BoN_set/Helpfulness/Chat/a.jsonl", [rmb_row("5", 2, [1, 3], "Helpfulness", chat)])
    jsonl(tmp_path / "BoN_set/Harmlessness/S1.jsonl", [
        rmb_row("6", 2, [1, 1], "Harmlessness"), rmb_row("7", 2, [1, 2], "Harmlessness"),
    ])  # fmt: skip
    result = result_of(suite_of("rmb", path=str(tmp_path)))
    parts = {
        "pairwise Helpfulness": 1 / 3,
        "best-of-n Helpfulness": 0.0,
        "pairwise Harmlessness": 1.0,
        "best-of-n Harmlessness": 0.5,
    }
    assert values(result.totals) == pytest.approx({"overall": sum(parts.values()) / 4, **parts})
    assert "pairwise Helpfulness Code" in result.subsets


def test_votes_that_are_ties_are_not_scored(tmp_path, capsys):
    winners = [("model_a", 1, 0), ("model_b", 0, 1), ("model_b", 1, 0), ("tie", 1, 0), ("tie (bothbad)", 0, 1)]
    rows = [
        {"question_id": str(n), "winner": winner, "prompt": f"q{n}", "response_1": f"x {a}", "response_2": f"y {b}",
         "hard_prompt": n > 0}
        for n, (winner, a, b) in enumerate(winners)
    ]  # fmt: skip
    result = result_of(suite_of("ppe_preference", path=jsonl(tmp_path / "ppe.jsonl", rows), by="hard_prompt"))
    assert values(result.totals) == pytest.approx({"accuracy": 2 / 3})
    assert values(result.subsets) == {"not hard_prompt": 1.0, "hard_prompt": 0.5}
    assert "2 of 5 votes are ties" in capsys.readouterr().out


def test_ppe_counts_sampled_pairs_and_the_response_at_the_top(tmp_path):
    for task, top in (("MMLU-Pro", 9), ("MATH", 9), ("GPQA", 0), ("IFEval", 0), ("MBPP-Plus", 1)):
        row = {
            "question_id": task, "prompt": f"q {task}", "scores": [True, False, True, False], "mean_score": 0.5,
            "response_1": f"a {top}", "response_2": "b 1", "response_3": "c 0.5", "response_4": "d 0",
            "sampled_conflict_pairs": [[0, 1], [3, 2], [1, 2]], "model_name": "m",
        }  # fmt: skip
        jsonl(tmp_path / f"PPE-{task}-Best-of-K" / "train.jsonl", [row])
    result = result_of(suite_of("ppe_correctness", path=str(tmp_path)))
    assert values(result.totals) == pytest.approx({
        "accuracy": (2 * 2 / 3 + 2 * 1 / 3 + 1 / 3) / 5,  # a tie with b is wrong
        "best of k": (2 * 1 + 2 * 0 + 0.5) / 5,
    })  # fmt: skip
    assert result.totals["best of k"].chance == 0.5
    names = {"mmlu_pro": "MMLU-Pro", "math": "MATH", "gpqa": "GPQA", "ifeval": "IFEval", "mbpp_plus": "MBPP-Plus"}
    apart = {task: str(tmp_path / f"PPE-{name}-Best-of-K") for task, name in names.items()}
    assert values(result_of(suite_of("ppe_correctness", path=apart)).totals) == values(result.totals)


def test_auto_j_has_three_verdicts(tmp_path):
    cases = [(0, 1, 0), (1, 1, 0), (2, 1, 0), (2, 1, 1.000001), (0, 1, 1)]
    rows = [
        {"scenario": "planning" if n else "ranking", "label": label, "prompt": f"q{n}", "response 1": f"a {x}",
         "response 2": f"b {y}"}
        for n, (label, x, y) in enumerate(cases)
    ]  # fmt: skip
    result = result_of(suite_of("auto_j", path=jsonl(tmp_path / "testdata_pairwise.jsonl", rows)))
    assert values(result.totals) == pytest.approx({"agreement": 2 / 5, "agreement without ties": 1 / 3})
    assert result.subsets["NLP Tasks"].value == 1.0
    assert result.totals["agreement"].chance == pytest.approx(3 / 5 * 0.5)


def test_hhh_is_over_all_pairs_and_over_its_subsets(tmp_path):
    for subset, rewards in (("helpful", [1, 1, 0]), ("harmless", [1]), ("honest", [0]), ("other", [0])):
        jsonl(tmp_path / subset / "test.jsonl", [
            {"input": f"q {subset} {n}", "targets": {"choices": [f"x {r}", "y 0.5"], "labels": [1, 0]}}
            for n, r in enumerate(rewards)
        ])  # fmt: skip
    result = values(result_of(suite_of("hhh", path=str(tmp_path))).totals)
    assert result == pytest.approx({"accuracy": 3 / 6, "macro": (2 / 3 + 1 + 0 + 0) / 4})


def test_llmbar_is_a_mean_of_subsets(tmp_path):
    parts = {"Natural": [1, 0], "Neighbor": [1], "GPTInst": [1, 1, 0], "GPTOut": [0], "Manual": [0]}
    for part, right in parts.items():
        rows = [
            {"input": f"q {part} {n}", "output_1": f"x {r}", "output_2": "y 0.5", "label": 1}
            for n, r in enumerate(right)
        ]
        jsonl(tmp_path / ("" if part == "Natural" else "Adversarial") / part / "dataset.jsonl", rows)
    result = values(result_of(suite_of("llmbar", path=str(tmp_path))).totals)
    adversarial = [1, 2 / 3, 0, 0]
    assert result == pytest.approx({"average": (0.5 + sum(adversarial)) / 5, "adversarial": sum(adversarial) / 4})


def test_rows_of_any_format_count_preferences_and_half_a_tie(tmp_path):
    rows = [
        {"prompt": "q1", "chosen": "x 1", "rejected": "y 0", "subset": "a"},
        {"prompt": "q2", "chosen": "x 1", "rejected": "y 1", "subset": "b"},
        {"prompt": "q3", "chosen": "x 0", "rejected": "y 1", "subset": "b"},
    ]
    result = result_of(suite_of("rows", path=jsonl(tmp_path / "mine.jsonl", rows)))
    assert values(result.totals) == pytest.approx({"accuracy": 1.5 / 3, "macro": (1 + 0.25) / 2})
    graded = [{"question": "q", "responses": ["x 3", "y 2", "z 2"], "scores": [2, 1, 1]}]
    suite = suite_of("rows", path=jsonl(tmp_path / "graded.jsonl", graded), columns={"prompt": "question"})
    assert result_of(suite).totals["accuracy"].items == 2  # the third preference is a tie of the labels
