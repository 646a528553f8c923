"""The benchmark of many rows runs; at toy size its seconds say nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, shared


@pytest.mark.slow
def test_data_scale_prepares_the_same_tokens_with_both(tmp_path):
    folder = Path(shared("hh_harmless.jsonl.gz")).parent
    script = ROOT / "benchmarks" / "data_scale.py"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RMLAB_DATA": str(folder)}
    command = [sys.executable, str(script), "-o", str(tmp_path), "--rows", "300", "--repeats", "1"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "data_scale.json").read_text())["results"]
    assert [(r["arm"], r["state"]) for r in results] == [
        (arm, state) for arm in ("rmlab", "trl") for state in ("cold", "cached")
    ]
    assert len({(r["kept"], r["tokens"]) for r in results}) == 1
    assert min(r["own_mb"] for r in results) > 50
    assert done.stdout.count(" = ") >= 8
