"""A run that begins where another has ended: `model.init_from`, the other's run directory."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from rmlab.messages import UserError
from rmlab.model.config import ModelConfig
from rmlab.model.identity import model_folder
from rmlab.runner.config import Config, computed
from rmlab.runner.directory import RunDirectory

SAME = ("path", "revision", "config", "tokenizer")  # of the model node, which both runs name alike


def begun(model: ModelConfig) -> ModelConfig:
    """The model that the run of `init_from` has kept; where that is null, the same.

    UserError for a run that is not finished, has kept no model, or is of another model than the config names.
    """
    if model.init_from is None:
        return model
    run, where = RunDirectory.of(Path(model.init_from).expanduser()), f"model.init_from: {model.init_from}"
    if not run.is_run:
        raise UserError(f"{where} is no run directory; name one of runs/STUDY/")
    if not run.is_finished:
        raise UserError(f"{where} is {run.state}, not finished; train it to its end first")
    other = Config.of(run.config()).model
    for key in SAME:
        if (here := getattr(model, key)) != (there := getattr(other, key)):
            raise UserError(f"{where} has model.{key}={there!r}, this run {here!r}; choose the same model for both")
    return replace(model, path=model_folder(run.path), revision=None, config={}, tokenizer=None)


def with_beginning(config: Config) -> Config:
    """The config with what made the run that it begins from, its seed apart; as it is where that cannot be read."""
    if config.model.init_from is None:
        return config
    try:
        other = RunDirectory.of(Path(config.model.init_from).expanduser()).config()
        made = {key: value for key, value in computed(other).items() if key != "seed"}
        name = other["run"]["name"]
    except (UserError, KeyError, AttributeError, TypeError):
        return config
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]
    return replace(config, run=replace(config.run, began=f"{name}-{digest}"))
