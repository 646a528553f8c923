"""A reward model in a few lines of Python: a tiny model and a few rows, both made here; seconds on a CPU.

python examples/quickstart.py
"""

import tempfile

from datasets import Dataset
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from rmlab import RewardConfig, RewardTrainer
from rmlab.data.tokenizer import build_tokenizer

# Your own: model="Qwen/Qwen3-0.6B", and no processing_class.
tokenizer = build_tokenizer()
model = Qwen3ForSequenceClassification(
    Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_labels=1,
    )
)

NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivan", "Joy", "Kai", "Lena"]
TOPICS = ["rivers", "bread", "chess", "stars"]
rows = [
    {
        "prompt": f"{name} asks : tell me about {topic} . ",
        "chosen": f"Gladly , here is something about {topic} .",
        "rejected": f"Whatever , here is something about {TOPICS[n - 1]} .",
        "margin": 1.0,  # how strongly; leave the column out where you do not know
    }
    for name in NAMES
    for n, topic in enumerate(TOPICS)
]
split = Dataset.from_list(rows).train_test_split(test_size=0.25, seed=0)

with tempfile.TemporaryDirectory() as folder:
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            output_dir=folder,
            num_train_epochs=10,
            learning_rate=3e-3,
            per_device_train_batch_size=12,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=split["train"],
        eval_dataset=split["test"],
        processing_class=tokenizer,
        loss={"bradley_terry": {"margin": 0.0}, "center": {"weight": 0.01}},
    )
    trainer.train()
    metrics = trainer.evaluate()
    rewards = trainer.predict(split["test"]).predictions  # (rows, 2): chosen and rejected

print(f"held-out accuracy {metrics['eval_accuracy']:.3f}, nll {metrics['eval_nll']:.3f}")
print(f"first row: chosen {rewards[0, 0]:.2f}, rejected {rewards[0, 1]:.2f}")
