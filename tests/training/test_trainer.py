"""RewardTrainer: what users of Trainer and of TRL's RewardTrainer expect to work, works."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import gradients, kwise_rows, make_model, make_pairs, trainer_for
from datasets import Dataset, DatasetDict

from rmlab import UserError
from rmlab.losses import LOSSES, Preferences

TERMS = {"bradley_terry": {"margin": 0.5}, "center": {"weight": 0.1}}


# ---- exact gradients ----


@pytest.mark.parametrize("weighting", ["pair", "prompt"])
@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_gradients_are_exact_under_any_split_into_micro_batches(size, weighting, tokenizer, tmp_path):
    """K-wise rows, so that micro-batches hold different numbers of pairs; the whole step is the reference."""
    rows = kwise_rows()
    options = {"train_sampling_strategy": "sequential", "pair_weighting": weighting, "loss": TERMS}
    whole = trainer_for(make_model(), tokenizer, tmp_path, rows, per_device_train_batch_size=9, **options)
    split = trainer_for(
        make_model(),
        tokenizer,
        tmp_path,
        rows,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=math.ceil(9 / size),
        **options,
    )
    (whole_loss, whole_grads), (split_loss, split_grads) = gradients(whole), gradients(split)
    assert split_loss.item() == pytest.approx(whole_loss.item(), rel=1e-5)
    scale = max(g.abs().max().item() for g in whole_grads.values())
    for name, gradient in whole_grads.items():
        assert torch.allclose(gradient, split_grads[name], atol=2e-6 * scale, rtol=0), name


def test_the_step_loss_is_the_mean_over_pairs_or_over_prompts(tokenizer, tmp_path):
    """InstructGPT's 1 / C(K, 2): written out from the rewards."""
    rows = kwise_rows(4)
    for weighting in ("pair", "prompt"):
        trainer = trainer_for(
            make_model(),
            tokenizer,
            tmp_path,
            rows,
            per_device_train_batch_size=4,
            pair_weighting=weighting,
            prompt_overlap="allow",
        )
        rewards = trainer.predict(rows).predictions
        per_prompt = []
        for row, r in zip(rows, rewards, strict=True):
            losses = []
            for i, j in itertools.combinations(range(len(row["scores"])), 2):
                gap, difference = float(r[i] - r[j]), row["scores"][i] - row["scores"][j]
                p = 0.5 if difference == 0 else float(difference > 0)
                losses.append(p * math.log1p(math.exp(-gap)) + (1 - p) * math.log1p(math.exp(gap)))
            per_prompt.append(losses)
        means = [sum(x) / len(x) for x in per_prompt]
        pooled = [x for losses in per_prompt for x in losses]
        expected = sum(means) / len(means) if weighting == "prompt" else sum(pooled) / len(pooled)
        loss, _ = gradients(trainer)
        assert loss.item() == pytest.approx(expected, abs=1e-5)
        assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(expected, abs=1e-5)


def test_a_term_of_one_value_per_response_is_averaged_over_responses(tokenizer, tmp_path):
    @LOSSES.register
    def squares(preferences: Preferences) -> torch.Tensor:
        """r^2 per response."""
        return preferences.rewards.square()

    try:
        rows = kwise_rows(6)
        trainer = trainer_for(
            make_model(), tokenizer, tmp_path, rows, per_device_train_batch_size=4, gradient_accumulation_steps=2,
            loss={"squares": {"weight": 2.0}},
        )  # fmt: skip
        rewards = trainer.predict(rows).predictions
        loss, _ = gradients(trainer)
        assert loss.item() == pytest.approx(2 * np.nanmean(rewards**2), rel=1e-5)
    finally:
        LOSSES._functions.pop("squares")


# ---- row formats end to end ----

CHAT = {
    "prompt": [{"role": "user", "content": "hi"}],
    "chosen": [{"role": "assistant", "content": "hello"}],
    "rejected": [{"role": "assistant", "content": "go away"}],
}
FORMATS = {
    "text with prompt": {"prompt": "hi ", "chosen": "hello", "rejected": "go away"},
    "text without prompt": {"chosen": "hi hello", "rejected": "hi go away"},
    "messages with prompt": CHAT,
    "messages without prompt": {k: CHAT["prompt"] + CHAT[k] for k in ("chosen", "rejected")},
    "text prompt and messages": {"prompt": "hi", "chosen": CHAT["chosen"], "rejected": CHAT["rejected"]},
    "margin": {"prompt": "hi ", "chosen": "hello", "rejected": "go away", "margin": 2},
    "two scores": {"chosen": "hi hello", "rejected": "hi go", "score_chosen": 4.0, "score_rejected": 1.5},
    "chosen_ids": {"chosen_ids": [1, 70, 2], "rejected_ids": [1, 71, 2]},
    "chosen_input_ids": {"chosen_input_ids": [1, 70, 2], "rejected_input_ids": [1, 71, 2]},
    "graded": {"prompt": "hi ", "responses": ["a", "b", "c"], "scores": [1.0, 3.0, 3.0]},
    "ranked": {"prompt": "hi ", "responses": ["a", "b", "c"], "ranks": [1, 2, 3]},
    "labelled": {"prompt": "hi ", "responses": ["a", "b"], "label": 2},
    "voted": {"prompt": "hi ", "responses": ["a", "b"], "votes": [1, 1, 2]},
}


@pytest.mark.parametrize("name", FORMATS)
def test_trains_on_every_row_format_and_changes_every_weight(name, tokenizer, tmp_path):
    rows = Dataset.from_list([FORMATS[name]] * 6)
    trainer = trainer_for(make_model(), tokenizer, tmp_path, rows, learning_rate=1e-2, max_steps=2)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.state.log_history[-1]["train_loss"] > 0
    unchanged = [n for n, p in trainer.model.named_parameters() if torch.equal(before[n], p)]
    assert unchanged == []


def test_streams(tokenizer, tmp_path):
    stream = make_pairs(12).to_iterable_dataset()
    trainer = trainer_for(make_model(), tokenizer, tmp_path, stream, stream, max_steps=3)
    trainer.train()
    assert trainer.evaluate()["eval_preferences"] == 12


def test_tools_and_template_variables_reach_the_template(tokenizer, tmp_path):
    tokenizer.chat_template = "{{ tools | tojson }}{{ mood }}" + tokenizer.chat_template
    tool = {"type": "function", "function": {"name": "look_up", "description": "d", "parameters": {}}}
    rows = Dataset.from_list([{**CHAT, "tools": [tool], "chat_template_kwargs": {"mood": "bright"}}])
    trainer = trainer_for(make_model(), tokenizer, tmp_path, rows)
    text = tokenizer.decode(trainer.train_dataset[0]["prefix"])
    assert "look_up" in text
    assert "bright" in text


# ---- evaluation ----


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


def test_compute_metrics_sees_rewards_of_chosen_and_rejected(tokenizer, pairs, tmp_path):
    def compute(prediction):
        chosen, rejected = prediction.predictions.T
        return {"mine": float((chosen > rejected).mean()), "labels": int(prediction.label_ids.sum())}

    metrics = trainer_for(make_model(), tokenizer, tmp_path, evaluation=pairs, compute_metrics=compute).evaluate()
    assert metrics["eval_mine"] == pytest.approx(metrics["eval_accuracy"])
    assert metrics["eval_labels"] == 0


# ---- training metrics ----


def test_training_metrics_are_over_the_preferences_since_the_last_log(tokenizer, tmp_path):
    """Zero learning rate: what is logged must equal what the rewards give, with a short last micro-batch."""
    rows = make_pairs(10)
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, rows, per_device_train_batch_size=4, gradient_accumulation_steps=3,
        learning_rate=0.0, logging_steps=1, loss=TERMS,
    )  # fmt: skip
    trainer.train()
    log = trainer.state.log_history[0]
    rewards = trainer.predict(rows).predictions
    gap = rewards[:, 0] - rewards[:, 1]
    assert log["accuracy"] == pytest.approx((gap > 0).mean())
    assert log["gap_mean"] == pytest.approx(gap.mean(), abs=1e-5)
    assert log["reward_std"] == pytest.approx(rewards.std(), abs=1e-5)
    assert log["chosen_mean"] == pytest.approx(rewards[:, 0].mean(), abs=1e-5)
    bt, center = np.log1p(np.exp(-(gap - 0.5))).mean(), (rewards.sum(1) ** 2).mean()
    assert log["loss_bradley_terry"] == pytest.approx(bt, abs=1e-5)
    assert log["loss_center"] == pytest.approx(center, abs=1e-5)
    assert log["loss"] == pytest.approx(bt + 0.1 * center, abs=1e-5)


# ---- what Trainer's users expect ----


def test_gradient_checkpointing_and_offloading_change_nothing(tokenizer, tmp_path):
    rows = make_pairs(8)
    plain = gradients(trainer_for(make_model(), tokenizer, tmp_path, rows, per_device_train_batch_size=8))
    for option in ("gradient_checkpointing", "activation_offloading"):
        trainer = trainer_for(make_model(), tokenizer, tmp_path, rows, per_device_train_batch_size=8, **{option: True})
        if option == "gradient_checkpointing":
            trainer.model.gradient_checkpointing_enable()
        loss, grads = gradients(trainer)
        assert loss.item() == pytest.approx(plain[0].item())
        assert all(torch.allclose(g, plain[1][n], atol=1e-6) for n, g in grads.items())


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


def test_resume_gives_the_same_model(tokenizer, tmp_path):
    rows, options = make_pairs(16), {"save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}
    whole = trainer_for(make_model(), tokenizer, tmp_path / "a", rows, num_train_epochs=2, **options)
    whole.train()
    resumed = trainer_for(make_model(), tokenizer, tmp_path / "a", rows, num_train_epochs=2, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    for (name, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_model_given_by_name_and_its_random_head_follow_the_seed(tokenizer, tmp_path):
    make_model().model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    heads = [
        trainer_for(str(tmp_path / "base"), None, tmp_path, seed=seed).model.score.weight.detach() for seed in (0, 0, 1)
    ]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_tags_and_older_arguments(tokenizer, tmp_path):
    from rmlab import RewardConfig, RewardTrainer

    trainer = RewardTrainer(
        model=make_model(),
        args=RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True),
        tokenizer=tokenizer,
        train_dataset=make_pairs(4),
        max_length=256,
    )
    assert set(trainer.model.model_tags) >= {"rmlab", "reward-trainer"}
    assert trainer.args.options.max_length == 256


def test_two_labels_are_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="reward models require `num_labels=1`"):
        trainer_for(make_model(num_labels=2), tokenizer, tmp_path)


def test_a_peft_model_with_a_peft_config_is_refused(tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make_model(), LoraConfig(task_type="SEQ_CLS"))
    with pytest.raises(UserError, match="already is a PeftModel"):
        trainer_for(model, tokenizer, tmp_path, peft_config=LoraConfig())


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "prompt_tuning", "prefix_tuning"])
def test_peft_methods_train(method, tokenizer, tmp_path):
    from rmlab.model.adapters import PeftConfig

    options = {
        "lora": {"r": 4, "target_modules": "all-linear"},
        "dora": {"r": 4, "target_modules": "all-linear", "use_dora": True},
        "ia3": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
        "prompt_tuning": {"num_virtual_tokens": 4},
        "prefix_tuning": {"num_virtual_tokens": 4},
    }[method]
    config = PeftConfig.of({"method": "lora" if method == "dora" else method, **options}).build()
    rows = make_pairs(8)
    trainer = trainer_for(make_model(), tokenizer, tmp_path, rows, learning_rate=1e-2, peft_config=config)
    before = trainer.predict(rows).predictions
    trainer.train()
    assert not np.allclose(before, trainer.predict(rows).predictions)


# ---- scripts that move over, and what they do wrong ----


def test_padded_rows_are_scored_by_their_attention_mask(tokenizer, tmp_path):
    """Older scripts tokenise with padding="max_length": the pads are not part of the response."""
    bare = {"input_ids_chosen": [1, 70, 71, 2], "input_ids_rejected": [1, 80, 2]}
    padded = {k: v + [0] * 5 for k, v in bare.items()}
    padded |= {k.replace("input_ids", "attention_mask"): [1] * len(v) + [0] * 5 for k, v in bare.items()}
    trainer = trainer_for(make_model(), tokenizer, tmp_path)
    rewards = [trainer.predict(Dataset.from_list([row])).predictions for row in (bare, padded)]
    assert np.array_equal(*rewards)


def test_a_stream_is_evaluated_once_per_item_whatever_the_workers(tokenizer, tmp_path):
    stream = make_pairs(24).to_iterable_dataset(num_shards=4)
    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=stream, dataloader_num_workers=2)
    assert trainer.evaluate()["eval_comparisons"] == 24


def test_evaluation_never_drops_the_last_batch(tokenizer, pairs, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=pairs, dataloader_drop_last=True)
    assert trainer.evaluate()["eval_comparisons"] == 21
    assert trainer.predict(pairs).predictions.shape == (21, 2)
    assert trainer.args.dataloader_drop_last


def test_logged_terms_add_up_to_the_loss_after_a_short_step(tokenizer, tmp_path):
    """10 rows in micro-batches of 4, two a step: the second step of an epoch has one micro-batch."""
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, make_pairs(10), gradient_accumulation_steps=2, learning_rate=0.0,
        logging_steps=2, loss=TERMS,
    )  # fmt: skip
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(log["loss_bradley_terry"] + 0.1 * log["loss_center"], rel=1e-5)


def test_a_diverged_run_says_so(tokenizer, pairs, tmp_path):
    model = make_model()
    model.score.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="rewards of 21 of 21 comparisons are not finite: training has diverged"):
        trainer_for(model, tokenizer, tmp_path, evaluation=pairs).evaluate()


def test_a_peft_model_from_elsewhere_is_read_by_mask(tokenizer, tmp_path):
    """Its score head is wrapped, and it is a decoder all the same."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make_model(), LoraConfig(task_type="SEQ_CLS"))
    trainer = trainer_for(model, tokenizer, tmp_path)
    rows = Dataset.from_list([{"chosen_ids": [1, 70, 71, tokenizer.pad_token_id], "rejected_ids": [1, 70, 71]}])
    chosen, rejected = trainer.predict(rows).predictions[0]
    assert abs(chosen - rejected) > 1e-3


def test_margins_of_a_generator_stream_are_seen(tokenizer, tmp_path):
    from datasets import IterableDataset

    stream = IterableDataset.from_generator(lambda: iter(make_pairs(8, margin=[2.0] * 8).to_list()))
    trainer = trainer_for(make_model(), tokenizer, tmp_path, stream, max_steps=1)
    assert trainer.loss_terms[0].function.keywords == {"margin": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eos_token": "<|nowhere|>"}, "eos_token '<|nowhere|>' is not in the tokenizer's vocabulary"),
        ({"train": [{"chosen": "a", "rejected": "b"}]}, "train_dataset must be one datasets.Dataset, not a list"),
        ({"overlong": "shorten"}, "overlong is 'shorten'; known: drop, error, truncate"),
    ],
)
def test_wrong_arguments_are_named(options, message, tokenizer, tmp_path):
    import re

    with pytest.raises(UserError, match=re.escape(message)):
        trainer_for(make_model(), tokenizer, tmp_path, **options)


def test_args_must_be_a_reward_config(tokenizer, tmp_path):
    from transformers import TrainingArguments

    from rmlab import RewardTrainer

    with pytest.raises(UserError, match=r"args must be a rmlab.RewardConfig"):
        RewardTrainer(model=make_model(), args=TrainingArguments(output_dir=str(tmp_path)), processing_class=tokenizer)


def test_trls_auto_padding_is_accepted(tokenizer, pairs, tmp_path):
    assert trainer_for(make_model(), tokenizer, tmp_path, pad_to_multiple_of="auto").predict(pairs).predictions.shape


def test_a_new_pad_token_is_added_as_given(tokenizer, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, pad_token="<|mine|>")
    assert trainer.processing_class.pad_token == "<|mine|>"
    assert trainer.model.config.pad_token_id == trainer.processing_class.convert_tokens_to_ids("<|mine|>")


def test_training_16_bit_weights_directly_is_warned_of(tokenizer, tmp_path, capsys):
    trainer_for(make_model().to(torch.bfloat16), tokenizer, tmp_path)
    assert "weights of 16 bits are trained directly" in capsys.readouterr().out
