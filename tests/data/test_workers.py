"""Processes that share a data set: how many, and that nothing but the time depends on them."""

import os

import pytest
from datasets import Dataset

from rmlab.data.workers import MANY, THREADS, map_rows, worth


@pytest.mark.parametrize(
    ("rows", "cpus", "ranks", "number"),
    [
        (100, 8, 1, 1),
        (MANY, 8, 1, 1),
        (3 * MANY, 8, 1, 3),
        (99 * MANY, 8, 1, 8),
        (99 * MANY, 8, 4, 2),
        (99 * MANY, 8, 99, 1),
    ],
)
def test_rows_are_worth_as_many_processes_as_pay_and_there_are_cpus_for(rows, cpus, ranks, number, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cpus), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert worth(rows) == number


@pytest.mark.parametrize("before", [None, "true"])
def test_the_environment_is_what_it_was(before, monkeypatch):
    """Also as programs that this one starts will see it."""
    monkeypatch.delenv(THREADS, raising=False)
    if before is not None:
        monkeypatch.setenv(THREADS, before)
    environ, values = os.environ, dict(os.environ)
    rows = map_rows(Dataset.from_dict({"a": range(40)}), lambda row: {"b": os.getpid()}, 2)
    assert len(set(rows["b"])) == 2
    assert os.getpid() not in rows["b"]
    assert os.environ is environ
    assert dict(os.environ) == values
    assert os.popen(f"echo ${THREADS}").read().strip() == (before or "")


@pytest.mark.parametrize("number", [None, 1])
def test_few_rows_stay_in_this_process(number):
    rows = map_rows(Dataset.from_dict({"a": range(40)}), lambda row: {"b": os.getpid()}, number)
    assert set(rows["b"]) == {os.getpid()}
