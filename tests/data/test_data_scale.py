"""The benchmark of many rows runs; at toy size its seconds say nothing."""

import argparse
import importlib
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what is a process's own memory is known on Linux")
def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    """28,000 rows more are 41 MB of text and 35 MB of tokens, as Python values nine times that."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    scale = importlib.import_module("data_scale")
    folder = Path(shared("hh_harmless.jsonl.gz")).parent
    tokenizer = scale.save_tokenizer(tmp_path / "tokenizer", folder)
    arguments = argparse.Namespace(folder=folder, processes=1, max_length=512)
    own = []
    for rows in (14_000, 42_000):
        file = scale.write_rows(tmp_path / f"{rows}.jsonl", rows, folder)
        own.append(scale.measured("rmlab", file, tokenizer, "cold", arguments, tmp_path / "caches")["own_mb"])
    assert own[1] - own[0] < 30, own
