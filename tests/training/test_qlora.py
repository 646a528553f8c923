"""QLoRA: a body in 4 bits keeps the fast layout, trains, and leaves an adapter that others load."""

import pytest
import torch
from conftest import make_model, make_pairs, rewards_of
from peft import LoraConfig
from transformers import BitsAndBytesConfig

from rmlab import RewardConfig, RewardTrainer
from rmlab.model.export import export

pytest.importorskip("bitsandbytes", reason="it is not among the dependencies")
FOUR_BITS = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16,
)  # fmt: skip
LARGER = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}  # or nothing in it would be quantised


@pytest.mark.slow
@pytest.mark.parametrize("layers", [2, 8])
def test_four_bits_keep_the_fast_layout_and_give_an_adapter(layers, tokenizer, tmp_path, capsys):
    make_model(num_hidden_layers=layers, **LARGER).save_pretrained(tmp_path / "base")
    args = RewardConfig(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, max_steps=2, save_strategy="no", learning_rate=1e-3
    )
    trainer = RewardTrainer(
        str(tmp_path / "base"), args, train_dataset=make_pairs(16), processing_class=tokenizer,
        quantization_config=FOUR_BITS, peft_config=LoraConfig(r=4, target_modules="all-linear"),
    )  # fmt: skip
    trainer.train()
    assert trainer.layout == "shared_prefix", capsys.readouterr().out
    assert trainer.model.base_model.model.score.weight.dtype == torch.float32
    rewards = rewards_of(trainer, make_pairs(4, seed=3))
    export(trainer.model, tokenizer, tmp_path / "model")
    assert "is not merged into its base model" in capsys.readouterr().out
    again = RewardTrainer(str(tmp_path / "adapter"), args, quantization_config=FOUR_BITS)
    assert torch.allclose(rewards_of(again, make_pairs(4, seed=3)), rewards, atol=1e-5)
