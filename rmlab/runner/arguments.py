"""The arguments of the trainer, from all nodes of the config that say something of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rmlab.messages import UserError, first_line
from rmlab.model.positions import taken_by, tell_shorter, usable_length
from rmlab.runner.config import Config, LoggerConfig
from rmlab.runner.directory import RunDirectory

if TYPE_CHECKING:  # which imports torch
    from rmlab.training.config import RewardConfig


def reward_config(config: Config, out: RunDirectory) -> "RewardConfig":
    """The RewardConfig of a run; what its constructor refuses is a UserError naming the key."""
    trainer = {k: v for k, v in config.trainer.items() if k != "data_seed"}
    try:
        return arguments_of(config, out, trainer)
    except UserError:
        raise
    except Exception as error:  # of whatever kind: its fields are checked in many ways
        causes = [k for k in trainer if is_taken(config, out, {key: v for key, v in trainer.items() if key != k})]
        raise UserError(f"trainer{f'.{causes[0]}' if causes else ''}: {first_line(error)}") from error


def with_length(config: Config, architecture: Mapping[str, Any]) -> Config:
    """The config with the number of tokens that `data.max_length: auto` stands for; a line where that is below 1024.

    architecture: the whole config of a model without a checkpoint.
    """
    model, asked = config.model, config.data.max_length
    taken = taken_by(architecture if model.path is None else model.of_base().checkpoint_file("config.json"))
    tell_shorter(asked, taken, model.path or "the architecture of model.config")
    return replace(config, data=replace(config.data, max_length=usable_length(asked, taken)))


def is_taken(config: Config, out: RunDirectory, trainer: Mapping[str, Any]) -> bool:
    """Whether these values of the trainer node make arguments."""
    try:
        arguments_of(config, out, trainer)
    except Exception:
        return False
    return True


def arguments_of(config: Config, out: RunDirectory, trainer: Mapping[str, Any]) -> "RewardConfig":
    """`reward_config`, with these values of the trainer node."""
    from rmlab.training.config import RewardConfig

    data = config.data
    return RewardConfig(
        output_dir=str(out.checkpoints),
        seed=config.seed,
        data_seed=config.trainer.get("data_seed", config.seed),
        report_to=LoggerConfig.of(config.logger).report_to,
        run_name=out.name,
        max_length=data.max_length,
        overlong=data.overlong,
        identical=data.identical,
        duplicates=data.duplicates,
        empty=data.empty,
        prompt_overlap=data.prompt_overlap,
        pair_weighting=data.pair_weighting,
        group_by_prompt=data.group_by_prompt,
        layout=config.scoring.layout,
        train_last_layers=config.model.train_last_layers,
        cache_dir=None if config.run.cache is None else str(config.run.cache),
        feature_cache_gb=config.run.feature_cache_gb,
        dataset_num_proc=config.run.num_proc,
        save_frozen="checkpoints" in config.run.keep,
        **trainer,
    )
