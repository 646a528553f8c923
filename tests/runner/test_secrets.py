"""Secrets stand in no file of a run, and the run has them."""

import pickle

import pytest
import yaml
from conftest import make_model, make_pairs, rmlab, run_directory, trainer_for

from rmlab import RewardConfig, UserError
from rmlab.runner.config import Config, content_id
from rmlab.secrets import is_secret, masked, secrets_of, without_masks

TOKEN = "hf_averysecretvalue"
FROM_ENVIRONMENT = "anothersecretvalue"


@pytest.mark.parametrize(
    "name", ["hub_token", "token", "HF_TOKEN", "api_key", "WANDB_API_KEY", "password", "client_secret"]
)
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["pad_token", "eos_token", "tokenizer", "tokens_per_batch", "num_tokens", "new_tokens", "key"]
)
def test_names_that_are_none(name):
    assert not is_secret(name)


def test_secrets_are_masked_at_any_depth_and_wherever_they_are_repeated():
    config = {
        "a": [{"hub_token": TOKEN}],
        "url": f"https://x:{TOKEN}@y",
        "pad_token": "<pad>",
        "n": 3,
        "empty_token": "",
    }
    got = masked(config, secrets_of(config))
    assert got == {
        "a": [{"hub_token": "<secret>"}],
        "url": "https://x:<secret>@y",
        "pad_token": "<pad>",
        "n": 3,
        "empty_token": "",
    }
    assert without_masks({"a": got["a"]}) == {"a": [{"hub_token": None}]}
    with pytest.raises(UserError, match="url holds a secret that was not written down"):
        without_masks(got)


def test_a_short_secret_is_masked_where_it_stands_and_spoils_no_word():
    config = {"hub_token": "a", "study": "ablation", "nested": {"password": "x"}}
    assert masked(config, secrets_of(config)) == {
        "hub_token": "<secret>",
        "study": "ablation",
        "nested": {"password": "<secret>"},
    }


def test_an_id_does_not_depend_on_what_else_a_machine_knows(monkeypatch):
    config = Config().as_dict()
    config["model"] = {"path": "org/some-model-name"}
    before = content_id(config)
    monkeypatch.setenv("DB_PASSWORD", "some-model-name")
    assert content_id(config) == before


@pytest.mark.parametrize("node", ["columns", "chat_template_kwargs"])
def test_words_of_users_are_no_secrets_and_part_of_the_id(node):
    """A variable of a template may be called turn_token: two of its values are two runs."""
    ids = set()
    for value in ("<|a|>", "<|b|>"):
        config = {"data": {node: {"turn_token": value}}}
        assert masked(config, secrets_of(config)) == config
        ids.add(content_id(config))
    assert len(ids) == 2


def test_a_secret_is_no_part_of_a_runs_id():
    config = Config().as_dict()
    config["trainer"] = {"hub_token": TOKEN}
    other = {**config, "trainer": {"hub_token": "rotated-value"}}
    assert content_id(config) == content_id(other)


def test_a_checkpoint_holds_no_token(tokenizer, tmp_path):
    trainer = trainer_for(
        make_model(),
        tokenizer,
        tmp_path,
        make_pairs(8),
        hub_token=TOKEN,
        save_strategy="steps",
        save_steps=1,
        max_steps=1,
    )
    trainer.train()
    assert trainer.args.hub_token == TOKEN
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        assert TOKEN.encode() not in file.read_bytes(), file
    args = RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, hub_token=TOKEN, learning_rate=0.5)
    copy = pickle.loads(pickle.dumps(args))
    assert (copy.hub_token, copy.learning_rate, copy.pad_token) == (None, 0.5, None)


@pytest.mark.slow
def test_no_file_of_a_run_or_a_sweep_holds_a_secret(tmp_path):
    arguments = ["debug=tiny", f"trainer.hub_token={TOKEN}", "question=${oc.env:MY_SECRET}", "run.threads=1"]
    rmlab(tmp_path, *arguments, "trainer.save_steps=1", MY_SECRET=FROM_ENVIRONMENT)
    config = yaml.safe_load((run_directory(tmp_path) / "config.yaml").read_text())
    assert (config["trainer"]["hub_token"], config["question"]) == ("<secret>", "<secret>")
    again = rmlab(tmp_path, *arguments, "trainer.save_steps=1", MY_SECRET=FROM_ENVIRONMENT)
    assert "skipped" in again.stdout
    rmlab(tmp_path, "-m", *arguments, "seed=1", "study=s", "logger=none", MY_SECRET=FROM_ENVIRONMENT)
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        content = file.read_bytes()
        for secret in (TOKEN, FROM_ENVIRONMENT):
            assert secret.encode() not in content, file
