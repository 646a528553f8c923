"""Ctrl-C and SIGTERM on a real run: a checkpoint, a line, and the same command goes on from there."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, rmlab, run_directory

ARGUMENTS = [
    "debug=tiny", "logger=none", "run.threads=1", "data.train.synthetic.prompts=400", "trainer.max_steps=400",
    "trainer.save_steps=10_000", "trainer.logging_steps=7",
]  # fmt: skip


@pytest.mark.slow  # tests/training/test_loop.py has it within one process
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_that_the_same_command_goes_on_from(number, status, tmp_path):
    (tmp_path / "stopped").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "rmlab.commands.train", *ARGUMENTS], cwd=tmp_path / "stopped", env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    printed = ""
    for line in process.stdout:
        printed += line
        if "'loss'" in line:
            process.send_signal(number)
            break
    rest, _ = process.communicate(timeout=120)
    printed += rest
    assert process.returncode == status, printed
    assert "the same command goes on from step" in printed
    assert "Traceback" not in printed
    out = run_directory(tmp_path / "stopped")
    (checkpoint,) = out.glob("checkpoints/checkpoint-*")
    step = int(checkpoint.name.split("-")[1])
    assert 0 < step < 400
    assert not (out / "error.txt").exists()
    again = rmlab(tmp_path / "stopped", *ARGUMENTS).stdout
    assert f"goes on from step {step} of 400" in again
    (tmp_path / "whole").mkdir()
    rmlab(tmp_path / "whole", *ARGUMENTS)
    whole = run_directory(tmp_path / "whole")
    for file in ("metrics.json", "history.json"):
        assert (out / file).read_bytes() == (whole / file).read_bytes(), file
