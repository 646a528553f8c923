"""What scripts begin with: arguments, and an adapter that an earlier one has left."""

from conftest import make_model, make_pairs, rewards_of
from peft import LoraConfig

from rmlab import RewardConfig, RewardTrainer
from rmlab.model.export import export

LORA = {"r": 4, "target_modules": "all-linear"}


def arguments(tmp_path, **options):
    return RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, save_strategy="no", **options)


def saved_adapter(tokenizer, tmp_path):
    """Trained: (folder of the adapter, of the model that it is merged into, rewards of `make_pairs(5, seed=3)`)."""
    make_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    trainer = RewardTrainer(
        str(tmp_path / "base"), arguments(tmp_path, learning_rate=0.01, max_steps=3), train_dataset=make_pairs(12),
        processing_class=tokenizer, peft_config=LoraConfig(**LORA),
    )  # fmt: skip
    trainer.train()
    rewards = rewards_of(trainer, make_pairs(5, seed=3))
    export(trainer.model, tokenizer, tmp_path / "out" / "model")
    return tmp_path / "out" / "adapter", tmp_path / "out" / "model", rewards
