"""One run: check, snapshot, train (or resume), evaluate, keep. Works without Hydra: `run(config, directory)`."""

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab.data import Tokenizer
from rmlab.data.config import DataConfig
from rmlab.messages import UserError, is_first_rank, say
from rmlab.model.config import ModelConfig, check_architecture
from rmlab.registry import import_plugins
from rmlab.runner.arguments import reward_config, with_length
from rmlab.runner.begin import begun, with_beginning
from rmlab.runner.check import build_loss, check_first_rows, check_outputs, check_run, check_templates
from rmlab.runner.config import Config, computed
from rmlab.runner.curves import history, last_train_logs
from rmlab.runner.directory import BusyError, RunDirectory, objective
from rmlab.runner.environment import changed_since, describe_environment, fingerprints
from rmlab.runner.keep import forget_checkpoints, keep_model, keeps_model, tidy
from rmlab.runner.resume import full_disk, on_first_rank, refuse_other_run, start_afresh_if_needed
from rmlab.runner.suites import Read, read_suites, score_suites
from rmlab.runner.summary import print_table
from rmlab.runner.tracking import track_metrics, tracked
from rmlab.runner.trained import add_suites, tell_suites, tell_training_prompts, trained_model
from rmlab.secrets import masked, secrets_of

if TYPE_CHECKING:  # which take seconds to import; a run says its name before
    from peft import PeftConfig

    from rmlab.data.sets import Rows, Sets
    from rmlab.data.trees import Trees
    from rmlab.losses import Term
    from rmlab.scoring.reward_model import RewardModel
    from rmlab.training.config import RewardConfig


@dataclass(frozen=True)
class Checked:
    """A run that has passed every check that needs no model: its rows, and what its config was made into."""

    rows: "Rows"
    data: DataConfig  # whose max_length is a number
    model: ModelConfig  # where it begins
    loss: list["Term"]
    args: "RewardConfig"
    peft: "PeftConfig | None"  # of the peft library
    suites: list[Read]


def run(config: Mapping[str, Any], out: Path | str) -> dict[str, Any]:
    """Train and evaluate the run of a resolved config in directory `out`; returns its metrics and `objective`.

    A finished run (metrics.json is there) is skipped; a killed one resumes from its last whole checkpoint. Raises
    UserError before a model is loaded, for a bad config, file or row, and BusyError where another process trains
    this run. What was raised also stands in `out`/error.txt, if there is such a directory.
    """
    directory = RunDirectory.of(out)
    try:
        metrics = check_and_run(Config.of(config), directory)
    except BusyError:
        raise
    except Exception as error:
        told = full_disk(error, directory) or error
        if directory.path.is_dir():
            with contextlib.suppress(UserError):  # the disk may be full
                directory.write_error(told)
        if told is error:
            raise
        raise told from error
    return {**metrics, "objective": objective(metrics)}


def check_and_run(config: Config, out: RunDirectory) -> dict[str, Any]:
    """The metrics of the run; of a finished one those that it kept. Checks come before the directory is locked."""
    import_plugins(config.plugins)
    check_run(config)
    config = with_beginning(config)
    inputs = fingerprints(config)
    if not config.run.redo:
        refuse_other_run(config, out)
    if out.is_finished and not config.run.redo:
        metrics = finished(config, out, inputs)
        add_suites(config, out, out.locked())
        return metrics
    out.refuse_if_busy()
    say(f"run {out}")
    checked = check(config, out)
    with contextlib.ExitStack() as stack, threads(config.run.threads):
        found = on_first_rank(lambda: take_over(config, out, inputs, stack))
        return found or train_here(config, out, inputs, checked)


def take_over(
    config: Config, out: RunDirectory, inputs: Mapping[str, str], stack: contextlib.ExitStack
) -> dict[str, Any] | None:
    """Lock the directory until `stack` ends, and leave in it only what this run may go on from.

    Returns the metrics of a run that another process has finished meanwhile, else None.
    """
    stack.enter_context(out.locked())
    if out.is_finished and not config.run.redo:
        return finished(config, out, inputs)
    start_afresh_if_needed(out, inputs)
    out.forget_error()
    return None


def check(config: Config, out: RunDirectory) -> Checked:
    """From fast to slow: files are read in less time than torch is imported for the loss, generators take more.

    Where the loss reads columns of the rows, they are read again with those.
    """
    from rmlab.data.sets import load_rows

    config = replace(config, model=begun(config.model))
    check_first_rows(config)
    rows = None if config.data.generated else load_rows(config.data)
    loss, columns = build_loss(config)
    rows = load_rows(config.data, columns) if rows is None or columns else rows
    check_outputs(rows, columns, config.model)
    check_templates(config.model, rows)
    suites = read_suites(config.eval, config.model)
    ready = with_length(config, check_architecture(config.model.config))

    from rmlab.model.adapters import PeftConfig

    args = reward_config(ready, out)
    args.reads = columns
    return Checked(rows, ready.data, config.model, loss, args, PeftConfig.of(config.peft).build(), suites)


def train_here(config: Config, out: RunDirectory, inputs: dict[str, str], checked: Checked) -> dict[str, Any]:
    """The run itself, in a directory that is ours alone."""
    from rmlab.data.sets import build_sets
    from rmlab.model.tokenizer import load_tokenizer
    from rmlab.training.prepare import prepare_sets

    whole = config.as_dict()
    out.write_config(config.as_written())
    data = checked.rows.fingerprints()
    started = time.time()
    environment = {
        **describe_environment(),
        "started": round(started, 3),
        "inputs": inputs,
        "data": data,
        "config": computed(whole),
    }
    environment = masked(environment, secrets_of(whole))
    out.write_environment(environment)
    tokenizer = load_tokenizer(checked.model)
    sets = build_sets(checked.rows, checked.data, tokenizer, config.run.cache, config.run.num_proc)
    sets = prepare_sets(sets, tokenizer, checked.args)
    warn_about_margin(config.loss, sets.train)
    tell_training_prompts(checked.suites, sets.train)
    try:
        with tracked(config, out) as tracker:
            metrics, model = train_and_evaluate(config, out, checked, tokenizer, sets)
            track_metrics(tracker, metrics)
            seconds = time.time() - started
            scored, keeps = partial(score_suites, checked.suites, out, model, again=True), keeps_model(config)
            suites = {} if keeps else scored()  # killed in them, it is resumed; a finished run has no model for them
            out.write_environment({**environment, "seconds": round(seconds, 1), "files": out.marks(metrics)})
            out.write_metrics(metrics)
            forget_checkpoints(out)
            if is_first_rank():
                print_table(metrics, out, seconds)
            tell_suites(scored() if keeps else suites, tracker)
            del model, scored
    finally:
        free_memory()
    return metrics


def train_and_evaluate(
    config: Config, out: RunDirectory, checked: Checked, tokenizer: Tokenizer, sets: "Sets"
) -> tuple[dict[str, Any], Callable[[], "RewardModel"]]:
    """The metrics of a run, {"eval": {set: {...}}, "train": {...}}, and what gives its model to suites.

    model/, scores/ and checkpoints/ are in `out`.
    """
    from transformers.utils import logging as hf_logging

    from rmlab.metrics.diagnostics import diagnose
    from rmlab.model.adapters import PeftConfig
    from rmlab.model.head import names_of
    from rmlab.model.load import load_model
    from rmlab.training.checkpoints import train_or_resume
    from rmlab.training.interruption import Interruption
    from rmlab.training.trainer import RewardTrainer

    hf_logging.disable_progress_bar()  # of loading and saving weights; training keeps its own
    interruption = Interruption()
    trainer = RewardTrainer(
        model=load_model(checked.model, config.seed, PeftConfig.of(config.peft).quantization),
        args=checked.args,
        train_dataset=sets.train,
        eval_dataset=(sets.eval["eval"] if list(sets.eval) == ["eval"] else sets.eval) or None,
        processing_class=tokenizer,
        peft_config=checked.peft,
        loss=checked.loss,
        callbacks=[interruption],
    )
    with interruption:
        train_or_resume(trainer)
    interruption.end()
    metrics: dict[str, Any] = {"eval": {}, "train": last_train_logs(trainer)}
    curves = history(trainer)  # as it is now: the last evaluation is not a point of the curve
    if sets.eval:
        trainer.evaluate()
    for name in sets.eval:
        scored = trainer.evaluations[name]
        metrics["eval"][name] = {**scored.metrics, "diagnostics": diagnose(scored.comparisons)}
        out.write_scores(name, scored.comparisons, names_of(trainer.head))
    if trainer.is_world_process_zero():
        out.write_history(curves)
    if keeps_model(config):
        keep_model(config, out, trainer, tokenizer)
    return metrics, partial(trained_model, config, out, trainer, tokenizer)


# ---- before and after ----


def finished(config: Config, out: RunDirectory, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The metrics of a finished run; says so, and warns when other code, packages or data made them.

    A W&B sweep agent, which counts on a W&B run, gets one with its results.
    """
    say(f"skipped {out}: it is finished (run.redo=true trains it again)")
    changed = changed_since(out.environment(), inputs)
    if changed:
        say(f"warning: {out} was made by other {' and '.join(changed)} than is here now; run.redo=true to redo it")
    tidy(out)
    restore_config(config, out)
    metrics = out.metrics()
    if os.environ.get("WANDB_SWEEP_ID"):
        with tracked(config, out) as tracker:
            track_metrics(tracker, metrics)
    return metrics


def restore_config(config: Config, out: RunDirectory) -> None:
    """Write config.yaml again where it is damaged, or was changed since: its run was trained with this one."""
    try:
        kept = out.config()
    except UserError:
        kept = {}
    now = config.as_written()
    if kept.keys() != now.keys() or computed(kept) != computed(now):
        say(f"the config.yaml of {out} is not what was trained; it is written again")
        out.write_config(now)


@contextlib.contextmanager
def threads(number: int | None) -> Iterator[None]:
    """CPU threads of torch for one run: rounding, and so the numbers, depend on how work is shared out."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def warn_about_margin(loss: Mapping[str, Any], train: "Trees | None") -> None:
    """A margin without strengths in the data is a constant margin: legal, and rarely what was meant."""
    if not (loss.get("bradley_terry") or {}).get("margin") or train is None or not hasattr(train, "__len__"):
        return
    from rmlab.data.counts import values

    if all(strength == 1.0 for row in values(train, "strength") for strength in row):
        say(
            "warning: loss.bradley_terry.margin is set, but no row states a strength (a margin column, scores or "
            "votes); every pair gets the same margin"
        )


def free_memory() -> None:
    """Give the model's memory back before the next run of a multirun in this process."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
