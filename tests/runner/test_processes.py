"""Runs of several processes, launched as users launch them: torchrun and accelerate on a machine without a GPU."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT, run_directory
from filelock import FileLock

pytestmark = pytest.mark.slow

GLOBAL_BATCH, STEPS = 12, 3  # the end of an epoch, where accelerate has ranks repeat rows, is not reached
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no"]
# A process that ends, or fails, in the middle of training, if the environment says so.
DISTURB = """
import os, signal
from rmlab.training.trainer import RewardTrainer

whole = RewardTrainer.training_step


def training_step(self, *arguments, **options):
    rank, step, how = os.environ.get("DISTURB", "-1 0 none").split()
    if self.args.process_index == int(rank) and self.state.global_step == int(step):
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError(f"rank {rank} has had enough")
    return whole(self, *arguments, **options)


RewardTrainer.training_step = training_step
"""


def launch(place, ranks, *overrides, launcher=TORCHRUN, check=True, **environment):
    """The completed command; 83 comparisons to train on and evaluate, which no number of ranks divides."""
    place.mkdir(exist_ok=True)
    (place / "disturb.py").write_text(DISTURB)
    number = f"--nproc_per_node={ranks}" if launcher is TORCHRUN else f"--num_processes={ranks}"
    arguments = [
        "debug=tiny", "logger=none", "run.threads=1", "plugins=[disturb]", "data.limit=null",
        "data.train.synthetic.prompts=83", "data.eval_fraction=0.3", f"trainer.max_steps={STEPS}",
        "trainer.save_steps=1", f"trainer.per_device_train_batch_size={GLOBAL_BATCH // ranks}",
        "trainer.logging_steps=1", *overrides,
    ]  # fmt: skip
    arguments.sort(key=lambda word: not word.startswith("-"))  # Hydra wants flags first
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [*launcher, number, "-m", "rmlab.commands.train", *arguments],
        cwd=place, env=env, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def numbers(place):
    out = run_directory(place)
    metrics = json.loads((out / "metrics.json").read_text())
    return metrics, pd.read_parquet(out / "scores" / "eval.parquet"), json.loads((out / "environment.json").read_text())


def flat(metrics):
    return {k: v for part in (metrics["eval"]["eval"], metrics["train"]) for k, v in part.items()}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run of one process."""
    place = tmp_path_factory.mktemp("one")
    launch(place, 1)
    return place


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The same of two, each with half of every batch."""
    place = tmp_path_factory.mktemp("two")
    launch(place, 2)
    return place


@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_trains_and_evaluates_as_one(ranks, one, two, tmp_path):
    """The same steps, so metrics differ by rounding alone; every comparison is scored once."""
    place = two if ranks == 2 else tmp_path
    if ranks == 4:
        launch(place, 4)
    (metrics, scores, environment), (expected, right, _) = numbers(place), numbers(one)
    assert environment["processes"] == ranks
    assert flat(metrics).keys() == flat(expected).keys()
    assert flat(metrics) == pytest.approx(flat(expected), rel=1e-4, abs=1e-5)
    assert scores.drop(columns="reward").equals(right.drop(columns="reward"))
    assert scores.reward.to_numpy() == pytest.approx(right.reward.to_numpy(), abs=1e-5)


def test_accelerate_launches_the_same_run(one, tmp_path):
    """Of one process: it starts no more on CPUs, unless MPI is there."""
    launch(tmp_path, 1, launcher=ACCELERATE)
    assert numbers(tmp_path)[0] == numbers(one)[0]


def test_a_run_whose_rank_was_killed_goes_on_to_the_same_numbers(two, tmp_path):
    killed = launch(tmp_path, 2, check=False, DISTURB="1 2 kill")
    assert killed.returncode != 0
    assert not (run_directory(tmp_path) / "metrics.json").exists()
    assert f"goes on from step 2 of {STEPS}" in launch(tmp_path, 2).stdout
    (metrics, scores, _), (expected, right, _) = numbers(tmp_path), numbers(two)
    assert metrics == expected
    assert scores.equals(right)


@pytest.mark.parametrize(("begun", "then"), [(2, 1), (1, 2)])
def test_another_number_of_ranks_starts_afresh_with_a_line(begun, then, tmp_path):
    """The same config, so each of two ranks has the whole batch size."""
    same = f"trainer.per_device_train_batch_size={GLOBAL_BATCH // 2}"
    launch(tmp_path / "changed", begun, same, check=False, DISTURB="0 2 kill")
    printed = launch(tmp_path / "changed", then, same).stdout
    assert "was begun with other processes than is here now; it starts afresh" in printed
    launch(tmp_path / "alone", then, same)
    assert numbers(tmp_path / "changed")[0] == numbers(tmp_path / "alone")[0]


def test_the_error_of_every_rank_is_kept(tmp_path):
    failed = launch(tmp_path, 2, check=False, DISTURB="1 1 raise")
    assert failed.returncode != 0
    (out,) = tmp_path.glob("runs/debug/*/")
    assert (out / "error.rank1.txt").read_text().startswith("RuntimeError: rank 1 has had enough")
    launch(tmp_path, 2)
    assert not list(out.glob("error*.txt"))


def test_no_rank_works_in_a_directory_that_another_process_trains(two, tmp_path):
    launch(tmp_path, 2, check=False, DISTURB="1 1 kill")
    (out,) = tmp_path.glob("runs/debug/*/")
    with FileLock(out / ".lock"):
        busy = launch(tmp_path, 2, check=False)
    assert busy.returncode != 0
    assert "is being trained by another process" in busy.stderr
    launch(tmp_path, 2)
    assert numbers(tmp_path)[0] == numbers(two)[0]


def test_a_sweep_under_torchrun_is_refused(tmp_path):
    done = launch(tmp_path, 2, "-m", "seed=0,1", check=False)
    assert "a sweep is one process" in done.stderr
    assert not list(tmp_path.glob("runs/*/*/metrics.json"))
