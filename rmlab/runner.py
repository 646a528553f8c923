"""One run: check, snapshot, train (or resume), evaluate, keep. Works without Hydra: `run(config, directory)`."""

import contextlib
import gc
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rmlab.config import check_config_keys, computed, validate
from rmlab.data.prepare import Options
from rmlab.data.sets import Rows, build_sets, load_rows
from rmlab.environment import describe_environment, fingerprints
from rmlab.messages import UserError, is_first_rank, say
from rmlab.registry import import_plugins
from rmlab.rundir import (
    BusyError,
    locked,
    read_json,
    skip,
    with_objective,
    write_config,
    write_error,
    write_json,
)


def run(config: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Train and evaluate the run of a resolved config in directory `out`; returns its metrics and `objective`.

    A finished run (metrics.json is there) is skipped; a killed one resumes from its last whole checkpoint. Raises
    UserError before a model is loaded, for a bad config, file or row, and BusyError where another process trains
    this run. What was raised also stands in `out`/error.txt, if there is such a directory.
    """
    out = Path(os.path.relpath(out))  # what is printed can be typed
    try:
        return check_and_run(config, out)
    except BusyError:
        raise
    except Exception as error:
        if out.is_dir():
            write_error(error, out)
        raise


def check_and_run(config: Mapping[str, Any], out: Path) -> dict[str, Any]:
    import_plugins(config["plugins"])
    validate(config)
    inputs = fingerprints(config)
    if (out / "metrics.json").exists() and not config["run"]["redo"]:
        return finished(config, out, inputs)
    options = data_options(config["data"])
    # From fast to slow: files are read in less time than torch is imported for the loss, generators take more.
    generated = any(spec.get("source") != "load" for spec in config["data"]["train"].values())
    if generated:
        check_loss(config["loss"])
    rows = load_rows(config["data"], options)
    check_loss(config["loss"])
    check_config_keys(config["model"]["config"])

    from rmlab import adapters

    args, peft_config = reward_config(config, out), adapters.build_peft(config["peft"])
    with locked(out), threads(config["run"].get("threads")):
        if (out / "metrics.json").exists() and not config["run"]["redo"]:  # another process was faster
            return finished(config, out, inputs)
        return train_here(config, out, inputs, rows, args, peft_config)


def train_here(
    config: Mapping[str, Any], out: Path, inputs: dict[str, str], rows: Rows, args: Any, peft_config: Any
) -> dict[str, Any]:
    """The run itself, in a directory that is ours alone."""
    from rmlab import model as models

    start_afresh_if_needed(out, inputs)
    (out / "error.txt").unlink(missing_ok=True)
    write_config(config, out)
    data = {f"{part}/{name}": getattr(d, "_fingerprint", None) for part in rows for name, d in rows[part].items()}
    environment = {**describe_environment(), "inputs": inputs, "data": data, "config": computed(config)}
    write_json(out / "environment.json", environment)
    say(f"run {out}")
    started = time.time()
    tokenizer = models.load_tokenizer(config["model"])
    if tokenizer.pad_token is None:
        raise UserError("the tokenizer has no pad token; set model.pad_token, for example model.pad_token='<|pad|>'")
    cache = config["run"]["cache_dir"]
    cache = None if cache is None else Path(cache).expanduser()
    options = data_options(config["data"])
    train, sets = build_sets(rows, config["data"], tokenizer, options, cache, config["run"]["num_proc"])
    warn_about_margin(config["loss"], train)
    try:
        with logger(config, out) as tracker:
            metrics = train_and_evaluate(config, out, args, peft_config, tokenizer, train, sets)
            if tracker is not None:
                log_table(tracker, metrics)
    finally:
        free_memory()
    write_json(out / "environment.json", {**environment, "seconds": round(time.time() - started, 1)})
    write_json(out / "metrics.json", metrics)  # last, atomically: its presence means done
    if is_first_rank():
        print_table(metrics, out, time.time() - started)
    return with_objective(metrics)


def finished(config: Mapping[str, Any], out: Path, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Skip a finished run; a W&B sweep agent, which counts on a W&B run, gets one with its results."""
    metrics = skip(out, inputs)
    if os.environ.get("WANDB_SWEEP_ID"):
        with logger(config, out) as tracker:
            if tracker is not None:
                log_table(tracker, metrics)
    return metrics


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


def train_and_evaluate(
    config: Mapping[str, Any], out: Path, args: Any, peft_config: Any, tokenizer: Any, train: Any, sets: dict[str, Any]
) -> dict[str, Any]:
    """The metrics of a run: {"eval": {set: {...}}, "train": {...}}; model/, scores/ and checkpoints/ are in `out`."""
    from transformers import set_seed
    from transformers.utils import logging as hf_logging

    from rmlab import adapters
    from rmlab import model as models
    from rmlab.checkpoints import MarkWhole, last_whole_checkpoint, train_or_resume
    from rmlab.metrics import evaluate
    from rmlab.trainer import RewardTrainer

    hf_logging.disable_progress_bar()  # of loading and saving weights; training keeps its own
    set_seed(args.seed)  # a random head is the same for the same seed
    model = models.load_model(config["model"], config["model"]["quantization"] or config["peft"].get("quantization"))
    trainer = RewardTrainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=(sets["eval"] if list(sets) == ["eval"] else sets) or None,
        processing_class=tokenizer,
        peft_config=peft_config,
        loss=config["loss"],
        callbacks=[MarkWhole()],
    )
    train_or_resume(trainer, last_whole_checkpoint(out / "checkpoints"))
    metrics: dict[str, Any] = {"eval": {}, "train": last_train_logs(trainer)}
    curves = history(trainer)  # as it is now: the last evaluation is not a point of the curve
    if sets:
        trainer.evaluate()
    for name in sets:
        items = trainer.scores[name]
        metrics["eval"][name] = evaluate(items)
        if trainer.is_world_process_zero():
            write_scores(items, out / "scores" / f"{name}.parquet")
    if trainer.is_world_process_zero():
        write_json(out / "history.json", curves)
        adapters.export(trainer.accelerator.unwrap_model(trainer.model), tokenizer, out / "model")
    return metrics


def check_loss(loss: Mapping[str, Any]) -> None:
    from rmlab.losses import build_loss

    build_loss(loss)


def data_options(data: Mapping[str, Any]) -> Options:
    return Options(data["max_length"], data["overlong"], data["identical"], data["chat_template_kwargs"])


def reward_config(config: Mapping[str, Any], out: Path) -> Any:
    """The RewardConfig of a run; what its constructor refuses is a UserError."""
    from rmlab.reward_config import RewardConfig

    data = config["data"]
    if config["logger"]["report_to"] == "tensorboard":
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(out / "tensorboard")
    try:
        return RewardConfig(
            output_dir=str(out / "checkpoints"),
            seed=config["seed"],
            data_seed=config["trainer"].get("data_seed", config["seed"]),
            report_to=config["logger"]["report_to"],
            run_name=out.name,
            max_length=data["max_length"],
            overlong=data["overlong"],
            identical=data["identical"],
            prompt_overlap=data["prompt_overlap"],
            pair_weighting=data["pair_weighting"],
            group_by_prompt=data["group_by_prompt"],
            layout=config["scoring"]["layout"],
            train_layers=config["model"]["train_layers"],
            cache_dir=config["run"]["cache_dir"],
            feature_cache_gb=config["run"]["feature_cache_gb"],
            dataset_num_proc=config["run"]["num_proc"],
            **{k: v for k, v in config["trainer"].items() if k != "data_seed"},
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"trainer: {error}") from error


def warn_about_margin(loss: Mapping[str, Any], train: Any) -> None:
    """A margin without strengths in the data is a constant margin: legal, and rarely what was meant."""
    if not loss.get("bradley_terry", {}).get("margin") or not hasattr(train, "__len__"):
        return
    if all(strength == 1.0 for row in train["strength"] for strength in row):
        say(
            "warning: loss.bradley_terry.margin is set, but no row states a strength (a margin column, scores or "
            "votes); every pair gets the same margin"
        )


# ---- results ----


def last_train_logs(trainer: Any) -> dict[str, Any]:
    """The last window of training metrics; Trainer's own totals would forget what ran before a resume."""
    windows = [entry for entry in trainer.state.log_history if "loss" in entry]
    last = sorted(windows[-1].items()) if windows else []  # sorted, as a checkpoint keeps them
    kept = {k: v for k, v in last if k not in ("step", "epoch")}
    return {**kept, "steps": trainer.state.global_step, "epochs": trainer.state.epoch}


def history(trainer: Any) -> list[dict[str, Any]]:
    """history.json: what was logged at each step of training, without timings."""
    timings = ("runtime", "per_second", "flos")
    entries = [{k: v for k, v in e.items() if not k.endswith(timings)} for e in trainer.state.log_history]
    return [entry for entry in entries if entry.keys() - {"step", "epoch", "train_loss"}]


def write_scores(items: list[dict[str, Any]], path: Path) -> None:
    """scores/SET.parquet: one row per response; a second file, SET.preferences.parquet, has one row per preference."""
    import pandas as pd

    path.parent.mkdir(exist_ok=True)
    responses = [
        {
            "comparison": item["index"],
            "id": item["id"],
            "prompt": item["prompt_id"],
            "subset": item["subset"],
            "response": k,
            "reward": reward,
            "length": item["lengths"][k],
            "gold": item["gold"][k] if len(item["gold"]) else None,
        }
        for item in items
        for k, reward in enumerate(item["rewards"])
    ]
    columns = ("better", "worse", "strength", "probability")
    preferences = [
        {"comparison": item["index"], **dict(zip(columns, values, strict=True))}
        for item in items
        for values in zip(*(item[c] for c in columns), strict=True)
    ]
    pd.DataFrame(responses).astype({"reward": "float32", "gold": "float64"}).to_parquet(path, index=False)
    pd.DataFrame(preferences).to_parquet(path.with_suffix(".preferences.parquet"), index=False)


def print_table(metrics: Mapping[str, Any], out: Path, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = ("accuracy", "bayes_accuracy", "ties", "nll", "brier", "ece", "gap_mean", "length_correlation")
    table = Table(title=f"{out.name}, {seconds / 60:.1f} min")
    table.add_column("metric")
    columns: dict[str, Mapping[str, Any]] = {}
    for name, values in metrics["eval"].items():
        columns[name] = values
        columns.update({f"{name}/{subset}": part for subset, part in values.get("subsets", {}).items()})
    columns["train (last window)"] = metrics["train"]
    for name in columns:
        table.add_column(name, justify="right")
    for metric in ("loss", *shown):
        cells = [f"{c[metric]:.4f}" if isinstance(c.get(metric), float) else "" for c in columns.values()]
        if any(cells):
            table.add_row(metric, *cells)
    table.add_row("comparisons", *(f"{c['comparisons']:,}" if "comparisons" in c else "" for c in columns.values()))
    Console().print(table)
    for what in ("model", "adapter", "scores", "metrics.json", "config.yaml", "wandb"):
        if (out / what).exists():
            print(f"{what:14}{out / what}")


def start_afresh_if_needed(out: Path, inputs: Mapping[str, Any]) -> None:
    """Remove what a run that is redone, or was begun on other data, left behind: its checkpoints would be resumed."""
    redo = (out / "metrics.json").exists()
    before = read_json(out / "environment.json").get("inputs", inputs)
    other = before != {key: inputs.get(key) for key in before}
    if other:
        say(f"{out} was begun on other data or plugins; it starts afresh")
    if redo or other:
        for left in ("checkpoints", "scores", "model", "adapter"):
            shutil.rmtree(out / left, ignore_errors=True)
        (out / "metrics.json").unlink(missing_ok=True)


# ---- logging ----


@contextlib.contextmanager
def logger(config: Mapping[str, Any], out: Path) -> Iterator[Any]:
    """The W&B run of this run, finished (as failed) also when training raises; None for the other loggers."""
    settings = config["logger"]
    if settings["report_to"] != "wandb" or not is_first_rank():
        yield None
        return
    import wandb

    identity = f"{config['study']}-{config['run']['id']}".replace("/", "-")
    with wandb.init(
        project=settings["project"],
        entity=settings["entity"],
        group=config["study"],
        name=out.name,
        id=identity[-64:],
        resume="allow",
        job_type=settings["job_type"],
        tags=[*settings["tags"], config["run"]["name"]],
        config={k: v for k, v in config.items() if k not in ("run", "logger")},
        mode=settings["mode"],
        dir=str(out),
        settings=wandb.Settings(silent=True),
    ) as tracker:
        yield tracker


def log_table(tracker: Any, metrics: Mapping[str, Any]) -> None:
    """The final metrics as a W&B table and as summary values `final/SET/METRIC`."""
    import wandb

    rows: list[Any] = [
        [name, metric, value]
        for name, values in metrics["eval"].items()
        for metric, value in values.items()
        if isinstance(value, int | float)
    ]
    tracker.log({"final": wandb.Table(columns=["set", "metric", "value"], data=rows)})
    tracker.summary.update({f"final/{name}/{metric}": value for name, metric, value in rows})


def free_memory() -> None:
    """Give the model's memory back before the next run of a multirun in this process."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
