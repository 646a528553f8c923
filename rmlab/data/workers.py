"""How many processes share the rows of a data set, and how they leave this one."""

import os
from collections.abc import Callable
from typing import Any

from datasets import Dataset

from rmlab.messages import processes

MANY = 10_000  # rows that are worth a process more, or a note on the disk that they have been checked
THREADS = "TOKENIZERS_PARALLELISM"


def worth(rows: int) -> int:
    """How many processes so many rows are worth, at most the CPUs that this one may use, shared with other ranks."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or processes())  # of this machine
    return max(1, min(cpus // ranks, rows // MANY))


def map_rows(dataset: Dataset, function: Callable[..., Any], num_proc: int | None, **options: Any) -> Dataset:
    """`Dataset.map` by so many processes; None: as many as the rows are worth. The result does not depend on them.

    One process is this one, in which a tokenizer has threads. With more, `datasets` leaves a copy in the place of
    os.environ, and the tokenizers of this process without threads: both are put back.
    """
    number = worth(len(dataset)) if num_proc is None else num_proc
    environ, threads = os.environ, os.environ.get(THREADS)
    try:
        return dataset.map(function, num_proc=number if number > 1 else None, **options)
    finally:
        os.environ = environ  # noqa: B003
        if threads is None:
            environ.pop(THREADS, None)
        else:
            environ[THREADS] = threads
