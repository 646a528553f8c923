"""Checkpoints that a killed run can trust."""

import os
import shutil
import time

import pytest
import torch
from conftest import make_model, make_pairs, trainer_for
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, TrainerCallback

from rmlab.messages import UserError
from rmlab.training.checkpoints import checkpoints, damage, last_whole_checkpoint, train_or_resume

SAVING = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 0.05, "max_steps": 3}


@pytest.fixture
def trained(tokenizer, tmp_path):
    """Three checkpoints of three steps."""
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), **SAVING)
    trainer.train()
    return trainer


def again(tokenizer, tmp_path, seed=1, **options):
    return trainer_for(make_model(seed=seed), tokenizer, tmp_path, make_pairs(8), **{**SAVING, **options})


def assert_same_weights(one, other):
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


def steps(folder):
    return [int(place.name.split("-")[1]) for place in checkpoints(folder)]


def test_the_newest_whole_checkpoint_is_the_one_to_resume_from(trained, tmp_path):
    assert last_whole_checkpoint(tmp_path / "none") is None
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    (tmp_path / "checkpoint-3").rename(tmp_path / "checkpoint-10")  # as a number, not as a word
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    (tmp_path / "checkpoint-10" / "whole").unlink()  # killed while it was written
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "window-0.json"]
HARM = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zeroed": lambda data: bytes(len(data)),
    "flipped": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
    "gone": None,
}


@pytest.mark.parametrize("file", [*FILES, "whole"])
@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(harm, file, trained, tmp_path, capsys):
    place = tmp_path / "checkpoint-3" / file
    change = HARM[harm]
    place.unlink() if change is None else place.write_bytes(change(place.read_bytes()))
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    told = capsys.readouterr().out
    assert (file == "whole" and harm == "gone") or f"{tmp_path}/checkpoint-3 is passed over" in told


def test_a_resume_from_the_checkpoint_before_a_damaged_one_trains_the_same_weights(trained, tokenizer, tmp_path):
    (tmp_path / "checkpoint-3" / "optimizer.pt").write_bytes(b"")
    resumed = again(tokenizer, tmp_path)
    train_or_resume(resumed)
    assert resumed.state.global_step == 3
    assert_same_weights(trained, resumed)
    assert damage(tmp_path / "checkpoint-3") is None, "it was written again"


def test_without_a_whole_checkpoint_training_starts_at_step_0(trained, tokenizer, tmp_path):
    for place in checkpoints(tmp_path):
        (place / "model.safetensors").unlink()
    resumed = again(tokenizer, tmp_path, seed=0)
    train_or_resume(resumed)
    assert_same_weights(trained, resumed)


def test_a_damaged_checkpoint_that_was_asked_for_is_refused(trained, tokenizer, tmp_path):
    (tmp_path / "checkpoint-2" / "scheduler.pt").unlink()
    with pytest.raises(UserError, match=r"checkpoint-2 is damaged: scheduler.pt is gone"):
        again(tokenizer, tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_resume_true_takes_the_last_whole_one(trained, tokenizer, tmp_path):
    (tmp_path / "checkpoint-3" / "model.safetensors").write_bytes(b"")
    resumed = again(tokenizer, tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert_same_weights(trained, resumed)


def test_a_checkpoint_of_the_last_step_is_loaded_and_not_trained_on(trained, tokenizer, tmp_path):
    loaded = again(tokenizer, tmp_path)
    train_or_resume(loaded)
    assert loaded.state.global_step == 3
    assert_same_weights(trained, loaded)


def test_a_checkpoint_without_the_optimizer_is_not_resumed_from(tokenizer, tmp_path, capsys):
    first = again(tokenizer, tmp_path, save_only_model=True)
    first.train()
    assert last_whole_checkpoint(tmp_path) is None
    assert "checkpoint-3 is passed over: it holds no optimizer state (save_only_model)" in capsys.readouterr().out


def test_a_clock_that_went_back_removes_no_new_checkpoint(tokenizer, tmp_path):
    class Clock(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            ahead = time.time() + 10_000 - state.global_step  # each looks older than the one before
            os.utime(tmp_path / f"checkpoint-{state.global_step}", (ahead, ahead))

    options = {**SAVING, "save_total_limit": 1, "callbacks": [Clock()]}
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), **options)
    trainer.train()
    assert steps(tmp_path) == [3]
    assert trainer.args.save_total_limit == 1


def test_the_new_checkpoint_is_whole_before_the_old_one_goes(tokenizer, tmp_path, monkeypatch):
    from rmlab.training import checkpoints as module

    left = []
    monkeypatch.setattr(module, "rotate", lambda folder, limit, keep: left.append(last_whole_checkpoint(folder)))
    again(tokenizer, tmp_path, save_total_limit=1).train()
    assert left == [str(tmp_path / f"checkpoint-{step}") for step in (1, 2, 3)]


def test_the_best_checkpoint_stays_beside_the_newest(tokenizer, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "save_total_limit": 2}
    options |= {"metric_for_best_model": "eval_nll", "greater_is_better": True, "prompt_overlap": "allow"}
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), make_pairs(8), **{**SAVING, **options})
    trainer.train()
    assert set(steps(tmp_path)) == {trainer.state.best_global_step, 3}


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tokenizer, tmp_path, monkeypatch):
    trainer = again(tokenizer, tmp_path)

    def full(output_dir):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer, "_save_rng_state", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.train()
    assert steps(tmp_path) == []


# ---- of frozen models ----

FROZEN = {**SAVING, "train_last_layers": 1, "save_frozen": False}


def frozen_trainer(tokenizer, place, seed=0, evaluation=None, **options):
    return trainer_for(make_model(seed=seed), tokenizer, place, make_pairs(8), evaluation, **{**FROZEN, **options})


def test_a_checkpoint_to_resume_from_holds_only_what_is_trained(tokenizer, tmp_path, caplog):
    whole = frozen_trainer(tokenizer, tmp_path / "whole")
    whole.train()
    place = tmp_path / "whole" / "checkpoint-2"
    held = load_file(place / "model.safetensors")
    assert held.keys() == {n for n, p in whole.model.named_parameters() if p.requires_grad}
    with pytest.raises(ValueError, match="Unrecognized model"):
        AutoModelForSequenceClassification.from_pretrained(place)
    shutil.copytree(place, tmp_path / "part" / "checkpoint-2")
    resumed = frozen_trainer(tokenizer, tmp_path / "part")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.log_history[-1]["step"] == 3
    assert_same_weights(resumed, whole)
    assert "missing keys" not in caplog.text


def test_a_checkpoint_that_lacks_other_frozen_weights_is_passed_over(tokenizer, tmp_path, capsys):
    frozen_trainer(tokenizer, tmp_path).train()
    other = frozen_trainer(tokenizer, tmp_path, seed=1)
    assert last_whole_checkpoint(tmp_path, other) is None
    assert "checkpoint-3 is passed over: the frozen weights were others" in capsys.readouterr().out
    with pytest.raises(UserError, match="is of another model: the frozen weights were others"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_the_best_of_frozen_models_is_loaded(tokenizer, tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "learning_rate": 5.0}
    trainer = frozen_trainer(tokenizer, tmp_path, evaluation=make_pairs(6, seed=2), **best)
    before = {n: p.clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    trainer.train()
    assert trainer.state.best_global_step in (1, 2), "the last one would be there anyway"
    held = load_file(tmp_path / f"checkpoint-{trainer.state.best_global_step}" / "model.safetensors")
    now = dict(trainer.model.named_parameters())
    assert all(torch.equal(now[name], tensor) for name, tensor in {**held, **before}.items())


def test_a_model_saved_by_hand_is_whole(tokenizer, tmp_path):
    trainer = frozen_trainer(tokenizer, tmp_path)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in trainer.model.state_dict().items())
