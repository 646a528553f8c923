"""How long a row may be, against models that fail beyond it."""

import json

import pytest
import torch
from conftest import make_model, trainer_for
from datasets import Dataset
from transformers import HfArgumentParser

from rmlab import RewardConfig, UserError
from rmlab.model.positions import check_positions, taken_by, usable_length


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bert", {"max_position_embeddings": 20}),
        ("roberta", {"max_position_embeddings": 20, "pad_token_id": 0}),
        ("roberta", {"max_position_embeddings": 20, "pad_token_id": 3}),
        ("gpt2", {"n_positions": 20}),
        ("opt", {"max_position_embeddings": 20}),
        ("distilbert", {"max_position_embeddings": 20}),
    ],
)
def test_a_model_takes_the_longest_row_and_no_longer_one(kind, options):
    model = make_model(kind, **options)
    taken = taken_by(model.config.to_dict())
    ids = torch.full((1, taken + 1), 7)
    model(ids[:, :taken], attention_mask=torch.ones_like(ids[:, :taken]))
    with pytest.raises((IndexError, RuntimeError)):
        model(ids, attention_mask=torch.ones_like(ids))


def test_rotary_positions_do_not_end_but_some_change():
    assert taken_by(make_model("qwen3", max_position_embeddings=20).config.to_dict()) is None
    changing = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 30}
    assert taken_by({"model_type": "llama", "max_position_embeddings": 60, "rope_parameters": changing}) == 30


@pytest.mark.parametrize(
    ("asked", "taken", "used"), [("auto", None, 1024), ("auto", 4096, 1024), ("auto", 512, 512), (99, 512, 99)]
)
def test_auto_is_1024_or_what_the_model_takes(asked, taken, used):
    assert usable_length(asked, taken) == used


def test_a_number_beyond_the_positions_is_refused_and_auto_is_not():
    config = {"model_type": "bert", "max_position_embeddings": 512}
    check_positions(config, "m", "auto")
    check_positions(config, "m", 512)
    for length in (513, None):
        with pytest.raises(UserError, match=f"data.max_length={length} is beyond the 512 positions of m"):
            check_positions(config, "m", length)


def test_the_trainer_reads_rows_as_long_as_its_model_takes(tokenizer, tmp_path, capsys):
    rows = Dataset.from_dict({"chosen_ids": [[5] * 33, [5] * 32], "rejected_ids": [[6] * 4] * 2})
    trainer = trainer_for(make_model("gpt2", n_positions=32), tokenizer, tmp_path, rows, max_length="auto", max_steps=1)
    trainer.train()
    said = capsys.readouterr().out
    assert "max_length is 32: the model takes no longer rows" in said
    assert "dropped 1 overlong" in said
    trainer_for(make_model("qwen3"), tokenizer, tmp_path, rows, max_length="auto")
    said = capsys.readouterr().out
    assert "max_length" not in said
    assert "dropped 0 overlong" in said


def test_a_command_line_gives_a_number_as_text(tmp_path):
    parser = HfArgumentParser(RewardConfig)
    place = ["--output_dir", str(tmp_path)]
    assert parser.parse_args_into_dataclasses([*place, "--max_length", "77"])[0].options.max_length == 77
    assert parser.parse_args_into_dataclasses(place)[0].max_length == "auto"
    with pytest.raises(UserError, match="max_length is 'long'; it must be a whole number, auto, or null"):
        RewardConfig(output_dir=str(tmp_path), max_length="long")
    assert json.loads(RewardConfig(output_dir=str(tmp_path), max_length=None).to_json_string())["max_length"] is None
