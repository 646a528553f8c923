"""The benchmarks run. At toy size: what they measure is worth something on a quiet machine only."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, shared

FOLDER = ROOT / "benchmarks"


def script(name, *arguments):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env = {key: value for key, value in env.items() if key not in ("RMLAB_DATA", "RMLAB_ENCODER")}
    command = [sys.executable, str(FOLDER / name), *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)


def test_no_script_hides_a_module_of_python():
    """The folder of a script comes first on sys.path: a statistics.py there would be everybody's `statistics`."""
    assert not {file.stem for file in FOLDER.glob("*.py")} & sys.stdlib_module_names


@pytest.mark.slow
def test_throughput_runs_and_all_arms_learn_the_same(tmp_path):
    folder = Path(shared("hh_harmless.jsonl.gz")).parent
    done = script("throughput.py", folder, "-o", tmp_path, "--toy", "--data", "hh_harmless", "--dtypes", "float32")
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = json.loads((tmp_path / "throughput.json").read_text())["results"]
    assert not any(arm["error"] for arm in result["arms"].values())
    assert result["arms"]["auto"]["layout"] == "shared_prefix"
    assert max(result["arms"][name]["loss_from_trl_plain"] for name in ("padded", "packed", "auto")) < 1e-5
    assert (tmp_path / "throughput.png").stat().st_size > 10_000


@pytest.mark.slow
def test_real_data_measures_both_on_the_same_preferences(tmp_path, monkeypatch, minilm):
    """Scripts are looked for beside this Python; the numbers of two steps say nothing."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    options = ["trainer.max_steps=2", "data.limit=30", "logger=none", "--model", minilm, "--seeds", "0"]
    done = script("real_data.py", "topical_chat_minilm", shared("topical_chat.json.gz"), *options)
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = json.loads((tmp_path / "runs" / "topical_chat_minilm" / "against_trl.json").read_text())
    assert row["rmlab"]["preferences"] == row["trl"]["preferences"] > 0


@pytest.mark.slow
def test_proof_of_value_finds_a_changed_number(tmp_path):
    for name in ("before", "after"):
        done = script("proof_of_value.py", "record", tmp_path / name, "--only", "head alone")
        assert done.returncode == 0, done.stderr[-3000:]
    same = script("proof_of_value.py", "compare", tmp_path / "before", tmp_path / "after")
    assert same.returncode == 0
    assert same.stdout.count("identical") == 2
    file = tmp_path / "after" / "head_alone" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["eval"]["eval"]["nll"] += 1e-9
    file.write_text(json.dumps(metrics))
    other = script("proof_of_value.py", "compare", tmp_path / "before", tmp_path / "after")
    assert other.returncode == 1
    assert "DIFFERENT" in other.stdout


@pytest.mark.slow
def test_scoring_speed_scores_alike_and_measures_memory(tmp_path):
    done = script("scoring_speed.py", "-o", tmp_path, "--sizes", "toy", "--rows", 20, "--rounds", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    arms = json.loads((tmp_path / "scoring_speed.json").read_text())["models"]["Qwen3 toy"]
    assert arms.keys() == {"rmlab", "alone", "transformers", "pipeline"}
    assert all(arm["responses_per_s"] > 0 and arm["largest_difference"] < 1e-4 for arm in arms.values())
    done = script("scoring_speed.py", "-o", tmp_path, "--memory", 40)
    assert done.returncode == 0, done.stderr[-3000:]
    (told,) = json.loads((tmp_path / "scoring_speed.json").read_text())["memory"]
    assert 50 < told["peak_mb"] < 5000


@pytest.mark.slow
def test_calibration_measures_each_loss_and_the_truth(tmp_path):
    """Of three steps; the truth makes the best of any four picks, and its labels are what it says."""
    options = ["--prompts", 40, "--held-out", 60, "--seeds", 0]
    done = script("calibration.py", "trainer.max_steps=3", "-o", tmp_path, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = json.loads((tmp_path / "calibration.json").read_text())["runs"]
    assert list(runs) == ["plain", "margin", "soft labels", "gold / temperature"]
    (truth,) = runs["gold / temperature"]
    assert truth["best-of-4 recovery"] == pytest.approx(1.0)
    assert truth["nll"] < min(of["nll"] for arm in list(runs)[:3] for of in runs[arm])
    assert (tmp_path / "calibration.png").stat().st_size > 10_000
