"""What RewardTrainer is given, made ready: rows of one prompt, arguments, losses; and what is refused."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import gradients, make_model, make_pairs, rewards_of, trainer_for
from datasets import Dataset

from rmlab import RewardConfig, RewardTrainer, UserError
from rmlab.data.config import DataConfig, Options
from rmlab.data.prepare import tokenize
from rmlab.data.sets import Sets
from rmlab.losses import build_loss
from rmlab.scoring.collator import PreferenceCollator
from rmlab.training.loss import prepare_loss
from rmlab.training.prepare import prepare_sets


def test_rows_of_one_prompt_become_one_comparison_with_the_same_loss(tokenizer, tmp_path, capsys):
    """Three rows over four responses of one prompt: scored four times instead of six, same loss, same gradients."""
    answers = [f"answer {'word ' * n}{n}" for n in range(4)]
    rows = Dataset.from_list(
        [{"prompt": "question ", "chosen": answers[a], "rejected": answers[b]} for a, b in [(0, 1), (0, 2), (3, 1)]]
        + [{"prompt": "another ", "chosen": "yes", "rejected": "no"}]
    )
    options = {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 4}
    apart = trainer_for(make_model(), tokenizer, tmp_path, rows, **options)
    merged = trainer_for(make_model(), tokenizer, tmp_path, rows, group_by_prompt=True, **options)
    assert "train: 4 comparisons share prompts and become 2; batches count those" in capsys.readouterr().out
    assert [len(tree["suffixes"]) for tree in merged.train_dataset] == [4, 2]
    assert merged.train_dataset[0]["better"] == [0, 0, 3]
    assert merged.train_dataset[0]["worse"] == [1, 2, 1]
    (loss, grads), (merged_loss, merged_grads) = gradients(apart), gradients(merged)
    assert merged_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    largest = max(g.abs().max().item() for g in grads.values())
    for name, gradient in grads.items():
        assert torch.allclose(gradient, merged_grads[name], atol=1e-5 * largest), name


def test_budgets_that_cannot_be_kept_are_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="tokens_per_batch is 0"):
        trainer_for(make_model(), tokenizer, tmp_path, tokens_per_batch=0)
    args = RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, tokens_per_batch=9)
    args.deepspeed = {"zero_optimization": {"stage": 2}}  # set afterwards: the constructor wants DeepSpeed installed
    with pytest.raises(UserError, match="tokens_per_batch does not work with DeepSpeed"):
        RewardTrainer(model=make_model(), args=args, processing_class=tokenizer)
    with pytest.raises(UserError, match="include_num_input_tokens_seen does not count the parts"):
        trainer_for(make_model(), tokenizer, tmp_path, tokens_per_batch=60, include_num_input_tokens_seen="all")


@pytest.mark.parametrize(
    ("layout", "mode", "count"), [("auto", "all", 48), ("padded", "all", 88), ("padded", "non_padding", 64)]
)
def test_tokens_seen_are_those_that_the_model_computes(layout, mode, count, tokenizer, tmp_path):
    """Two pairs of 22 and 10 tokens, of which 8 are shared."""
    shared = [1, *range(60, 67)]
    chosen = [[*shared, *range(100, 112), n, 2] for n in (80, 81)]
    rows = Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": [[*shared, 90, 2]] * 2})
    options = {"layout": layout, "include_num_input_tokens_seen": mode, "max_steps": 1}
    trainer = trainer_for(make_model(), tokenizer, tmp_path, rows, **options)
    trainer.train()
    assert trainer.state.num_input_tokens_seen == count


def test_a_collator_of_ones_own_is_padded_or_refused(tokenizer, tmp_path):
    for layout, refused in (("auto", False), ("packed", True)):
        args = RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, layout=layout)
        build = partial(
            RewardTrainer, make_model(), args, data_collator=PreferenceCollator(0), processing_class=tokenizer
        )
        if refused:
            with pytest.raises(UserError, match="layout=packed does not go with a data_collator"):
                build()
        else:
            assert build().layout == "padded"


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


def test_rule_8_training_and_scoring_render_with_the_same_function(tokenizer, tmp_path):
    """Fails if predict() on raw rows and training see different tokens."""
    pairs = make_pairs(5)
    trees = tokenize(pairs, tokenizer, Options(max_length=None))
    trainer = trainer_for(make_model(), tokenizer, tmp_path)
    assert torch.equal(rewards_of(trainer, trees), rewards_of(trainer, pairs))


def test_rule_9_evaluating_on_training_prompts_is_refused(tokenizer, pairs, tmp_path):
    """Fails if an evaluation set that shares prompts with the training set is accepted in silence."""
    overlapping = pairs.select(range(3))
    make = partial(trainer_for, make_model(), tokenizer, tmp_path, pairs)
    with pytest.raises(UserError, match="3 of 3 comparisons are on prompts of the training set"):
        make(overlapping)
    fresh = make_pairs(24).select(range(18, 24))  # three prompts of the training set, three new ones
    assert len(make(fresh, prompt_overlap="drop").eval_dataset) == 3
    assert len(make(fresh, prompt_overlap="allow").eval_dataset) == 6


def test_rule_9_rows_that_are_evaluated_later_are_compared_with_training_prompts_too(tokenizer, pairs, tmp_path):
    """Fails if only the sets given at construction are; the training set itself is no exception."""
    trainer = trainer_for(make_model(), tokenizer, tmp_path, pairs)
    for rows, count in ((pairs.select(range(3)), 3), (trainer.train_dataset, 21)):
        with pytest.raises(UserError, match=f"{count} of {count} comparisons are on prompts of the training set"):
            trainer.evaluate(rows)
    assert trainer.evaluate(make_pairs(24).select(range(21, 24)))["eval_comparisons"] == 3
    assert trainer.predict(pairs).metrics["test_comparisons"] == 21


def test_a_collator_that_makes_no_batch_is_refused(tokenizer, tmp_path):
    """As transformers' own would be: it knows no comparisons."""
    message = r"the data_collator made a dict, no rmlab.scoring.batch.Batch; leave it out, or wrap"
    for collator in (lambda rows: {"input_ids": torch.ones(1, 1)}, lambda rows: [{}]):
        trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(4), data_collator=collator)
        with pytest.raises(UserError, match=message):
            trainer.train()
        with pytest.raises(UserError, match=message):
            trainer.predict(make_pairs(4))


def test_a_collator_around_ours_may_change_what_it_makes(tokenizer, tmp_path):
    ours = PreferenceCollator(tokenizer.pad_token_id)

    def swapped(rows):
        batch = ours(rows)
        return replace(batch, better=batch.worse, worse=batch.better)

    losses = {}
    for name, collator in (("ours", ours), ("swapped", swapped)):
        trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(4), max_steps=1, data_collator=collator)
        losses[name] = trainer.train().training_loss
    rewards = trainer_for(make_model(), tokenizer, tmp_path).predict(make_pairs(4)).predictions
    gap = torch.tensor(rewards[:, 0] - rewards[:, 1])
    assert losses["ours"] == pytest.approx(torch.nn.functional.softplus(-gap).mean().item(), abs=1e-5)
    assert losses["swapped"] == pytest.approx(torch.nn.functional.softplus(gap).mean().item(), abs=1e-5)


def test_the_old_name_of_train_last_layers_is_refused(tmp_path):
    with pytest.raises(UserError, match="train_layers is now train_last_layers"):
        RewardConfig(output_dir=str(tmp_path), train_layers=0)
    assert "train_layers" not in RewardConfig(output_dir=str(tmp_path), use_cpu=True).to_dict()


def test_defaults_are_those_of_the_command(tmp_path):
    args = RewardConfig(output_dir=str(tmp_path), use_cpu=True)
    assert args.options == DataConfig().options == Options()
    assert args.identical == "drop"


def test_a_pair_of_equal_responses_is_dropped_unless_it_is_to_be_an_error(tokenizer, tmp_path, capsys):
    rows = Dataset.from_dict({"prompt": ["p ", "q "], "chosen": ["same", "a"], "rejected": ["same", "b"]})
    assert len(trainer_for(make_model(), tokenizer, tmp_path, rows).train_dataset) == 1
    assert "dropped 0 overlong, 1 identical" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"train row 0 .* identical"):
        trainer_for(make_model(), tokenizer, tmp_path, rows, identical="error")


@pytest.mark.parametrize("key", ["max_length", "tokens_per_batch", "dataset_num_proc"])
def test_a_count_below_one_is_refused(key, tmp_path):
    with pytest.raises(UserError, match=f"^{key} is 0; it must be at least 1$"):
        RewardConfig(output_dir=str(tmp_path), **{key: 0})


def test_the_loss_may_be_given_as_terms(tokenizer, tmp_path):
    args = RewardConfig(output_dir=str(tmp_path), use_cpu=True)
    terms = build_loss({"bradley_terry": {"margin": 0.5}})
    assert prepare_loss(terms, args, None) == terms
    centered = RewardConfig(output_dir=str(tmp_path), use_cpu=True, center_rewards_coefficient=0.25)
    named = prepare_loss({"bradley_terry": {"margin": 0.5}}, centered, None)
    assert [(t.name, t.weight) for t in named] == [("bradley_terry", 1.0), ("center", 0.25)]
    (plain, _), (margin, _) = (
        prepare_loss(None, centered, rows) for rows in (make_pairs(2), make_pairs(2, margin=[1, 2]))
    )
    assert (plain.function.keywords, margin.function.keywords) == ({"margin": 0.0}, {"margin": 1.0})


def test_what_is_prepared_is_not_prepared_again(tokenizer, tmp_path):
    """Numbered token trees pass as they are, so that a run and RewardTrainer may both prepare."""
    args = RewardConfig(output_dir=str(tmp_path), use_cpu=True)
    rows = Sets(make_pairs(8), {"new": make_pairs(12).select(range(8, 12))})
    sets = prepare_sets(rows, tokenizer, args)
    assert sets.train["index"] == list(range(8))
    assert sets.eval["new"]["index"] == list(range(4))
    again = prepare_sets(sets, tokenizer, args)
    assert again.train is sets.train
    assert again.eval["new"] is sets.eval["new"]
