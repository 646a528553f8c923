"""What a run says before it begins to import what takes seconds."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, make_model

STOPPED_AT_THE_FIRST = """
import builtins
plain = builtins.__import__
def watched(name, *rest):
    if name.partition(".")[0] in ("torch", "transformers", "datasets", "pandas", "scipy"):
        print("imports", name, flush=True)
        raise KeyboardInterrupt
    return plain(name, *rest)
builtins.__import__ = watched
from rmlab.commands.train import main
main()
"""


@pytest.mark.parametrize("model", ["tiny", "pretrained"])
def test_a_run_says_where_it_is_before_it_imports_anything_slow(model, tmp_path, built_tokenizer):
    make_model("bert").config.save_pretrained(tmp_path / "encoder")
    built_tokenizer.save_pretrained(tmp_path / "encoder")
    path = [f"model.path={tmp_path / 'encoder'}"] if model == "pretrained" else []
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_AT_THE_FIRST, "debug=tiny", f"model={model}", *path],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    said, *imports = done.stdout.splitlines()
    assert said.startswith(f"run {os.path.join('runs', 'debug', 'plain-s0-')}"), done.stdout + done.stderr
    assert imports[0].startswith("imports ")
