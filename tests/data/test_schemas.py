"""The columns of twenty public data sets, with contents made up: each is read as its card says, or refused."""

import subprocess
import sys

import pytest
from conftest import DATA

from rmlab.data.columns import read_row
from rmlab.data.config import DataConfig, Options
from rmlab.data.prepare import tokenize
from rmlab.data.rows import to_comparison
from rmlab.data.sets import load_rows
from rmlab.messages import UserError

PAIR = {"responses": ["response_1", "response_2"]}
READ = {
    "hh.jsonl": {"prompt_separator": "\n\nAssistant:"},
    "ufb.jsonl": {},
    "ufb.parquet": {},
    "uf_argilla.parquet": {"columns": {"score_chosen": "chosen-rating", "score_rejected": "rejected-rating"}},
    "hs2.jsonl": {"columns": {"score": "helpfulness"}},
    "hs2.jsonl.gz": {"columns": {"score": "helpfulness"}},
    "hs2.parquet": {"columns": {"score": "helpfulness"}},
    "hs2_pref.jsonl": {
        "columns": {**PAIR, "label": {"column": "preference_strength", "first": "negative", "second": "positive"}}
    },
    "hs3.jsonl": {
        "columns": {
            "prompt": "context", "responses": ["response1", "response2"],
            "label": {"column": "overall_preference", "first": "negative", "second": "positive"},
        }
    },
    "hs3_012.jsonl": {
        "columns": {
            "prompt": "context", "responses": ["response1", "response2"],
            "label": {"column": "overall_preference", "first": "negative", "second": "positive"},
        }
    },
    "nectar.jsonl": {"columns": {"responses": "answers.answer", "ranks": "answers.rank"}},
    "nectar.parquet": {"columns": {"responses": "answers.answer", "ranks": "answers.rank"}},
    "shp.jsonl": {
        "columns": {
            "prompt": "history", "responses": ["human_ref_A", "human_ref_B"],
            "label": {"column": "labels", "first": 1, "second": 0},
        }
    },
    "pku.jsonl": {
        "columns": {
            "responses": ["response_0", "response_1"],
            "label": {"column": "better_response_id", "first": 0, "second": 1},
        }
    },
    "sff.jsonl": {
        "columns": {
            "prompt": "info.post", "responses": "summaries.text", "label": {"column": "choice", "first": 0, "second": 1}
        }
    },
    "sff.parquet": {
        "columns": {
            "prompt": "info.post", "responses": "summaries.text", "label": {"column": "choice", "first": 0, "second": 1}
        }
    },
    "arena.jsonl": {"columns": {"responses": ["conversation_a", "conversation_b"], "label": "winner"}},
    "arena_ab.jsonl": {"columns": {"responses": ["conversation_a", "conversation_b"], "label": "winner"}},
    "uf_orig.jsonl": {
        "columns": {
            "prompt": "instruction", "responses": "completions.response", "scores": "completions.overall_score"
        }
    },
    "uf_orig.parquet": {
        "columns": {
            "prompt": "instruction", "responses": "completions.response", "scores": "completions.overall_score"
        }
    },
    "webgpt.jsonl": {
        "columns": {
            "prompt": "question.full_text", "responses": ["answer_0", "answer_1"], "scores": ["score_0", "score_1"]
        }
    },
    "orca.jsonl": {"columns": {"prompt": ["system", "question"]}},
    "capybara.jsonl": {"columns": {"score_chosen": "rating_chosen", "score_rejected": "rating_rejected"}},
    "rb.jsonl": {},
    "tools.jsonl": {},
    "tools.parquet": {},
    "tools_str.jsonl": {},
    "skywork.jsonl": {},
    "p700k.jsonl": {"columns": {"score_chosen": "chosen_score", "score_rejected": "rejected_score"}},
    "parts.jsonl": {},
    "roles_hg.jsonl": {},
    "plain.jsonl": {},
    "plain.parquet": {},
    "array.json": {},
}  # fmt: skip
READ["hs3.parquet"] = READ["hs3.jsonl"]
REFUSED = {
    "shp.jsonl": ({"columns": {"prompt": "history", "responses": ["human_ref_A", "human_ref_B"], "label": "labels"}},
                  "the labels are 0 and 1 and never 2"),
    "pku.jsonl": ({"columns": {"responses": ["response_0", "response_1"], "label": "better_response_id"}},
                  "the labels are 0 and 1 and never 2"),
    "lmsys55k.jsonl": ({}, "no column 'chosen'; known: .*winner_model_a"),
    "rb2.jsonl": ({}, "chosen is neither text nor chat messages"),
    "image.jsonl": ({}, "prompt message 0 holds .*'type': 'image'"),
    "sharegpt.jsonl": ({}, "chosen is neither text nor chat messages"),
    "wrapped.json": ({}, r"is one JSON object \(version, data\); write its rows as an array, or one a line"),
    "columns.json": ({}, "chosen is neither text nor chat messages"),
}  # fmt: skip
TEMPLATE = (
    "{{ bos_token }}{{ tools }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ m['tool_calls'] }}"
    "{% endfor %}{{ eos_token }}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    script = DATA.parent / "schemas" / "make.py"
    if not script.exists():
        pytest.skip("what makes files with public schemas is absent")
    place = tmp_path_factory.mktemp("schemas")
    subprocess.run([sys.executable, str(script), str(place)], check=True, capture_output=True, timeout=60)
    return place


def rows_of(folder, file, options):
    source = {"source": "load", "path": str(folder / file), **options}
    (read,) = load_rows(DataConfig(train={"set": source})).train
    return read.rows


@pytest.mark.parametrize("file", READ)
def test_a_public_schema_is_read_as_its_card_says(file, folder, tokenizer):
    rows = rows_of(folder, file, READ[file])
    comparisons = [to_comparison(read_row(row), f"row {n}") for n, row in enumerate(rows)]
    assert len(comparisons) > 40
    decided = 0
    for comparison in comparisons:
        for p in comparison.preferences:
            better, worse = (str(comparison.responses[side]) for side in (p.better, p.worse))
            if p.probability > 0.5 and ("clear answer" in better) != ("clear answer" in worse):
                assert "clear answer" in better
                assert p.strength > 0
                decided += 1
    assert decided >= 20 or file.startswith("tools")
    tokenizer.chat_template = TEMPLATE
    trees = tokenize(rows, tokenizer, Options(max_length=None), file)
    texts = [tokenizer.decode(tree["prefix"] + tree["suffixes"][0]) for tree in trees]
    assert all(text.count("Question") <= 1 or "hh" in file for text in texts), "no question is said twice"
    assert len(set(trees["prompt_id"])) >= 0.9 * len(trees)


@pytest.mark.parametrize("file", REFUSED)
def test_a_schema_that_cannot_be_read_is_refused_in_a_sentence(file, folder):
    options, message = REFUSED[file]
    with pytest.raises(UserError, match=message):
        rows_of(folder, file, options)


def test_every_schema_has_been_thought_of(folder):
    assert {file.name for file in folder.iterdir()} == {*READ, *REFUSED}


def test_calls_of_tools_that_a_template_does_not_show_are_named(folder, tokenizer):
    rows = rows_of(folder, "tools.jsonl", {})
    with pytest.raises(UserError, match=r"tools row 0 .*the chat template does not show tools; set"):
        tokenize(rows, tokenizer, Options(), "tools")
    tokenizer.chat_template = TEMPLATE.replace("{{ m['tool_calls'] }}", "")
    with pytest.raises(UserError, match=r"tools row 0 .*the chat template does not show tool_calls"):
        tokenize(rows, tokenizer, Options(), "tools")
