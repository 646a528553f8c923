"""Checkpoints that a killed run can trust."""

import torch
from conftest import make_model, make_pairs, trainer_for

from rmlab.training.checkpoints import MarkWhole, last_whole_checkpoint, train_or_resume

SAVING = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 0.05, "max_steps": 3}


def test_the_newest_whole_checkpoint_is_the_one_to_resume_from(tokenizer, tmp_path):
    assert last_whole_checkpoint(tmp_path) is None
    trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), callbacks=[MarkWhole()], **SAVING).train()
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    (tmp_path / "checkpoint-3").rename(tmp_path / "checkpoint-10")  # as a number, not as a word
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    (tmp_path / "checkpoint-10" / "whole").unlink()  # killed while it was written
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_a_checkpoint_of_the_last_step_is_loaded_and_not_trained_on(tokenizer, tmp_path):
    def build(seed):
        return trainer_for(make_model(seed=seed), tokenizer, tmp_path, make_pairs(8), **SAVING)

    first = build(0)
    train_or_resume(first, None)
    again = build(1)
    train_or_resume(again, str(tmp_path / "checkpoint-3"))
    assert again.state.global_step == 3
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))
    resumed = build(1)
    train_or_resume(resumed, str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 3
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), resumed.model.parameters(), strict=True))
