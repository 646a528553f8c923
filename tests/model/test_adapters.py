"""Adapters train, save, reload and merge with the score head in them."""

import numpy as np
import pytest
import torch
from conftest import make_model, make_pairs, rewards_of, trainer_for
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from rmlab import UserError
from rmlab.model.adapters import PeftConfig
from rmlab.model.export import export

TOLERANCE = 1e-5


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
    export(trainer.model, tokenizer, tmp_path / "model")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert torch.allclose(rewards_of(trainer_for(merged, tokenizer, tmp_path), pairs), trained, atol=TOLERANCE)


def test_rule_5_a_peft_model_with_a_frozen_head_gets_a_trained_one(tokenizer, tmp_path):
    """Fails if a PeftModel built elsewhere keeps its random head frozen and unsaved."""
    from peft import LoraConfig

    model = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"]))
    trainer = trainer_for(model, tokenizer, tmp_path, make_pairs(8))
    assert any("score" in n and p.requires_grad for n, p in trainer.model.named_parameters())
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    from safetensors.torch import load_file

    assert any("score" in key for key in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))


def test_rule_5_an_adapter_on_the_head_is_refused(tokenizer, tmp_path):
    """Fails if LoRA on a random, unsaved head is accepted: the saved adapter could not be reloaded."""
    from peft import LoraConfig

    model = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj", "score"]))
    with pytest.raises(UserError, match="sits on the score head"):
        trainer_for(model, tokenizer, tmp_path)


def test_a_peft_model_with_a_peft_config_is_refused(tokenizer, tmp_path):
    from peft import LoraConfig

    model = get_peft_model(make_model(), LoraConfig(task_type="SEQ_CLS"))
    with pytest.raises(UserError, match="already is a PeftModel"):
        trainer_for(model, tokenizer, tmp_path, peft_config=LoraConfig())


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "prompt_tuning", "prefix_tuning"])
def test_peft_methods_train(method, tokenizer, tmp_path):
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


def test_a_peft_model_from_elsewhere_is_read_by_mask(tokenizer, tmp_path):
    """Its score head is wrapped, and it is a decoder all the same."""
    from peft import LoraConfig

    model = get_peft_model(make_model(), LoraConfig(task_type="SEQ_CLS"))
    trainer = trainer_for(model, tokenizer, tmp_path)
    rows = Dataset.from_list([{"chosen_ids": [1, 70, 71, tokenizer.pad_token_id], "rejected_ids": [1, 70, 71]}])
    chosen, rejected = trainer.predict(rows).predictions[0]
    assert abs(chosen - rejected) > 1e-3


def test_adapters_need_a_layer_to_sit_on(tokenizer, tmp_path):
    with pytest.raises(UserError, match="train_last_layers=0 leaves an adapter nothing"):
        trainer_for(make_model(), tokenizer, tmp_path, train_last_layers=0, peft_config=LoraConfig(r=4))
    trainer = trainer_for(make_model(), tokenizer, tmp_path, train_last_layers=1, peft_config=LoraConfig(r=4))
    adapted = [n for n, p in trainer.model.named_parameters() if p.requires_grad and "lora" in n]
    assert adapted
    assert all(".layers.1." in name for name in adapted)


def test_a_peft_node_becomes_a_config_of_its_library_or_names_what_is_wrong():
    assert PeftConfig.of({"method": "none"}).build() is None
    config = PeftConfig.of({"method": "lora", "quantization": {"load_in_4bit": True}, "r": 3, "target_modules": "x"})
    assert config.quantization == {"load_in_4bit": True}
    assert (config.build().r, config.build().task_type) == (3, "SEQ_CLS")
    with pytest.raises(UserError, match=r"peft.method: no 'lorra'; did you mean 'lora'\?"):
        PeftConfig.of({"method": "lorra"}).build()
    with pytest.raises(UserError, match=r"peft: .*rank"):
        PeftConfig.of({"method": "lora", "rank": 3}).build()
