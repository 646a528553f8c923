"""Dropout is off, wherever an architecture keeps it."""

import pytest
import torch
from conftest import ARCHITECTURES, make_model, trainer_for

from rmlab.scoring.batch import Padded
from rmlab.scoring.heads import prepare_for_scoring, score


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
