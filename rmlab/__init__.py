"""rmlab: the lab bench for reward models. `from rmlab import RewardTrainer, RewardConfig`."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public names and their homes, imported on first use: `rmlab --help` must not wait for torch.
_HOMES = {
    "RewardTrainer": "rmlab.training.trainer",
    "RewardConfig": "rmlab.training.config",
    "Preferences": "rmlab.losses",
    "LOSSES": "rmlab.losses",
    "HEADS": "rmlab.heads",
    "Head": "rmlab.heads",
    "DATASETS": "rmlab.data",
    "Comparison": "rmlab.data",
    "Preference": "rmlab.data",
    "RewardModel": "rmlab.scoring.reward_model",
    "Ensemble": "rmlab.scoring.ensemble",
    "reward_function": "rmlab.scoring.reward_function",
    "whole_model": "rmlab.model.export",
    "ensemble_of_study": "rmlab.lab.members",
    "average_weights": "rmlab.lab.average",
    "UserError": "rmlab.messages",
    "run": "rmlab.runner.run",
}
# What a TRL script imports together with RewardTrainer and RewardConfig, which are to be imported apart.
_TRLS = {
    "ScriptArguments",
    "ModelConfig",
    "get_peft_config",
    "get_quantization_config",
    "get_kbit_device_map",
    "TrlParser",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _TRLS:
        raise ImportError(f"{name} is TRL's own and works with rmlab: from trl import {name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'rmlab' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
