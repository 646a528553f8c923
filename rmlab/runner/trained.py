"""The model of a run for benchmark suites: in memory at the end of training, later the one that was kept."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rmlab.data import Tokenizer
from rmlab.messages import is_first_rank, say
from rmlab.runner.config import Config
from rmlab.runner.directory import RunDirectory
from rmlab.runner.suite_tables import print_totals
from rmlab.runner.suites import Read, outstanding, read_suites, score_suites
from rmlab.runner.tracking import track_suites

if TYPE_CHECKING:  # which import torch or datasets
    from rmlab.data.trees import Trees
    from rmlab.scoring.reward_model import RewardModel
    from rmlab.training.trainer import RewardTrainer


def trained_model(config: Config, out: RunDirectory, trainer: "RewardTrainer", tokenizer: Tokenizer) -> "RewardModel":
    """The model as it was trained; where its weights are spread over processes, as it was kept."""
    from rmlab.scoring.reward_model import RewardModel

    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return saved_model(config, out)
    model = trainer.accelerator.unwrap_model(trainer.model)
    return RewardModel.of(model, tokenizer, chat_template_kwargs=config.data.chat_template_kwargs)


def saved_model(config: Config, out: RunDirectory) -> "RewardModel":
    """The model that the run has kept. UserError if it has kept none."""
    from rmlab.scoring.reward_model import RewardModel

    return RewardModel(str(out), dtype=config.model.dtype, trust_remote_code=config.model.trust_remote_code)


def add_suites(config: Config, out: RunDirectory, lock: contextlib.AbstractContextManager[None]) -> None:
    """Score what a finished run has not been scored on, with the model that it has kept. lock: its directory's."""
    suites = read_suites(config.eval, config.model)
    if all(suite.is_finished(out) for suite in suites) and not outstanding(config.eval, out):
        return
    with lock:
        tell_suites(score_suites(suites, out, partial(saved_model, config, out)))
        out.forget_error()


def tell_training_prompts(suites: Sequence[Read], train: "Trees | None") -> None:
    """A line for each suite with prompts that are trained on; of streams nobody knows."""
    from datasets import Dataset

    from rmlab.data.counts import values

    if not suites or not isinstance(train, Dataset) or "prompt_id" not in train.column_names:
        return
    wanted = frozenset().union(*(suite.prompts for suite in suites))
    trained = {prompt for prompt in values(train, "prompt_id") if prompt in wanted}
    for suite in suites:
        if shared := len(suite.prompts & trained):
            say(f"warning: suite {suite.name}: {shared:,} of {len(suite.prompts):,} prompts are trained on too")


def tell_suites(results: Mapping[str, Mapping[str, Any]], tracker: Any = None) -> None:
    """Print what suites say, and tell W&B."""
    if results and is_first_rank():
        print_totals(results)
        track_suites(tracker, results)
