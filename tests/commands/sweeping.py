"""What the tests of sweeps share: sweeps in a process of their own or in this one, and what they left."""

import contextlib
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import torch
from conftest import ROOT

from rmlab.commands.train import main
from rmlab.runner.directory import RunDirectory

TINY = ["-m", "debug=tiny", "study=s", "run.threads=1"]


def start(place, *overrides, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "rmlab.commands.train", *overrides], cwd=place, env=env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def sweep(place, *overrides, status=0, **environment):
    """The whole output of a sweep that ends with `status`."""
    process = start(place, *overrides, **environment)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == status, output[-4000:]
    return output


def here(place, *overrides, status=0):
    """The same in this process, which has torch imported already."""
    printed, before = io.StringIO(), os.getcwd()
    argv, threads = sys.argv, torch.get_num_threads()
    sys.argv = ["rmlab", *overrides]
    os.chdir(place)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code
    finally:
        sys.argv = argv
        os.chdir(before)
        logging.getLogger().handlers.clear()  # Hydra's, of a folder that goes
    assert torch.get_num_threads() == threads
    assert code == status, printed.getvalue()[-4000:]
    return printed.getvalue()


def metrics(place, study="s"):
    """{run directory: bytes of its metrics.json}."""
    return {file.parent.name: file.read_bytes() for file in Path(place).glob(f"runs/{study}/*/metrics.json")}


def state(out):
    return RunDirectory(out).state


def error_of(out):
    return RunDirectory(out).error()
