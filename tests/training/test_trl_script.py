"""The script that TRL ships for reward modelling: with its two imports changed it runs, and trains the same."""

import json
import sys
from pathlib import Path

import pytest
from conftest import make_model, make_pairs

trl = pytest.importorskip("trl", reason="TRL is a development dependency, the parity oracle")

OURS = {
    "from trl import RewardTrainer, ": "from rmlab import RewardTrainer\n    from trl import ",
    "from trl import DatasetMixtureConfig, ModelConfig, RewardConfig, ": (
        "from rmlab import RewardConfig\n    from trl import DatasetMixtureConfig, ModelConfig, "
    ),
}
SETTINGS = """
model_name_or_path: {folder}/base
dataset_name: {folder}/rows
output_dir: {folder}/{name}
use_peft: true
lora_task_type: SEQ_CLS
lora_r: 4
lora_dropout: 0.0
lora_target_modules: all-linear
lora_modules_to_save: [score]
per_device_train_batch_size: 4
per_device_eval_batch_size: 4
learning_rate: 0.01
num_train_epochs: 2
train_sampling_strategy: sequential
model_init_kwargs: '{{"attn_implementation": "sdpa"}}'
eval_strategy: steps
eval_steps: 3
logging_steps: 1
bf16: false
use_cpu: true
report_to: none
"""


def script(name):
    """The source of TRL's script; for rmlab with the two names imported from it."""
    source = (Path(trl.__file__).parent / "scripts" / "reward.py").read_text(encoding="utf-8")
    for old, new in OURS.items() if name == "rmlab" else ():
        assert old in source
        source = source.replace(old, new, 1)
    return source


def history(name, folder, monkeypatch):
    """What the trainer of that name logs."""
    config = folder / f"{name}.yaml"
    config.write_text(SETTINGS.format(folder=folder, name=name), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["reward.py", "--config", str(config)])
    monkeypatch.setattr(trl.RewardTrainer, "create_model_card", lambda *_, **__: None)  # it asks the network
    exec(compile(script(name), f"reward_{name}.py", "exec"), {"__name__": "__main__"})
    (state,) = (folder / name).glob("checkpoint-*/trainer_state.json")
    return json.loads(state.read_text(encoding="utf-8"))["log_history"]


def test_trls_own_script_runs_with_two_imports_changed_and_logs_the_same_losses(tokenizer, tmp_path, monkeypatch):
    make_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "rows").mkdir()
    make_pairs(12).to_parquet(tmp_path / "rows" / "train.parquet")
    make_pairs(20).select(range(12, 20)).to_parquet(tmp_path / "rows" / "test.parquet")
    logs = {name: history(name, tmp_path, monkeypatch) for name in ("trl", "rmlab")}
    for key, count in (("loss", 6), ("eval_loss", 2)):
        theirs, ours = ([entry[key] for entry in logs[name] if key in entry] for name in ("trl", "rmlab"))
        print(key, *zip(theirs, ours, strict=True), sep="\n")
        assert len(theirs) == count
        assert ours == pytest.approx(theirs, abs=1e-5)
    for name in ("trl", "rmlab"):
        assert (tmp_path / name / "adapter_model.safetensors").exists()
