"""Sweeps over damaged runs, and over directories that do not tell their runs apart."""

from pathlib import Path

import pytest
from sweeping import TINY, here, metrics, state

ARMS = ["loss=plain,margin"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("finished")
    here(place, *TINY, *ARMS)
    return place


@pytest.mark.parametrize("file", ["metrics.json", pytest.param("scores/eval.parquet", marks=pytest.mark.slow)])
def test_a_damaged_run_is_named_and_trained_again_and_the_others_stay(file, finished):
    before = metrics(finished)
    out = next(finished.glob("runs/s/margin-s0-*"))
    (out / file).write_bytes(b"")
    assert state(out) == "damaged"
    printed = here(finished, *TINY, *ARMS)
    assert "sweep s: 2 runs: 1 finished (skipped), 1 damaged (trained again)" in printed
    assert f"{out.relative_to(finished)} is damaged: " in printed
    assert Path(file).name in printed
    assert metrics(finished) == before


def test_directories_without_the_id_of_a_run_are_refused(tmp_path):
    printed = here(tmp_path, *TINY, *ARMS, "hydra.sweep.subdir=${hydra.job.num}", status=2)
    assert "give runs/s/0, without the run's id" in printed
    assert not list(tmp_path.glob("runs/s/*/"))


def test_a_sweep_of_several_processes_is_refused(tmp_path, monkeypatch):
    """Each would draw its own trials, and launch runs that the others launch too."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "a sweep is one process" in here(tmp_path, *TINY, *ARMS, status=2)
