"""The examples run as their readers run them: on files made by themselves or by a run, without a network."""

import json
import os
import shutil
import subprocess
import sys
import tomllib

import pytest
from pages import ROOT

EXAMPLES = ROOT / "examples"
SMALL = ["debug=tiny", "run.threads=1", "data.train.synthetic.prompts=200"]


def start(place, *arguments, path=()):
    """A Python program in a process of its own; its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=place, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def rmlab(place, *arguments, path=()):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["rmlab"].partition(":")
    code = f"import sys; sys.argv[0] = 'rmlab'; from {module} import {function}; {function}()"
    return start(place, "-c", code, *arguments, *SMALL, path=path)


@pytest.mark.slow
def test_quickstart_learns(tmp_path):
    printed = start(tmp_path, EXAMPLES / "quickstart.py")
    accuracy = float(printed.rpartition("held-out accuracy ")[2].partition(",")[0])
    assert accuracy > 0.9


@pytest.mark.slow
def test_a_trl_script_with_changed_imports_trains(tmp_path):
    assert "'eval_accuracy': 1.0" in start(tmp_path, EXAMPLES / "trl_to_rmlab.py")
    source = (EXAMPLES / "trl_to_rmlab.py").read_text()
    pytest.importorskip("trl", reason="TRL is a development dependency, the parity oracle")
    theirs = source.replace("from rmlab import Reward", "from trl import Reward")
    (tmp_path / "trl_script.py").write_text(theirs)
    assert "eval_accuracy" in start(tmp_path, "trl_script.py")


@pytest.mark.slow
def test_own_loss_as_a_plugin(tmp_path):
    folder = EXAMPLES / "own_loss"
    mine = ["-cd", folder / "own_loss" / "conf", "plugins=[own_loss]", "loss=squared_hinge", "model/head=scaled"]
    rmlab(tmp_path, *mine, path=[folder])
    assert list(tmp_path.glob("runs/debug/squared_hinge-s0-*/metrics.json"))


def test_own_loss_as_an_installed_package(tmp_path):
    """Installed means importable and known by its entry points; pip would write the same metadata. A glob finds it."""
    folder, site = EXAMPLES / "own_loss", tmp_path / "site"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    shutil.copytree(folder / "own_loss", site / "own_loss")
    info = site / "own_loss-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [f"[{group}]\n{k} = {v}\n" for group, found in project["entry-points"].items() for k, v in found.items()]
    (info / "entry_points.txt").write_text("".join(points))
    rmlab(tmp_path, "-m", "loss=glob(squared*)", "model/head=scaled", path=[site])
    assert list(tmp_path.glob("runs/debug/squared_hinge-s0-*/metrics.json"))


@pytest.mark.slow
def test_read_scores_notebook(tmp_path, monkeypatch):
    """Its cells, one after the other; the assertion inside compares accuracy by hand with metrics.json."""
    rmlab(tmp_path, "study=s")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "read_scores.ipynb").read_text())
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "commit it without outputs"
    namespace: dict[str, object] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
    assert 0 <= namespace["accuracy"] <= 1
