"""Log-probabilities of the responses, for terms that read them: those of the causal model itself, before and after."""

import copy
import math

import pytest
import torch
from conftest import make_model, make_pairs, trainer_for
from peft import PromptTuningConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rmlab.losses import Term, build_loss
from rmlab.messages import UserError
from rmlab.model.changes import save_changes
from rmlab.model.config import ModelConfig
from rmlab.model.lm_head import keep_lm_head
from rmlab.model.load import load_model
from rmlab.scoring.batch import Padded
from rmlab.scoring.collator import PreferenceCollator
from rmlab.scoring.heads import prepare_for_scoring, score

BT = build_loss({"bradley_terry": {"margin": 0.0}})


def reading(name, function, per="response"):
    return Term(name, 0.1, function, per, built_in=frozenset({"logps", "reference_logps"}))


LIKELIER = reading("likelier", lambda p: -p.columns["logps"] / 10)
MOVED = reading("moved", lambda p: (p.columns["logps"] - p.columns["reference_logps"]).square())


def causal_of(model):
    """The causal LM with the same weights, by transformers' own class."""
    causal = AutoModelForCausalLM.from_config(model.config)
    causal.load_state_dict(model.state_dict(), strict=False)
    causal.tie_weights()
    return causal.eval()


def logp(causal, ids, response):
    """Of the last `response` of these ids, one at a time."""
    said = causal(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    first = max(len(ids) - response, 1)
    return sum(said[n - 1, ids[n]].item() for n in range(first, len(ids)))


@pytest.mark.parametrize("kind", ["qwen3", "gemma2"])
def test_they_are_those_of_the_causal_model_and_rewards_are_as_without(kind):
    """Gemma 2 caps its logits; the first token of a row has none before it and does not count."""
    model = make_model(kind, tie_word_embeddings=True).eval()
    causal, ids, lengths = causal_of(model), [[1, 70, 71, 72, 2], [1, 80, 2], [60, 61]], [3, 1, 2]
    prepare_for_scoring(model)
    keep_lm_head(model)
    plain = score(model, Padded.of(ids, 0))
    both = score(model, Padded.of(ids, 0, lengths=lengths))
    assert torch.equal(both[:, :1], plain)
    assert both[:, 1].tolist() == pytest.approx(
        [logp(causal, row, n) for row, n in zip(ids, lengths, strict=True)], abs=1e-4
    )


def test_an_lm_head_of_its_own_is_read_from_the_checkpoint_and_not_saved(tmp_path):
    causal = AutoModelForCausalLM.from_config(make_model().config)
    assert not causal.config.tie_word_embeddings
    causal.save_pretrained(tmp_path / "base")
    model = load_model(ModelConfig(path=str(tmp_path / "base")), seed=0).eval()
    prepare_for_scoring(model)
    keep_lm_head(model)
    (_, found), ids = score(model, Padded.of([[1, 70, 71, 2]], 0, lengths=[3]))[0], [1, 70, 71, 2]
    assert found.item() == pytest.approx(logp(causal.eval(), ids, 3), abs=1e-4)
    assert not any("lm_head" in name for name in model.state_dict())


def test_a_term_that_reads_them_trains_the_model_to_say_its_responses(tokenizer, tmp_path):
    trainer = trainer_for(
        make_model(tie_word_embeddings=True), tokenizer, tmp_path, make_pairs(16), make_pairs(4, seed=5),
        loss=[*BT, LIKELIER, MOVED], max_steps=4, learning_rate=3e-3, logging_steps=1, prompt_overlap="allow",
        per_device_train_batch_size=4, gradient_accumulation_steps=2,
    )  # fmt: skip
    assert trainer.layout == "padded"
    before = trainer.evaluate()
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert logs[0]["loss_moved"] == pytest.approx(0.0, abs=1e-6)  # nothing has moved before the first step
    assert logs[-1]["loss_moved"] > 0
    assert logs[-1]["loss_likelier"] < logs[0]["loss_likelier"]
    assert trainer.evaluate()["eval_loss"] != before["eval_loss"]
    kept = trainer.evaluations["eval"].comparisons[0]
    assert kept.columns["logps"] != kept.columns["reference_logps"]
    late = trainer.evaluate(make_pairs(4, seed=6))
    assert math.isnan(late["eval_loss"])  # what it was before training is past
    assert late["eval_accuracy"] >= 0


def test_a_resumed_training_compares_with_the_model_of_before_training(tokenizer, tmp_path):
    """Fails if the reference is computed from the checkpoint."""

    def trainer(steps):
        return trainer_for(
            copy.deepcopy(model), tokenizer, tmp_path, make_pairs(16), loss=[*BT, MOVED], max_steps=steps,
            learning_rate=3e-3, lr_scheduler_type="constant", save_steps=2, save_strategy="steps", logging_steps=1,
        )  # fmt: skip

    model = make_model(tie_word_embeddings=True)
    whole = trainer(4)
    whole.train()
    again = trainer(4)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    moved = [[e["loss_moved"] for e in t.state.log_history if "loss_moved" in e][-2:] for t in (whole, again)]
    assert moved[1] == pytest.approx(moved[0], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ({}, {"kind": "bert"}, "bert has none of: it is no causal model"),
        ({}, {}, "tie_word_embeddings=true"),
        (
            {"data_collator": PreferenceCollator(pad_token_id=0)},
            {"tie_word_embeddings": True},
            "data_collator does not ask for",
        ),
        ({"layout": "packed"}, {"tie_word_embeddings": True}, "layout=packed does not go with a loss that reads logps"),
    ],
)
def test_what_has_no_log_probabilities_is_refused(tokenizer, tmp_path, options, config, message):
    with pytest.raises(UserError, match=message):
        trainer_for(make_model(**config), tokenizer, tmp_path, make_pairs(4), loss=[*BT, LIKELIER], **options)


def test_prompt_tuning_is_refused_whose_model_sees_no_tokens(tokenizer, tmp_path):
    """Fails if the head's log variance is taken for a log-probability."""
    trainer = trainer_for(
        make_model(tie_word_embeddings=True), tokenizer, tmp_path, make_pairs(4), loss=[*BT, LIKELIER],
        head={"gaussian": {}}, peft_config=PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
    )  # fmt: skip
    with pytest.raises(UserError, match="prompt tuning hides the tokens"):
        trainer.train()


@pytest.mark.parametrize(
    ("kind", "auto", "message"),
    [
        ("llama", AutoModelForSequenceClassification, "holds no LM head, as reward models do not"),
        ("phi", AutoModelForCausalLM, "has a bias"),
    ],
)
def test_a_checkpoint_without_a_plain_lm_head_is_refused(tmp_path, kind, auto, message):
    """transformers would draw one at random."""
    auto.from_config(make_model(kind).config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        keep_lm_head(load_model(ModelConfig(path=str(tmp_path)), seed=0))


def test_changes_have_the_lm_head_of_their_base(tmp_path):
    """Their folder holds none."""
    AutoModelForCausalLM.from_config(make_model("llama").config).save_pretrained(tmp_path / "base")
    model = load_model(ModelConfig(path=str(tmp_path / "base")), seed=0)
    model.model.requires_grad_(False)
    assert save_changes(model, tmp_path / "changes") is None
    again = load_model(ModelConfig(path=str(tmp_path / "changes")), seed=0)
    with pytest.raises(UserError, match="no row for the 1 new tokens of the chat template"):
        keep_lm_head(model, new_tokens=[768])
    keep_lm_head(model)
    keep_lm_head(again)
    assert torch.equal(again.rmlab_lm_head, model.rmlab_lm_head)
