"""A trained model as the reward function of an RL trainer."""

import copy

import pytest
from conftest import make_pairs, rewards_of
from datasets import Dataset
from scripts import arguments, saved_adapter

import rmlab
from rmlab import RewardTrainer


@pytest.mark.parametrize("chat", [False, True])
def test_the_reward_function_gives_what_the_trainer_scored(chat, tokenizer, tmp_path):
    adapter, model, _ = saved_adapter(tokenizer, tmp_path)
    rows = make_pairs(5, seed=3)
    if chat:

        def said(role, text):
            return [{"role": role, "content": text}]

        rows = Dataset.from_list(
            [
                {"prompt": said("user", r["prompt"]), **{s: said("assistant", r[s]) for s in ("chosen", "rejected")}}
                for r in rows
            ]
        )
    for folder in (model, adapter):
        trainer = RewardTrainer(str(folder), arguments(tmp_path), processing_class=copy.deepcopy(tokenizer))
        expected = rewards_of(trainer, rows)
        rewards = rmlab.reward_function(str(folder), tokens_per_batch=64)
        assert rewards.__name__ == folder.name  # what TRL logs
        for column, side in enumerate(("chosen", "rejected")):
            got = rewards(prompts=rows["prompt"], completions=rows[side], trainer_state=None)
            assert got == pytest.approx(expected[:, column].tolist(), abs=1e-5)
