"""The eleven rules that peers break, one test (or a few) each. Each docstring says which change makes it fail."""

import copy
import math
from functools import partial

import pytest
import torch
from conftest import ARCHITECTURES, DECODERS, make_model, make_pairs, rewards_of, trainer_for
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from rmlab import UserError
from rmlab.data.prepare import Options, tokenize
from rmlab.data.render import encode, refuse_dated_template
from rmlab.model import adapters
from rmlab.scoring.batch import Padded
from rmlab.scoring.heads import prepare_for_scoring, score

TOLERANCE = 1e-5


# ---- 1. last token by attention mask ----


@pytest.mark.parametrize("kind", DECODERS)
def test_rule_1_score_is_read_at_the_last_token_by_mask(kind):
    """Fails if forward_at_last_token searches `input_ids != pad_token_id`: with pad == eos it skips the last token."""
    model = make_model(kind, pad_token_id=2).eval()  # pad == eos == 2
    head, base = copy.deepcopy(model.score), getattr(model, model.base_model_prefix)
    prepare_for_scoring(model)
    sequences = [[1, 70, 71, 2], [1, 80, 2]]
    got = score(model, Padded.of(sequences, pad_token_id=2))
    for sequence, reward in zip(sequences, got, strict=True):
        hidden = base(input_ids=torch.tensor([sequence])).last_hidden_state[0, -1]  # the EOS itself
        assert reward.item() == pytest.approx(head(hidden).item(), abs=TOLERANCE)


def test_rule_1_pad_equal_to_eos_is_safe_in_training_and_in_what_is_saved(tokenizer, pairs, tmp_path):
    """Fails if ensure_pad_token leaves pad == eos: plain transformers then scores the token before EOS."""
    tokenizer.pad_token = tokenizer.eos_token
    trainer = trainer_for(make_model(), tokenizer, tmp_path)
    expected = rewards_of(trainer, pairs)[:, 0]
    trainer.save_model(str(tmp_path / "model"))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    saved = AutoTokenizer.from_pretrained(tmp_path / "model")
    texts = [r["prompt"] + r["chosen"] + "<|eos|>" for r in pairs]
    batch = saved(texts, padding=True, return_tensors="pt")
    assert torch.allclose(plain(**batch).logits.squeeze(-1), expected, atol=TOLERANCE)


# ---- 2. fp32 head, rewards, loss ----


@pytest.mark.parametrize("kind", ["qwen3", "bert", "modernbert"])
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_rule_2_head_and_rewards_are_fp32_whatever_the_body(kind, how):
    """Fails if the head is left in bf16 (no .float()) or autocast is not switched off around it: rewards then fall on
    the bf16 grid."""
    model = make_model(kind, **({"pad_token_id": 0})).eval()
    if how == "weights":
        model = model.to(torch.bfloat16)
    prepare_for_scoring(model)
    batch = Padded.of([[1, 60 + n, 2] for n in range(32)], 0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        rewards = score(model, batch)
    assert rewards.dtype == torch.float32
    on_grid = rewards == rewards.to(torch.bfloat16).float()
    assert on_grid.float().mean() < 0.2


def test_rule_2_the_loss_is_fp32_under_bf16(tokenizer, tmp_path):
    """Fails if Preferences carry bf16 rewards: the loss of a gap of 2^-9 would be exactly log 2."""
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(), bf16=True)
    batch = next(iter(trainer.get_train_dataloader()))
    with trainer.compute_loss_context_manager():
        loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert loss.dtype == outputs["rewards"].dtype == torch.float32


# ---- 3. metrics over items ----


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
    """Fails if gathered items are not de-duplicated by index: two ranks pad 21 items to 22."""
    import rmlab.training.trainer as module

    trainer = trainer_for(make_model(), tokenizer, tmp_path, evaluation=make_pairs(21))
    honest = trainer.evaluate()
    monkeypatch.setattr(module, "gather_object", lambda items: items[:11] + items[11:] + items[:1])
    assert trainer.evaluate()["eval_preferences"] == 21
    assert trainer.evaluate()["eval_nll"] == honest["eval_nll"]


# ---- 4. ties ----


def test_rule_4_ties_are_reported_and_count_half(tokenizer, pairs, tmp_path):
    """Fails if a constant model gets accuracy 0 or 1, or ties are not reported."""
    model = make_model()
    model.score.weight.data.zero_()
    metrics = trainer_for(model, tokenizer, tmp_path, evaluation=pairs).evaluate()
    assert metrics["eval_accuracy"] == 0.5
    assert metrics["eval_ties"] == 1.0
    assert metrics["eval_nll"] == pytest.approx(math.log(2))


# ---- 5. PEFT ----


@pytest.mark.parametrize("kind", ["qwen3", "gpt2", "bert", "distilbert"])
@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM", "SEQ_CLS"])
def test_rule_5_adapter_trains_saves_reloads_and_merges_the_head(kind, task_type, tokenizer, tmp_path):
    """Fails if apply_peft leaves task_type alone, or the head out of modules_to_save."""
    from peft import AutoPeftModelForSequenceClassification, LoraConfig

    base = make_model(kind)
    base.save_pretrained(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    target = ["c_attn"] if kind == "gpt2" else "all-linear"
    trainer = trainer_for(
        model,
        tokenizer,
        tmp_path,
        make_pairs(16),
        learning_rate=1e-2,
        peft_config=LoraConfig(task_type=task_type, r=4, target_modules=target),
    )
    head = {n: p.clone() for n, p in trainer.model.named_parameters() if p.requires_grad and "modules_to_save" in n}
    assert head
    trainer.train()
    for name, before in head.items():
        if "weight" in name:
            assert not torch.equal(before, dict(trainer.model.named_parameters())[name]), f"{name} was not trained"
    pairs = make_pairs(8, seed=1)
    trained = rewards_of(trainer, pairs)
    trainer.save_model(str(tmp_path / "adapter"))
    reloaded = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=1)
    assert torch.allclose(rewards_of(trainer_for(reloaded, tokenizer, tmp_path), pairs), trained, atol=TOLERANCE)
    adapters.export(trainer.model, tokenizer, tmp_path / "model")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert torch.allclose(rewards_of(trainer_for(merged, tokenizer, tmp_path), pairs), trained, atol=TOLERANCE)


def test_rule_5_a_peft_model_with_a_frozen_head_gets_a_trained_one(tokenizer, tmp_path):
    """Fails if a PeftModel built elsewhere keeps its random head frozen and unsaved."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"]))
    trainer = trainer_for(model, tokenizer, tmp_path, make_pairs(8))
    assert any("score" in n and p.requires_grad for n, p in trainer.model.named_parameters())
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    from safetensors.torch import load_file

    assert any("score" in key for key in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))


def test_rule_5_an_adapter_on_the_head_is_refused(tokenizer, tmp_path):
    """Fails if LoRA on a random, unsaved head is accepted: the saved adapter could not be reloaded."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj", "score"]))
    with pytest.raises(UserError, match="sits on the score head"):
        trainer_for(model, tokenizer, tmp_path)


# ---- 6. invariance ----


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_rule_6_scores_do_not_change_with_batch_size_or_padding(kind, tokenizer, tmp_path):
    """Fails if padding leaks into attention, positions or pooling."""
    pairs = make_pairs(13)
    model = make_model(kind)
    alone = rewards_of(trainer_for(model, tokenizer, tmp_path, per_device_eval_batch_size=1), pairs)
    together = rewards_of(trainer_for(model, tokenizer, tmp_path, per_device_eval_batch_size=13), pairs)
    wide = rewards_of(trainer_for(model, tokenizer, tmp_path, pad_to_multiple_of=64), pairs)
    assert alone.std() > 100 * TOLERANCE
    assert torch.allclose(alone, together, atol=TOLERANCE)
    assert torch.allclose(alone, wide, atol=TOLERANCE)


@pytest.mark.parametrize("kind", DECODERS)
def test_rule_6_scores_do_not_change_with_padding_side(kind):
    """Fails if position ids are not derived from the mask (learned positions), or the last token from its end."""
    model = make_model(kind).eval()
    prepare_for_scoring(model)
    right = Padded.of([[1, 70, 71, 72, 2], [1, 80, 2]], 0)
    left = Padded(right.input_ids.clone(), right.attention_mask.clone())
    left.input_ids[1] = torch.tensor([0, 0, 1, 80, 2])
    left.attention_mask[1] = torch.tensor([0, 0, 1, 1, 1])
    assert torch.allclose(score(model, right), score(model, left), atol=TOLERANCE)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_rule_6_scores_survive_save_and_reload(kind, tokenizer, tmp_path):
    """Fails if anything that the score depends on is not in the saved folder."""
    pairs = make_pairs(9)
    trainer = trainer_for(make_model(kind), tokenizer, tmp_path, make_pairs(8, seed=3), learning_rate=1e-3)
    trainer.train()
    before = rewards_of(trainer, pairs)
    trainer.save_model(str(tmp_path / "model"))
    again = trainer_for(str(tmp_path / "model"), None, tmp_path)
    assert torch.allclose(rewards_of(again, pairs), before, atol=TOLERANCE)


# ---- 7. overlong and identical rows ----


def test_rule_7_overlong_rows_are_dropped_counted_truncated_or_refused(tokenizer, capsys):
    """Fails if a policy is ignored, a count is wrong, or truncation loses EOS or cuts the two sides differently."""
    rows = Dataset.from_dict({"prompt": ["w " * 30, "w "], "chosen": ["a", "b"], "rejected": ["c", "d"]})
    kept = tokenize(rows, tokenizer, Options(max_length=16))
    assert len(kept) == 1
    assert "1 comparisons of 2 rows" in (line := capsys.readouterr().out)
    assert "dropped 1 overlong, 0 identical; truncated 0" in line
    cut = tokenize(rows, tokenizer, Options(max_length=16, overlong="truncate"))
    assert "truncated 1" in capsys.readouterr().out
    full = [cut[0]["prefix"] + suffix for suffix in cut[0]["suffixes"]]
    assert max(map(len, full)) == 16
    assert all(ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id for ids in full)
    assert "a" in tokenizer.decode(full[0])
    assert "c" in tokenizer.decode(full[1])
    with pytest.raises(UserError, match=r"train row 0 .*tokens, data.max_length is 16"):
        tokenize(rows, tokenizer, Options(max_length=16, overlong="error"))


def test_rule_7_pairs_made_identical_are_dropped_and_counted(tokenizer, capsys):
    """Fails if truncation may leave two equal sequences: their loss is log 2 whatever the model."""
    rows = Dataset.from_dict({"chosen": ["a " * 30 + "x", "b"], "rejected": ["a " * 30 + "y", "c"]})
    kept = tokenize(rows, tokenizer, Options(max_length=8, overlong="truncate"))
    assert len(kept) == 1 or all(p != s for p, s in kept["suffixes"])
    rows = Dataset.from_dict({"chosen": ["same", "b"], "rejected": ["same", "c"]})
    assert len(tokenize(rows, tokenizer, Options())) == 1
    assert "dropped 0 overlong, 1 identical" in capsys.readouterr().out


def test_rule_7_an_empty_result_is_an_error(tokenizer):
    """Fails if a max_length that drops every row trains on nothing."""
    with pytest.raises(UserError, match="nothing is left of 21 rows"):
        tokenize(make_pairs(), tokenizer, Options(max_length=2))


# ---- 8. one BOS, one EOS, no date ----


@pytest.mark.parametrize(
    "text", ["hello", "hello<|eos|>", "<|bos|>hello", "<|bos|>hello<|eos|>", "hello<|eos|><|eos|>"]
)
def test_rule_8_text_has_exactly_one_bos_and_eos(text, tokenizer):
    """Fails if special tokens are added blindly (doubled) or not at all."""
    ids = encode(tokenizer, "", text, {})
    assert ids.count(tokenizer.bos_token_id) == ids.count(tokenizer.eos_token_id) == 1
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_rule_8_a_chat_has_exactly_one_bos_and_one_final_eos(tokenizer):
    """Fails if the template's BOS meets the tokenizer's."""
    messages = [{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "hello"}]
    ids = encode(tokenizer, *messages, {})
    assert ids.count(tokenizer.bos_token_id) == ids.count(tokenizer.eos_token_id) == 1
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_rule_8_encoders_keep_cls_and_sep(minilm):
    """Fails if encoder text loses the tokens that its pooling reads."""
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    ids = encode(tokenizer, "a question ", "an answer", {})
    assert ids == tokenizer("a question an answer")["input_ids"]


def test_rule_8_a_template_that_prints_the_date_is_refused(tokenizer):
    """Fails if rewards may depend on the day. A pinned date is fine."""
    tokenizer.chat_template = (
        "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}" + tokenizer.chat_template
    )
    with pytest.raises(UserError, match="prints today's date"):
        refuse_dated_template(tokenizer, {})
    refuse_dated_template(tokenizer, {"date_string": "26 Jul 2024"})


def test_rule_8_training_and_scoring_render_with_the_same_function(tokenizer, tmp_path):
    """Fails if predict() on raw rows and training see different tokens."""
    pairs = make_pairs(5)
    trees = tokenize(pairs, tokenizer, Options(max_length=None))
    trainer = trainer_for(make_model(), tokenizer, tmp_path)
    assert torch.equal(rewards_of(trainer, trees), rewards_of(trainer, pairs))


# ---- 9. splits by prompt ----


def test_rule_9_splits_are_by_prompt(tokenizer):
    """Fails if rows of one prompt can fall on both sides."""
    from rmlab.data.sets import split_by_prompt

    rows = Dataset.from_dict(
        {
            "prompt": [f"prompt {n % 40} " for n in range(200)],
            "chosen": [f"good {n}" for n in range(200)],
            "rejected": [f"bad {n}" for n in range(200)],
        }
    )
    train, test = split_by_prompt(tokenize(rows, tokenizer, Options()), 0.25, seed=0)
    assert not set(train["prompt_id"]) & set(test["prompt_id"])
    assert len(train) + len(test) == 200
    again = split_by_prompt(tokenize(rows.shuffle(seed=1), tokenizer, Options()), 0.25, seed=0)[1]
    assert set(again["prompt_id"]) == set(test["prompt_id"])


def test_rule_9_evaluating_on_training_prompts_is_refused(tokenizer, pairs, tmp_path):
    """Fails if an evaluation set that shares prompts with the training set is accepted in silence."""
    overlapping = pairs.select(range(3))
    make = partial(trainer_for, make_model(), tokenizer, tmp_path, pairs)
    with pytest.raises(UserError, match="3 of 3 comparisons are on prompts of the training set"):
        make(overlapping)
    fresh = make_pairs(24).select(range(18, 24))  # three prompts of the training set, three new ones
    assert len(make(fresh, prompt_overlap="drop").eval_dataset) == 3
    assert len(make(fresh, prompt_overlap="allow").eval_dataset) == 6


# ---- 10. dropout ----


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_rule_10_dropout_is_off_functional_attention_dropout_included(kind, tokenizer, tmp_path):
    """Fails if only nn.Dropout modules are silenced: attention_dropout is an attribute passed to a function."""
    names = {"gpt2": ("attn_pdrop", "resid_pdrop", "embd_pdrop"), "opt": ("attention_dropout", "dropout")}
    names |= dict.fromkeys(("bert", "roberta"), ("attention_probs_dropout_prob", "hidden_dropout_prob"))
    names |= {"distilbert": ("attention_dropout", "dropout"), "modernbert": ("attention_dropout", "mlp_dropout")}
    options = dict.fromkeys(names.get(kind, ("attention_dropout",)), 0.5)
    batch = Padded.of([[1, *range(60, 80), 2]] * 2, 0)
    noisy = make_model(kind, **options).train()
    prepare_for_scoring(noisy)
    assert not torch.equal(score(noisy, batch), score(noisy, batch)), "dropout must be on before it can be off"
    quiet = trainer_for(make_model(kind, **options), tokenizer, tmp_path).model.train()
    assert torch.equal(score(quiet, batch), score(quiet, batch))


def test_rule_10_a_lora_dropout_that_was_asked_for_stays(tokenizer, tmp_path):
    """Fails if dropout is switched off after the adapter is made (TRL)."""
    from peft import LoraConfig

    trainer = trainer_for(make_model(), tokenizer, tmp_path, peft_config=LoraConfig(lora_dropout=0.5))
    found = {m.p for n, m in trainer.model.named_modules() if "lora_dropout" in n and hasattr(m, "p")}
    assert found == {0.5}


# ---- 11. loads elsewhere ----


def test_rule_11_a_pipeline_on_the_saved_model_returns_the_raw_reward(tokenizer, pairs, tmp_path):
    """Fails if problem_type is not "regression": pipelines then print the sigmoid."""
    trainer = trainer_for(make_model(), tokenizer, tmp_path)
    expected = rewards_of(trainer, pairs)[:, 0]
    trainer.save_model(str(tmp_path / "model"))
    serve = pipeline("text-classification", str(tmp_path / "model"))
    got = [serve(r["prompt"] + r["chosen"] + "<|eos|>")[0]["score"] for r in pairs]
    assert got == pytest.approx(expected.tolist(), abs=TOLERANCE)
    assert min(got) < 0 or max(got) > 1, "the test needs a reward that no sigmoid can print"
