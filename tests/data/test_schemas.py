"""Columns of public data sets that are refused in a sentence. Those that are read: test_named_sets.py."""

import pytest
from datafiles import TEMPLATE, public_schemas

from rmlab.data.config import DataConfig, Options
from rmlab.data.prepare import tokenize
from rmlab.data.sets import load_rows
from rmlab.messages import UserError

REFUSED = {
    "shp.jsonl": ({"columns": {"prompt": "history", "responses": ["human_ref_A", "human_ref_B"], "label": "labels"}},
                  "the labels are 0 and 1 and never 2"),
    "pku.jsonl": ({"columns": {"responses": ["response_0", "response_1"], "label": "better_response_id"}},
                  "the labels are 0 and 1 and never 2"),
    "lmsys55k.jsonl": ({}, "no column 'chosen'; known: .*winner_model_a"),
    "image.jsonl": ({}, "prompt message 0 holds .*'type': 'image'"),
    "wrapped.json": ({}, r"is one JSON object \(version, data\); write its rows as an array, or one a line"),
    "columns.json": ({}, "prompt is neither text nor chat messages"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return public_schemas(tmp_path_factory)


def rows_of(folder, file, options):
    source = {"source": "load", "path": str(folder / file), **options}
    (read,) = load_rows(DataConfig(train={"set": source})).train
    return read.rows


@pytest.mark.parametrize("file", REFUSED)
def test_a_schema_that_cannot_be_read_is_refused_in_a_sentence(file, folder):
    options, message = REFUSED[file]
    with pytest.raises(UserError, match=message):
        rows_of(folder, file, options)


def test_calls_of_tools_that_a_template_does_not_show_are_named(folder, tokenizer):
    rows = rows_of(folder, "tools.jsonl", {})
    with pytest.raises(UserError, match=r"tools row 0 .*the chat template does not show tools; set"):
        tokenize(rows, tokenizer, Options(), "tools")
    tokenizer.chat_template = TEMPLATE.replace("{{ m['tool_calls'] }}", "")
    with pytest.raises(UserError, match=r"tools row 0 .*the chat template does not show tool_calls"):
        tokenize(rows, tokenizer, Options(), "tools")
