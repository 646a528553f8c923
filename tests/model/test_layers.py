"""Which layers are trained, and that the others are not."""

import pytest
from conftest import make_model, trainer_for

from rmlab import UserError
from rmlab.model.layers import first_trained_layer, layers_of


def test_more_layers_than_there_are_cannot_be_trained(tokenizer, tmp_path):
    with pytest.raises(UserError, match="train_last_layers=3 is more than the model's 2 layers"):
        trainer_for(make_model(), tokenizer, tmp_path, train_last_layers=3)


def test_norms_after_the_layers_are_trained_with_the_last_of_them(tokenizer, tmp_path):
    for kind in ("llama", "gpt2", "gpt_neox", "opt", "phi", "gemma3_text"):
        model = trainer_for(make_model(kind), tokenizer, tmp_path, train_last_layers=1).model
        inside = {id(p) for p in layers_of(model).parameters()}
        trained = {n for n, p in model.named_parameters() if p.requires_grad and id(p) not in inside}
        assert any("norm" in name or "ln_f" in name for name in trained), kind
        assert not any("embed" in name or "wte" in name for name in trained), kind
        assert first_trained_layer(model) == 1
