"""What a suite's files must hold: a mistake is one sentence that names the file, the row and what is wrong."""

import json

import pytest
from conftest import DATA
from datasets import Dataset
from suites import jsonl, result_of, said, suite_of

from rmlab.data.rows import to_comparison
from rmlab.evaluation import SUITES
from rmlab.evaluation.chat import as_text, rows_for
from rmlab.evaluation.items import row_of
from rmlab.messages import UserError

PAIR = {"prompt": "q", "chosen": "x", "rejected": "y", "subset": "hep-go", "id": 1}
RB2 = {"id": "ref:1", "prompt": "q", "chosen": ["x"], "rejected": ["y"], "subset": "Ties"}
JUDGED = {
    "pair_id": "1", "source": "mmlu-pro-law", "question": "q", "response_model": "gpt-4o", "response_A": "x",
    "response_B": "y", "label": "A>B",
}  # fmt: skip
STYLED = {"id": "1", "prompt": "q", "chosen": ["x"] * 3, "rejected": ["y"] * 3, "domain": "chat"}
VOTE = {"question_id": "1", "winner": "model_a", "prompt": "q", "response_1": "x", "response_2": "y", "language": "en"}
SCENARIO = {"scenario": "planning", "label": 0, "prompt": "q", "response 1": "x", "response 2": "y"}
CHOSEN = {
    "pair_uid": "1", "conversation_input": [{"role": "user", "content": "q"}], "chosen": {"answer": "x"},
    "reject": {"answer": "y"}, "category_path": "Pairwise/Helpfulness/Chat",
}  # fmt: skip
RIGHT = {
    "reward_bench": (PAIR, {}),
    "judge_bench": (JUDGED, {"responses": "gpt"}),
    "rm_bench": (STYLED, {}),
    "ppe_preference": (VOTE, {"by": "language"}),
    "auto_j": (SCENARIO, {}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_missing_column_is_named_with_its_file(name, tmp_path):
    row, options = RIGHT[name]
    column = "response_A" if name == "judge_bench" else "prompt"
    path = jsonl(tmp_path / "rows.jsonl", [row, {k: v for k, v in row.items() if k != column}])
    with pytest.raises(UserError, match=rf"rows.jsonl row 1 \(counting from 0\): no column '{column}'"):
        suite_of(name, path=path, **options)


@pytest.mark.parametrize(
    ("name", "row", "options", "sentence"),
    [
        ("reward_bench", {**PAIR, "subset": "hep-goo"}, {}, "no subset 'hep-goo'; did you mean 'hep-go'"),
        ("reward_bench_2", RB2, {}, "holds ref:1 of Ties and no tied:1"),
        ("reward_bench_2", {**RB2, "id": "7"}, {}, "must be ref:N or tied:N"),
        ("reward_bench_2", {**RB2, "chosen": "yes"}, {}, "chosen and rejected must be lists"),
        ("judge_bench", {**JUDGED, "label": "A=B"}, {"responses": "gpt"}, "label 'A=B'"),
        ("judge_bench", JUDGED, {"responses": "claude"}, "holds no responses of claude"),
        ("judge_bench", JUDGED, {"responses": "gtp"}, "did you mean 'gpt'"),
        ("rm_bench", {**STYLED, "chosen": ["x"]}, {}, "1 right and 3 wrong responses"),
        ("ppe_preference", {**VOTE, "winner": "a"}, {"by": "language"}, "winner is 'a'"),
        ("ppe_preference", {**VOTE, "winner": "tie"}, {"by": "language"}, "holds no decided vote"),
        ("auto_j", {**SCENARIO, "scenario": "x"}, {}, "unknown scenario 'x'"),
        ("llmbar", {"input": "q"}, {}, "its name tells no subset"),
        ("rmb", {**CHOSEN, "category_path": "Helpfulness"}, {}, "category_path of Helpfulness or Harmlessness"),
        ("rmb", {k: v for k, v in CHOSEN.items() if k != "pair_uid"}, {}, "neither pair_uid, chosen and reject nor"),
        ("rows", {"prompt": "q", "chosen": "x"}, {}, "no column 'rejected'"),
    ],
)
def test_a_wrong_row_is_a_sentence(name, row, options, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        suite_of(name, path=jsonl(tmp_path / "rows.jsonl", [row]), **options)


@pytest.mark.parametrize("name", SUITES.names())
def test_a_path_that_is_not_there_is_named(name, tmp_path):
    needed = {key: "gpt" for key, p in SUITES.options(name).items() if p.default is p.empty and key != "path"}
    with pytest.raises(UserError, match=r"no file or folder '.*/nowhere\.jsonl'"):
        suite_of(name, path=str(tmp_path / "nowhere.jsonl"), **needed)


@pytest.mark.parametrize("kind", ["parquet", "array", "saved"])
def test_rows_are_read_from_what_data_sets_are_kept_in(kind, tmp_path):
    rows = [{**PAIR, "chosen": "x 1", "rejected": "y 0"}]
    place = tmp_path / "data"
    place.mkdir()
    if kind == "parquet":
        Dataset.from_list(rows).to_parquet(place / "filtered.parquet")
    elif kind == "array":
        (place / "rows.json").write_text(json.dumps(rows))
    else:
        Dataset.from_list(rows).save_to_disk(place)
    split = {} if kind != "saved" else {"path": str(place)}
    result = result_of(suite_of("rows" if split else "reward_bench", path=str(place)))
    assert next(iter(result.totals.values())).value == 1


def test_of_a_folder_from_the_hub_the_split_of_the_authors_alone_is_read(tmp_path):
    rows = [{**PAIR, "id": n} for n in range(4)]
    for split, number in (("raw", 4), ("filtered", 2)):
        Dataset.from_list(rows[:number]).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    assert [row["id"] for row in suite_of("reward_bench", path=str(tmp_path)).rows] == ["hep-go-0", "hep-go-1"]
    assert len(suite_of("reward_bench", path=str(tmp_path / "raw-00000-of-00001.parquet")).rows) == 4


@pytest.mark.skipif(not (DATA / "llmbar").is_dir(), reason="the real LLMBar is not here")
def test_the_real_llmbar_has_419_pairs():
    suite = suite_of("llmbar", path=str(DATA / "llmbar"))
    result = result_of(suite, lambda row, answer: row["responses"].index(said(answer)) == 0)
    counts = {name: part.items for name, part in result.subsets.items()}
    assert counts == {"Natural": 100, "Neighbor": 134, "GPTInst": 92, "GPTOut": 47, "Manual": 46}
    assert result.totals["average"].value == 1  # the right output comes first in a row of rmlab


def test_a_benchmark_is_a_chat_or_text_with_a_gap():
    dialogue = [
        {"role": role, "content": text} for role, text in (("user", "hi"), ("assistant", "yes?"), ("user", "q"))
    ]
    row = row_of("q\n", ["x"], ["y"], 1, "a")
    assert row["prompt"] == [{"role": "user", "content": "q\n"}]
    assert to_comparison(row, "row").responses[0] == [{"role": "assistant", "content": "x"}]
    assert as_text(row)["prompt"] == "q\n\n"
    assert as_text({**row, "prompt": dialogue})["prompt"] == "user: hi\n\nassistant: yes?\n\nuser: q\n\nassistant: "


def test_parts_of_text_and_calls_of_tools_are_text_too():
    parts = [{"role": "user", "content": [{"type": "text", "text": "how "}, {"type": "text", "text": "far?"}]}]
    called = [*parts, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "map"}}]}]
    row = {"chosen": "a", "rejected": "b"}
    assert as_text({**row, "prompt": parts})["prompt"] == "how far?\n\n"
    told = as_text({**row, "prompt": called})["prompt"]
    assert told == 'user: how far?\n\nassistant: [{"function": {"name": "map"}}]\n\nassistant: '


def test_rows_of_ones_own_stay_as_they_are(tokenizer):
    """As an evaluation set reads them: what a row holds is what the model reads."""
    rows = [{"prompt": "q", "chosen": "x", "rejected": "y"}, {"chosen": [{"role": "assistant", "content": "x"}]}]
    assert list(rows_for(tokenizer, rows)) == rows
    tokenizer.chat_template = None
    assert list(rows_for(tokenizer, rows)) == rows


LLMBAR = ("Natural", *(f"Adversarial_{name}" for name in ("Neighbor", "GPTInst", "GPTOut", "Manual")))
HUB = {
    "llmbar": ("princeton-nlp/LLMBar", {("LLMBar", name) for name in LLMBAR}),
    "hhh": ("HuggingFaceH4/hhh_alignment", {(name, "test") for name in ("helpful", "harmless", "honest", "other")}),
    "reward_bench": ("allenai/reward-bench", {(None, "filtered")}),
    "reward_bench_2": ("allenai/reward-bench-2", {(None, "test")}),
    "rm_bench": ("THU-KEG/RM-Bench", {(None, "train")}),
    "judge_bench": ("ScalerLab/JudgeBench", {(None, "gpt")}),
    "ppe_preference": ("lmarena-ai/PPE-Human-Preference-V1", {(None, "test")}),
}  # fmt: skip
LABELLED = {
    "input": "q",
    "output_1": "x",
    "output_2": "y",
    "label": 1,
    "targets": {"choices": ["x", "y"], "labels": [1, 0]},
}


@pytest.mark.parametrize("name", HUB)
def test_of_a_hub_name_the_configs_and_splits_are_the_authors(name, monkeypatch):
    """As the data sets' own pages name them; loading is replaced, for there is no hub in tests."""
    row, options = RIGHT.get(name, (LABELLED, {}))
    row = {**RB2, "subset": "Math"} if name == "reward_bench_2" else row
    asked = set()

    def load_dataset(path, config, split, **_):
        assert path == HUB[name][0]
        asked.add((config, split))
        return Dataset.from_list([row])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    suite = suite_of(name, path=HUB[name][0], **options)
    assert asked == HUB[name][1]
    assert len(suite.rows) == len(asked)
