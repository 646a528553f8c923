"""Sweeps: nothing is run twice, nothing is lost, and each failure is told."""

import re
import signal
import time

import pytest
import yaml
from conftest import make_pairs
from sweeping import TINY, error_of, here, metrics, start, state

from rmlab.runner.directory import BusyError, RunDirectory


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """A finished sweep of two losses and two seeds: its folder and what it printed."""
    place = tmp_path_factory.mktemp("serial")
    return place, here(place, *TINY, "loss=plain,margin", "seed=0,1")


def test_a_sweep_says_how_many_runs_of_each_kind_and_how_far_it_is(serial):
    place, printed = serial
    assert "sweep s: 4 runs: 4 new" in printed
    assert [line.split("-")[0] for line in printed.splitlines()[1:5]] == [
        "[1/4] plain",
        "[2/4] plain",
        "[3/4] margin",
        "[4/4] margin",
    ]
    assert len(metrics(place)) == 4
    config = yaml.safe_load(next(place.glob("runs/s/margin-s1-*/config.yaml")).read_text())
    assert config["run"]["choices"]["loss"] == "margin"


def test_finished_runs_are_not_launched_and_others_are_taken_up(serial):
    """One line says how many are skipped, resumed and tried again; metrics stay the same bytes."""
    place, _ = serial
    before = metrics(place)
    half, broken = (next(place.glob(f"runs/s/{name}-s1-*")) for name in ("plain", "margin"))
    left = next(place.glob("runs/s/plain-s0-*")) / "checkpoints" / "checkpoint-2"  # by a kill at the very end
    left.mkdir(parents=True)
    (half / "metrics.json").unlink()
    (broken / "metrics.json").unlink()
    RunDirectory(broken).write_error(RuntimeError("no memory\nat all"))
    assert (state(half), state(broken), error_of(broken)) == ("half-done", "failed", "RuntimeError: no memory")
    printed = here(place, *TINY, "loss=plain,margin", "seed=0,1")
    assert "sweep s: 4 runs: 2 finished (skipped), 1 half-done (resumed), 1 failed (tried again)" in printed
    assert [printed.count(f"\n[{n}/4] ") for n in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert metrics(place) == before
    assert not (broken / "error.txt").exists()
    assert not left.parent.exists()


@pytest.mark.slow
def test_values_that_make_no_other_run_are_said_to_be_none(tmp_path):
    """The number of threads is no part of a run's id: two values are one run, which is not to pass unnoticed."""
    output = here(tmp_path, "-m", "debug=tiny", "study=s", "run.threads=1,2", "seed=0,1")
    assert "warning: 2 of the 4 runs are the same as another, and are trained once" in output
    assert len(metrics(tmp_path)) == 2
    assert "the same as another" not in here(tmp_path, *TINY, "seed=0,1")


@pytest.mark.slow
def test_a_failing_run_does_not_stop_the_others(tmp_path):
    """Its error is in its directory and in the summary; the exit status is 1; its neighbours are finished."""
    arms = ["trainer.optim=adamw_bnb_8bit,adamw_torch", "loss=plain,margin"]  # bitsandbytes is not installed
    printed = here(tmp_path, *TINY, *arms, status=1)
    runs = {out: state(out) for out in tmp_path.glob("runs/s/*-s0-*")}
    assert sorted(runs.values()) == ["failed", "failed", "finished", "finished"]
    for out in (out for out, found in runs.items() if found == "failed"):
        assert "bitsandbytes" in error_of(out)
        assert "Traceback" in (out / "error.txt").read_text()
        assert f"] {out.name} trainer.optim=adamw_bnb_8bit  failed: ImportError" in printed
        assert "bitsandbytes" in (out / "rmlab.log").read_text()
    assert "2 of 4 runs failed" in printed
    assert "Error executing job" not in printed


def test_a_config_that_cannot_run_fails_alone(tmp_path):
    printed = here(tmp_path, *TINY, "data.overlong=drop,dorp", status=1)
    (out,) = (out for out in tmp_path.glob("runs/s/*-s0-*") if state(out) == "failed")
    assert error_of(out) == "data.overlong is 'dorp'; did you mean 'drop'?"
    assert f"] {out.name} data.overlong=dorp  failed: data.overlong is 'dorp'" in printed
    assert len(metrics(tmp_path)) == 1


def test_a_mistake_in_all_jobs_is_said_once_and_nothing_is_launched(tmp_path):
    printed = here(tmp_path, *TINY, "trainer.learning_rte=1e-3,2e-3", status=2)
    assert "rmlab: error: trainer has no option 'learning_rte'; did you mean 'learning_rate'?" in printed
    assert not list(tmp_path.glob("runs/s/*-s0-*"))


def test_a_second_process_is_refused_a_run_and_a_second_sweep_waits_for_it(serial, tmp_path):
    place, _ = serial
    (out,) = place.glob("runs/s/plain-s0-*")
    before = metrics(place)
    arguments = [a for a in TINY if a != "-m"]
    with RunDirectory(out).locked():
        assert state(out) == "finished"
        (out / "metrics.json").rename(out / "aside.json")
        assert state(out) == "running"
        with pytest.raises(BusyError), RunDirectory(out).locked():
            pass
        refused = here(place, *arguments, "loss=plain", status=2)
        assert f"{out.relative_to(place)} is being trained by another process" in refused
        waiting = start(place, *TINY, "loss=plain,margin", "seed=0")
        lines = iter(waiting.stdout.readline, "")  # and it is not launched only to be passed over
        assert any("waiting for another process, which trains runs/s/plain-s0-" in line for line in lines)
        (out / "aside.json").rename(out / "metrics.json")  # the other process has finished
    rest, _ = waiting.communicate(timeout=300)
    assert waiting.returncode == 0, rest
    assert f"] {out.name}  accuracy " in rest
    assert "passed over" not in rest
    assert metrics(place) == before


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(tmp_path):
    """Each run is trained once, by one of them; both end well."""
    arguments = [*TINY, "loss=plain,margin", "seed=0,1"]
    both = [start(tmp_path, *arguments) for _ in range(2)]
    printed = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    logs = [file.read_text() for file in tmp_path.glob("runs/s/*/rmlab.log")]
    assert sum(log.count("\nmetrics.json  runs/s/") for log in logs) == 4, "what a run says at its end"
    assert len(metrics(tmp_path)) == 4


def test_a_killed_sweep_run_again_gives_the_same_metrics(tmp_path):
    """SIGKILL in the middle of the second run; no run is trained twice."""
    arguments = [
        "-m", "data.train.synthetic.prompts=160", "trainer.num_train_epochs=4", "trainer.save_steps=4", "logger=none",
        "trainer.per_device_train_batch_size=8", "study=s", "run.threads=1", "seed=0,1,2",
    ]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for place in (whole, killed):
        place.mkdir()
    here(whole, *arguments)
    process = start(killed, *arguments)
    deadline = time.time() + 120
    while time.time() < deadline and not list(killed.glob("runs/s/plain-s1-*/checkpoints/checkpoint-*/whole")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    states = {out.name.split("-")[1]: state(out) for out in killed.glob("runs/s/plain-*")}
    assert states == {"s0": "finished", "s1": "half-done", "s2": "new"}
    finished = next(killed.glob("runs/s/plain-s0-*/metrics.json")).stat().st_mtime_ns
    printed = here(killed, *arguments)
    assert "sweep s: 3 runs: 1 finished (skipped), 1 half-done (resumed), 1 new" in printed
    assert metrics(killed) == metrics(whole)
    assert next(killed.glob("runs/s/plain-s0-*/metrics.json")).stat().st_mtime_ns == finished


def test_a_run_that_cannot_be_redone_is_not_called_finished(serial, tmp_path):
    """run.redo=true of finished runs whose data went away: their old metrics stay, and the sweep fails."""
    make_pairs(40).to_json(str(tmp_path / "my.jsonl"))
    arguments = [*TINY, "data=files", "data.path=my.jsonl", "seed=0,1"]
    here(tmp_path, *arguments)
    before = metrics(tmp_path)
    (tmp_path / "my.jsonl").write_text("{}\n")
    printed = here(tmp_path, *arguments, "run.redo=true", status=1)
    assert "sweep s: 2 runs: 2 finished (trained again)" in printed
    assert "2 of 2 runs failed" in printed
    assert metrics(tmp_path) == before


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    import rmlab.runner.run

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rmlab.runner.run, "run", interrupted)
    assert "interrupted; the same command goes on" in here(tmp_path, *TINY, "seed=0,1", status=130)


@pytest.mark.slow
def test_values_that_belong_together_are_one_choice(tmp_path):
    """Paired sweeps without a plugin: a dict per choice, merged into its node."""
    pairs = "trainer={learning_rate: 1e-3, weight_decay: 0.1}, {learning_rate: 2e-3, weight_decay: 0.2}"
    printed = here(tmp_path, *TINY, pairs)
    assert re.search(r"\[1/2\] plain-s0-\w{8} trainer=\{learning_rate:0.001,weight_decay:0.1\}  accuracy ", printed)
    trainers = [yaml.safe_load(file.read_text())["trainer"] for file in tmp_path.glob("runs/s/*/config.yaml")]
    assert sorted((t["learning_rate"], t["weight_decay"]) for t in trainers) == [(0.001, 0.1), (0.002, 0.2)]
    assert all(t["max_steps"] == 2 for t in trainers)
