"""A reward modelling script for TRL 1.16, moved to rmlab: the two names imported below are all that changed.

python examples/trl_to_rmlab.py

The model and the rows are made here, so that it runs anywhere in seconds; a real script loads both from the hub.
"""

import tempfile

from datasets import Dataset
from peft import LoraConfig
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from rmlab import RewardConfig, RewardTrainer  # changed: from trl import RewardConfig, RewardTrainer
from rmlab.data.tokenizer import build_tokenizer


def make_rows(start, count):
    return [
        {
            "chosen": [
                {"role": "user", "content": f"Question {n} about rivers"},
                {"role": "assistant", "content": "Gladly , here is something about rivers ."},
            ],
            "rejected": [
                {"role": "user", "content": f"Question {n} about rivers"},
                {"role": "assistant", "content": "Ugh , fine ."},
            ],
        }
        for n in range(start, start + count)
    ]


def main():
    tokenizer = build_tokenizer()
    model = Qwen3ForSequenceClassification(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_labels=1,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        training_args = RewardConfig(
            output_dir=folder,
            num_train_epochs=3,
            per_device_train_batch_size=8,
            learning_rate=1e-3,
            bf16=False,
            max_length=128,
            center_rewards_coefficient=0.01,
            eval_strategy="epoch",
            save_strategy="no",
            logging_steps=5,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = RewardTrainer(
            model=model,
            args=training_args,
            train_dataset=Dataset.from_list(make_rows(0, 40)),
            eval_dataset=Dataset.from_list(make_rows(40, 8)),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", modules_to_save=["score"]),
        )
        trainer.train()
        metrics = trainer.evaluate()
    print({key: round(value, 3) for key, value in metrics.items() if key in ("eval_loss", "eval_accuracy")})


if __name__ == "__main__":
    main()
