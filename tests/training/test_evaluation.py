"""Evaluation: every comparison once, whatever the batches, the ranks and the stream."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import kwise_rows, make_model, make_pairs, rewards_of, trainer_for
from datasets import DatasetDict
from transformers import TrainerCallback

from rmlab import UserError


def test_rule_3_metrics_are_over_items_not_batches(tokenizer, tmp_path):
    """Fails if metrics are averaged over batches: 21 pairs in batches of 8 weigh the last 5 too much."""
    pairs = make_pairs(21)
    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=pairs, per_device_eval_batch_size=8)
    metrics, rewards = trainer.evaluate(), rewards_of(trainer, pairs).double()
    gap = rewards[:, 0] - rewards[:, 1]
    assert metrics["eval_accuracy"] == pytest.approx((gap > 0).double().mean().item())
    assert metrics["eval_gap_mean"] == pytest.approx(gap.mean().item(), abs=1e-6)
    assert metrics["eval_nll"] == pytest.approx(torch.nn.functional.softplus(-gap).mean().item(), abs=1e-6)
    assert metrics["eval_loss"] == pytest.approx(metrics["eval_nll"], abs=1e-6)
    assert metrics["eval_reward_min"] == pytest.approx(rewards.min().item())
    assert metrics["eval_preferences"] == 21


def test_rule_3_duplicates_that_even_batches_add_are_dropped(tokenizer, tmp_path, monkeypatch):
    """Fails if gathered comparisons are not de-duplicated by index: two ranks pad 21 to 22."""
    import rmlab.training.evaluation as module

    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=make_pairs(21))
    honest = trainer.evaluate()
    monkeypatch.setattr(module, "gather_object", lambda scored: scored[:11] + scored[11:] + scored[:1])
    assert trainer.evaluate()["eval_preferences"] == 21
    assert trainer.evaluate()["eval_nll"] == honest["eval_nll"]


def test_rule_4_ties_are_reported_and_count_half(tokenizer, pairs, tmp_path):
    """Fails if a constant model gets accuracy 0 or 1, or ties are not reported."""
    model = make_model()
    model.score.weight.data.zero_()
    metrics = trainer_for(model, tokenizer, tmp_path, evaluation=pairs).evaluate()
    assert metrics["eval_accuracy"] == 0.5
    assert metrics["eval_ties"] == 1.0
    assert metrics["eval_nll"] == pytest.approx(math.log(2))


def test_predict_returns_rewards_per_response(tokenizer, tmp_path):
    rows = kwise_rows(5)
    output = trainer_for(make_model(), tokenizer, tmp_path).predict(rows)
    assert output.predictions.shape == (5, 5)
    assert [int((~np.isnan(r)).sum()) for r in output.predictions] == [len(r["responses"]) for r in rows]
    scores = [np.array(r["scores"]) for r in rows]
    assert all(s[b] == s.max() for s, b in zip(scores, output.label_ids, strict=True))
    assert output.metrics["test_comparisons"] == 5


def test_several_named_sets_and_subsets(tokenizer, tmp_path):
    sets = {"one": make_pairs(6), "two": make_pairs(6, seed=1, subset=["easy", "hard"] * 3)}
    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=DatasetDict(sets))
    metrics = trainer.evaluate()
    assert {"eval_one_loss", "eval_one_accuracy", "eval_two_easy_accuracy", "eval_two_hard_nll"} <= metrics.keys()
    assert set(trainer.evaluations) == {"one", "two"}


@pytest.mark.parametrize("grouped", [False, True])
def test_what_is_evaluated_knows_its_texts(grouped, tokenizer, tmp_path):
    """Grouped by prompt too; the trainer's own training rows do not."""
    rows = make_pairs(12)
    options = {"group_by_prompt": True} if grouped else {}
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(24).select(range(12, 24)), rows, **options)
    trainer.evaluate()
    texts = {text.strip() for row in rows for text in (row["prompt"], row["chosen"], row["rejected"])}
    for comparison in trainer.evaluations["eval"].comparisons:
        assert len(comparison.excerpts) == 1 + len(comparison.rewards) == 1 + len(comparison.style)
        assert set(comparison.excerpts) <= texts
        assert [row[0] for row in comparison.style] == [len(text) for text in comparison.excerpts[1:]]
    assert "excerpts" not in trainer.train_dataset.column_names


def test_compute_metrics_sees_rewards_of_chosen_and_rejected(tokenizer, pairs, tmp_path):
    def compute(prediction):
        chosen, rejected = prediction.predictions.T
        return {"mine": float((chosen > rejected).mean()), "labels": int(prediction.label_ids.sum())}

    metrics = trainer_for(make_model(), tokenizer, tmp_path, evaluation=pairs, compute_metrics=compute).evaluate()
    assert metrics["eval_mine"] == pytest.approx(metrics["eval_accuracy"])
    assert metrics["eval_labels"] == 0


def test_a_stream_is_evaluated_once_per_item_whatever_the_workers(tokenizer, tmp_path):
    stream = make_pairs(24).to_iterable_dataset(num_shards=4)
    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=stream, dataloader_num_workers=2)
    assert trainer.evaluate()["eval_comparisons"] == 24


def test_evaluation_never_drops_the_last_batch(tokenizer, pairs, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=pairs, dataloader_drop_last=True)
    assert trainer.evaluate()["eval_comparisons"] == 21
    assert trainer.predict(pairs).predictions.shape == (21, 2)
    assert trainer.args.dataloader_drop_last


def test_a_diverged_run_says_so(tokenizer, pairs, tmp_path):
    model = make_model()
    model.score.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="rewards of 21 of 21 comparisons are not finite: training has diverged"):
        trainer_for(model, tokenizer, tmp_path, evaluation=pairs).evaluate()


def test_early_stopping_and_best_model(tokenizer, tmp_path):
    from transformers import EarlyStoppingCallback

    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, make_pairs(16), make_pairs(40).select(range(30, 40)),
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True,
        metric_for_best_model="eval_nll", greater_is_better=False, num_train_epochs=50, learning_rate=0.05,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=3)],
    )  # fmt: skip
    trainer.train()
    curve = [entry["eval_nll"] for entry in trainer.state.log_history if "eval_nll" in entry]
    assert trainer.state.global_step < 200
    assert trainer.evaluate()["eval_nll"] == pytest.approx(min(curve), abs=1e-6)


# ---- what transformers' own evaluation loop promises ----


class ScheduleFree(torch.optim.SGD):
    """Like a schedule-free optimizer: the weights to evaluate are others than those to train, here halfway to 0."""

    mode = "train"

    def eval(self):
        if self.mode == "train":
            self.scale(0.5)
        self.mode = "eval"

    def train(self):
        if self.mode == "eval":
            self.scale(2.0)
        self.mode = "train"

    def scale(self, factor):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(factor)

    def step(self, closure=None):
        assert self.mode == "train"
        return super().step(closure)


def test_what_is_evaluated_is_what_the_optimizer_says_is(tokenizer, tmp_path):
    """Fails if the evaluation does not enter optimizer.eval(): it would report the weights of the last step."""
    model, rows = make_model(), make_pairs(12).select(range(8, 12))
    optimizer = ScheduleFree(model.score.parameters(), lr=0.01)
    trainer = trainer_for(
        model, tokenizer, tmp_path, make_pairs(8), rows, optimizers=(optimizer, None), max_steps=2,
        eval_strategy="steps", eval_steps=1,
    )  # fmt: skip
    modes = []
    trainer.scorer = Recorded(trainer.scorer, lambda model: modes.append((model.training, optimizer.mode)))
    trainer.train()
    assert modes == [(True, "train"), (False, "eval")] * 2
    reported = [entry["eval_nll"] for entry in trainer.state.log_history if "eval_nll" in entry][-1]
    assert trainer.evaluate()["eval_nll"] == pytest.approx(reported, abs=1e-6)
    assert optimizer.mode == "eval"
    averaged = trainer_for(model, tokenizer, tmp_path, evaluation=rows)  # without an optimizer, as it is now
    assert averaged.evaluate()["eval_nll"] == pytest.approx(reported, abs=1e-6)
    optimizer.train()
    assert averaged.evaluate()["eval_nll"] != pytest.approx(reported, abs=1e-3)


class Recorded:
    """A scorer that is told of every model it scores with."""

    def __init__(self, scorer, tell):
        self.scorer, self.tell = scorer, tell

    def __getattr__(self, name):
        return getattr(self.scorer, name)

    def __call__(self, model, batch):
        self.tell(model)
        return self.scorer(model, batch)


def test_callbacks_are_given_the_loader_of_the_evaluation(tokenizer, tmp_path):
    class Watch(TrainerCallback):
        def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
            seen.append(("step", len(eval_dataloader.dataset)))

        def on_evaluate(self, args, state, control, eval_dataloader=None, metrics=None, **kwargs):
            seen.append((metrics["eval_one_comparisons"], len(eval_dataloader.dataset)))

    seen, sets = [], {"one": make_pairs(6)}
    trainer_for(make_model(), tokenizer, tmp_path, evaluation=sets, callbacks=[Watch()]).evaluate()
    assert seen == [("step", 6), ("step", 6), (6, 6)]


def test_metrics_of_ones_own_are_numbers_that_json_can_write(tokenizer, pairs, tmp_path):
    def compute(prediction):
        chosen, rejected = torch.tensor(prediction.predictions).T
        return {"numpy": np.float32(0.5), "torch": (chosen > rejected).float().mean()}

    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=pairs, compute_metrics=compute)
    metrics = trainer.evaluate()
    assert json.loads(json.dumps(metrics))["eval_torch"] == pytest.approx(metrics["eval_accuracy"])
    trainer.state.save_to_json(str(tmp_path / "state.json"))


def test_metrics_by_batch_are_asked_for_their_result(tokenizer, pairs, tmp_path):
    """As transformers asks for it under batch_eval_metrics; all comparisons come in one batch."""

    def compute(prediction, compute_result):
        seen.append((len(prediction.predictions), compute_result))
        return {"mine": 0.5} if compute_result else {}

    seen = []
    options = {"compute_metrics": compute, "batch_eval_metrics": True}
    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=pairs, **options)
    assert trainer.evaluate()["eval_mine"] == 0.5
    assert seen == [(21, True)]


def test_memory_is_measured_where_it_is_asked_for(tokenizer, pairs, tmp_path):
    pytest.importorskip("psutil")
    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=pairs, skip_memory_metrics=False)
    assert "eval_mem_cpu_alloc_delta" in trainer.evaluate()


def test_what_metrics_cannot_be_given_is_refused(tokenizer, pairs, tmp_path):
    """Not in the middle of an evaluation, and not in silence."""
    for what in (["inputs"], ["loss"]):
        with pytest.raises(UserError, match="include_for_metrics: compute_metrics is given the rewards alone"):
            trainer_for(make_model(), tokenizer, tmp_path, evaluation=pairs, include_for_metrics=what)
