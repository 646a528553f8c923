"""The W&B run of a run, and its final metrics there."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from rmlab.messages import is_first_rank
from rmlab.runner.config import Config, LoggerConfig
from rmlab.runner.directory import RunDirectory


@contextlib.contextmanager
def tracked(config: Config, out: RunDirectory) -> Iterator[Any]:
    """The W&B run, finished (as failed) also when training raises; None for the other loggers."""
    settings = LoggerConfig.of(config.logger)
    if settings.report_to == "tensorboard":
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(out.path / "tensorboard")
    if settings.report_to != "wandb" or not is_first_rank():
        yield None
        return
    import wandb

    mode = os.environ.get("WANDB_MODE") or settings.mode
    tracker = wandb.init(  # as a context manager it would print every error, which is said elsewhere
        project=settings.project,
        entity=settings.entity,
        group=config.study,
        name=out.name,
        id=identity(config.study, out.name),
        resume="allow",
        job_type=settings.job_type,
        tags=[*settings.tags, config.run.name],
        config={k: v for k, v in config.as_written().items() if k not in ("run", "logger")},
        mode=cast(Any, mode),
        dir=str(out),
        settings=wandb.Settings(silent=True),
    )
    try:
        yield tracker
    except BaseException:
        tracker.finish(exit_code=1)
        raise
    tracker.finish()


def identity(*names: str) -> str:
    """An id that W&B takes, the same for the same names: its readable end and a hash of it all."""
    whole = "/".join(names)
    readable = re.sub(r"[^A-Za-z0-9_.-]", "-", whole)[-48:]
    return f"{readable}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def track_metrics(tracker: Any, metrics: Mapping[str, Any]) -> None:
    """The final metrics as a W&B table and as summary values `final/SET/METRIC`; nothing without a W&B run."""
    if tracker is None:
        return
    import wandb

    rows: list[Any] = [
        [name, metric, value]
        for name, values in metrics["eval"].items()
        for metric, value in values.items()
        if isinstance(value, int | float)
    ]
    tracker.log({"final": wandb.Table(columns=["set", "metric", "value"], data=rows)})
    tracker.summary.update({f"final/{name}/{metric}": value for name, metric, value in rows})


def track_suites(tracker: Any, results: Mapping[str, Mapping[str, Any]]) -> None:
    """The totals of benchmark suites as summary values `suites/NAME/TOTAL`; nothing without a W&B run."""
    if tracker is None:
        return
    totals = {(name, total): n["value"] for name, said in results.items() for total, n in said["totals"].items()}
    tracker.summary.update({f"suites/{name}/{total}": value for (name, total), value in totals.items()})
