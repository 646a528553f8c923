"""Trainer's loop around our loss: what is counted, where a stream ends, and what stops training."""

import signal

import pytest
import torch
from conftest import make_model, make_pairs, trainer_for
from datasets import IterableDataset
from transformers import TrainerCallback

from rmlab.messages import UserError
from rmlab.training.interruption import Interruption

CENTER = {"bradley_terry": {"margin": 0.0}, "center": {"weight": 0.1}}
STILL = {"learning_rate": 0.0, "logging_steps": 1, "train_sampling_strategy": "sequential"}


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry and "loss" in entry]


def stream_of(dataset, shards=1):
    return dataset.to_iterable_dataset(num_shards=shards)


# ---- the window of training metrics ----


@pytest.mark.slow
def test_a_batch_that_did_not_fit_is_not_in_the_training_metrics(tokenizer, tmp_path, monkeypatch):
    """auto_find_batch_size begins again with half the batch; what the aborted one had scored is forgotten."""

    def losses(fits):
        trainer = trainer_for(
            make_model(), tokenizer, tmp_path, make_pairs(8), loss=CENTER, auto_find_batch_size=True, max_steps=1,
            per_device_train_batch_size=4 if fits else 8, **STILL,
        )  # fmt: skip
        step = trainer.training_step

        def training_step(model, inputs, items=None):
            loss = step(model, inputs, items)
            if len(inputs) > 4:
                raise RuntimeError("CUDA out of memory.")
            return loss

        monkeypatch.setattr(trainer, "training_step", training_step)
        trainer.train()
        return [logged(trainer, name) for name in ("loss", "reward_mean", "accuracy", "loss_center")]

    assert losses(fits=False) == losses(fits=True)


def test_terms_of_a_stream_are_means_over_its_steps_in_every_pass(tokenizer, tmp_path):
    """Two whole batches a pass: with a learning rate of 0 each pass logs the same, whatever was fetched in vain."""
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, stream_of(make_pairs(8)), loss=CENTER, max_steps=6, **STILL
    )
    trainer.train()
    terms = logged(trainer, "loss_bradley_terry")
    assert terms[:2] * 3 == pytest.approx(terms)
    assert [a + 0.1 * b for a, b in zip(terms, logged(trainer, "loss_center"), strict=True)] == pytest.approx(
        logged(trainer, "loss"), rel=1e-5
    )


def test_every_step_of_a_stream_is_the_mean_of_the_rows_that_come_next(tokenizer, tmp_path):
    """Ten rows, batches of four, two a step: a step that reaches the end goes on with the first rows again."""
    rows = make_pairs(10)

    def trained(dataset, batch, accumulation):
        trainer = trainer_for(
            make_model(), tokenizer, tmp_path, dataset, max_steps=3, per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation, optim="sgd", max_grad_norm=0.0, lr_scheduler_type="constant",
            **{**STILL, "learning_rate": 0.1},
        )  # fmt: skip
        trainer.train()
        return logged(trainer, "loss"), torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    in_order = rows.select([n % 10 for n in range(24)])
    losses, weights = trained(stream_of(rows), 4, 2)
    expected, right = trained(in_order, 8, 1)
    assert losses == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(weights, right, atol=1e-5)


def test_a_stream_without_a_comparison_ends(tokenizer, tmp_path):
    nothing = IterableDataset.from_generator(lambda: iter([{"prompt": "a", "chosen": "b", "rejected": "b"}]))
    trainer = trainer_for(make_model(), tokenizer, tmp_path, nothing, max_steps=2, **STILL)
    with pytest.raises(UserError, match="the stream holds no comparison"):
        trainer.train()


# ---- the order ----


def test_orders_by_length_differ_by_epoch_and_seed_and_not_by_what_else_was_drawn(tokenizer, tmp_path):
    def order(seed, epoch, drawn):
        trainer = trainer_for(
            make_model(), tokenizer, tmp_path, make_pairs(24), train_sampling_strategy="group_by_length", seed=seed
        )
        loader = trainer.get_train_dataloader()
        torch.rand(drawn)
        loader.set_epoch(epoch)
        return [c.index for batch in loader for c in batch.comparisons]

    assert order(0, 1, 0) == order(0, 1, 5)
    assert len({tuple(order(seed, epoch, 0)) for seed in (0, 1) for epoch in (0, 1)}) == 4


# ---- evaluation sets that are streams ----


def test_a_stream_given_later_is_scored_like_its_rows(tokenizer, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), prompt_overlap="allow")
    rows = make_pairs(7, seed=3)
    whole = trainer.evaluate(rows)
    late = trainer.evaluate(stream_of(rows))
    assert late["eval_accuracy"] == whole["eval_accuracy"]
    assert late["eval_loss"] == pytest.approx(whole["eval_loss"], abs=1e-6)
    assert trainer.predict(stream_of(rows)).predictions.tolist() == trainer.predict(rows).predictions.tolist()


@pytest.mark.parametrize("options", [{"dataloader_persistent_workers": True}, {"dataloader_prefetch_factor": 2}])
def test_a_stream_is_evaluated_in_a_training_with_workers(options, tokenizer, tmp_path):
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, make_pairs(8), stream_of(make_pairs(5, seed=3)), eval_strategy="steps",
        eval_steps=1, max_steps=2, dataloader_num_workers=1, prompt_overlap="allow", **options,
    )  # fmt: skip
    trainer.train()
    assert trainer.args.dataloader_num_workers == 1
    assert len(trainer.evaluations["eval"].comparisons) == 5


# ---- what stops training ----


def test_a_loss_that_is_no_number_stops_at_its_first_log(tokenizer, tmp_path):
    model = make_model()
    model.score.weight.data.fill_(float("nan"))
    trainer = trainer_for(model, tokenizer, tmp_path, make_pairs(24), logging_steps=2)
    with pytest.raises(UserError, match=r"training has diverged: the loss is nan at step 2; lower"):
        trainer.train()
    assert trainer.state.global_step == 2


class Kill(TrainerCallback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            signal.raise_signal(self.number)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_finishes_the_step_and_writes_a_checkpoint(number, raised, tokenizer, tmp_path, capsys):
    def trainer(*callbacks):
        return trainer_for(
            make_model(), tokenizer, tmp_path, make_pairs(24), callbacks=list(callbacks), max_steps=5,
            learning_rate=0.05, logging_steps=4,
        )  # fmt: skip

    before, interruption = signal.getsignal(number), Interruption()
    stopped = trainer(Kill(3, number), interruption)
    with interruption:
        stopped.train()
    assert signal.getsignal(number) == before
    assert stopped.state.global_step == 3
    with pytest.raises(raised):
        interruption.end()
    assert "the same command goes on from step 3" in capsys.readouterr().out
    whole, resumed = trainer(), trainer()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 5
    whole.train()
    assert logged(resumed, "loss") == logged(whole, "loss")


def test_training_that_was_not_interrupted_ends_as_always(tokenizer, tmp_path):
    with Interruption() as interruption:
        pass
    interruption.end()


def test_early_stopping_needs_something_to_watch(tokenizer, tmp_path):
    with pytest.raises(UserError, match="early_stopping_patience needs eval_strategy"):
        trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), early_stopping_patience=1)


def test_early_stopping_stops_after_evaluations_without_a_better_one(tokenizer, tmp_path):
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, make_pairs(24), make_pairs(6, seed=3), learning_rate=0.0,
        prompt_overlap="allow", eval_strategy="steps", eval_steps=1, metric_for_best_model="eval_nll",
        early_stopping_patience=2, num_train_epochs=3,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 3
