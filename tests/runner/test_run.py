"""Whole runs by the command line and from Python: what they leave, skip, resume, log, and how they fail."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, make_pairs, rmlab, run_directory, shared

from rmlab import run
from rmlab.data.columns import read_row
from rmlab.data.sets import load_rows
from rmlab.runner.config import Config

SMALL = [
    "data.train.synthetic.prompts=160",
    "trainer.num_train_epochs=2",
    "trainer.per_device_train_batch_size=8",
    "trainer.logging_steps=2",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run with the default logger: its folder and what it printed."""
    place = tmp_path_factory.mktemp("finished")
    return place, rmlab(place, *SMALL, "trainer.eval_strategy=epoch")


def test_a_run_directory_holds_what_the_design_says(finished):
    out = run_directory(finished[0])
    assert out.parent.name == "default"
    name, seed, identity = out.name.split("-")
    assert (name, seed, len(identity)) == ("plain", "s0", 8)
    present = {p.name for p in out.iterdir()}
    assert present >= {
        "config.yaml",
        "environment.json",
        "metrics.json",
        "scores",
        "model",
        "wandb",
        "rmlab.log",
    }
    assert "checkpoints" not in present
    environment = json.loads((out / "environment.json").read_text())
    assert (
        environment["packages"]["torch"] == torch.__version__ or environment["packages"]["torch"] in torch.__version__
    )
    assert environment["data"].keys() == {"train/synthetic"}
    assert {"commit", "diff", "code", "hardware", "command", "seconds"} <= environment.keys()
    assert "160 rows" in (out / "rmlab.log").read_text()


def test_metrics_follow_from_the_scores(finished):
    """Anyone can recompute accuracy from scores/eval.parquet and its preferences."""
    out = run_directory(finished[0])
    metrics = json.loads((out / "metrics.json").read_text())
    scores = pd.read_parquet(out / "scores" / "eval.parquet").set_index(["comparison", "response"])
    pairs = pd.read_parquet(out / "scores" / "eval.preferences.parquet")
    for column, key in (("reward", "accuracy"), ("gold", "bayes_accuracy")):
        sides = [
            scores[column].loc[list(zip(pairs.comparison, pairs[s], strict=True))].to_numpy()
            for s in ("better", "worse")
        ]
        assert ((sides[0] > sides[1]).mean()) == pytest.approx(metrics["eval"]["eval"][key])
    assert scores.reward.dtype == "float32"
    assert {"prompt", "subset", "length", "id"} <= set(scores.columns)
    assert metrics["train"]["steps"] == metrics["train"]["epochs"] * -(-(160 - len(pairs)) // 8)
    assert not {"runtime", "samples_per_second"} & set(metrics["train"])


def test_the_config_is_standalone(finished, tmp_path):
    """config.yaml needs no Hydra, and gives the same metrics from Python."""
    out = run_directory(finished[0])
    config = yaml.safe_load((out / "config.yaml").read_text())
    config["logger"] = {"report_to": "none"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        metrics = run(config, tmp_path / "again")
    finally:
        torch.set_num_threads(threads)
    assert metrics["eval"] == json.loads((out / "metrics.json").read_text())["eval"]
    assert metrics["objective"] == metrics["eval"]["eval"]["accuracy"]


def test_the_model_loads_in_plain_transformers(finished):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    out = run_directory(finished[0])
    model = AutoModelForSequenceClassification.from_pretrained(out / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    scores = pd.read_parquet(out / "scores" / "eval.parquet")
    config = yaml.safe_load((out / "config.yaml").read_text())
    (source,) = load_rows(Config.of(config).data).train
    rows = [read_row(row) for row in source.rows]
    for _, score in scores.head(6).iterrows():
        row = rows[int(score["id"])]
        text = tokenizer.apply_chat_template(row["prompt"] + row["responses"][score["response"]], tokenize=False)
        batch = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        assert model(**batch).logits.item() == pytest.approx(score["reward"], abs=1e-5)


def test_the_table_shows_the_metrics_and_where_things_are(finished, capsys):
    printed = finished[1].stdout
    assert "true rewards" in printed
    assert "runs/default/plain-s0-" in printed
    assert "metrics.json" in printed
    assert "/model" in printed


def test_a_finished_run_is_skipped_and_redone_on_demand(finished):
    place = finished[0]
    out = run_directory(place)
    before = (out / "metrics.json").read_bytes()
    again = rmlab(place, *SMALL, "trainer.eval_strategy=epoch")
    assert "skipped runs/default/plain-s0-" in again.stdout
    assert "warning" not in again.stdout
    environment = json.loads((out / "environment.json").read_text())
    (out / "environment.json").write_text(json.dumps({**environment, "code": "other"}))
    assert "was made by other code than is here now" in rmlab(place, *SMALL, "trainer.eval_strategy=epoch").stdout
    redone = rmlab(place, *SMALL, "trainer.eval_strategy=epoch", "run.redo=true")
    assert "skipped" not in redone.stdout
    assert (out / "metrics.json").read_bytes() == before


def wandb_records(place):
    """(type, content) of each record of the one offline run below `place`, by wandb's own reader."""
    (file,) = place.glob("**/wandb/offline-run-*/run-*.wandb")
    reader = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(reader, capture_output=True, text=True, check=True, timeout=60)
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [(r["type"], r.get(r["type"])) for r in records]


@pytest.mark.slow
def test_wandb_file_read_back_holds_config_history_and_summary(tmp_path):
    rmlab(tmp_path, *SMALL, "trainer.eval_strategy=epoch", "logger.tags=[mine]")
    out = run_directory(tmp_path)
    metrics = json.loads((out / "metrics.json").read_text())
    records = wandb_records(out)
    (started,) = (content for kind, content in records if kind == "run")
    config, history = started["config"]["update"], [c["item"] for kind, c in records if kind == "history"]
    summary = {}
    for kind, content in records:
        summary.update(content.get("update", {}) if kind == "summary" else {})
    expected = {"project": "rmlab", "run_group": "default", "job_type": "train", "display_name": out.name}
    assert {key: started[key] for key in expected} == expected
    assert started["tags"] == ["mine", "plain"]
    resolved = yaml.safe_load((out / "config.yaml").read_text())
    for node in ("loss", "data", "model", "peft", "trainer", "seed"):
        assert config[node] == resolved[node], node
    assert len([h for h in history if "train/accuracy" in h]) > 5
    assert [h["eval/nll"] for h in history if "eval/nll" in h][-1] == pytest.approx(metrics["eval"]["eval"]["nll"])
    assert summary["final/eval/accuracy"] == pytest.approx(metrics["eval"]["eval"]["accuracy"])
    assert summary["final._type"] == "table-file"
    assert [c["exit_code"] for kind, c in records if kind == "exit"] == [0]


@pytest.mark.slow
def test_a_failing_run_finishes_its_wandb_run_as_failed(tmp_path):
    done = rmlab(tmp_path, *SMALL, "trainer.optim=adamw_bnb_8bit", check=False)  # bitsandbytes is not installed
    assert done.returncode == 1
    assert [c["exit_code"] for kind, c in wandb_records(tmp_path) if kind == "exit"] == [1]
    assert not list(tmp_path.glob("runs/*/*/metrics.json"))


def test_a_killed_run_resumes_to_the_same_metrics(tmp_path):
    """kill -9 after the first whole checkpoint; the same command again; bit for bit the uninterrupted metrics."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = [*SMALL, "trainer.save_steps=4", "trainer.num_train_epochs=6", "logger=none"]
    arguments += ["run.keep=[model,checkpoints]"]
    for place in (whole, killed):
        place.mkdir()
    rmlab(whole, *arguments)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "rmlab.commands.train", *arguments],
        cwd=killed,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    while time.time() < deadline and not list(killed.glob("runs/*/*/checkpoints/checkpoint-*/whole")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    out = run_directory(killed)
    assert not (out / "metrics.json").exists(), "the run ended before it could be killed"
    half = out / "checkpoints" / "checkpoint-100000"  # what a kill during a save leaves: no mark
    half.mkdir()
    rmlab(killed, *arguments)
    log = json.loads((max(out.glob("checkpoints/checkpoint-*/trainer_state.json"), key=os.path.getmtime)).read_text())
    assert log["global_step"] > 4
    assert (out / "metrics.json").read_bytes() == (run_directory(whole) / "metrics.json").read_bytes()
    a, b = (pd.read_parquet(run_directory(p) / "scores" / "eval.parquet") for p in (whole, killed))
    pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.mark.slow
def test_a_run_killed_after_its_last_step_takes_no_further_step(tmp_path):
    """Its last checkpoint is whole, its metrics.json missing; with max_steps Trainer would take one more."""
    arguments = [
        *SMALL,
        "trainer.max_steps=6",
        "trainer.save_steps=3",
        "trainer.lr_scheduler_type=constant",
        "logger=none",
        "run.keep=[model,checkpoints]",
    ]
    rmlab(tmp_path, *arguments)
    out = run_directory(tmp_path)
    before = (out / "metrics.json").read_bytes()
    (out / "metrics.json").unlink()
    rmlab(tmp_path, *arguments)
    assert (out / "metrics.json").read_bytes() == before


@pytest.mark.slow
def test_a_redone_run_starts_from_the_beginning(tmp_path):
    rmlab(tmp_path, "debug=tiny")
    out = run_directory(tmp_path)
    before = (out / "metrics.json").read_bytes()
    done = rmlab(tmp_path, "debug=tiny", "run.redo=true")
    assert "{'loss'" in done.stdout
    assert (out / "metrics.json").read_bytes() == before


@pytest.mark.slow
def test_other_data_under_the_same_name_is_noticed(tmp_path):
    """Finished: skipped with a warning. Begun: started afresh instead of resumed."""
    arguments = ["debug=tiny", "data=files", "data.path=my.jsonl"]
    make_pairs(40).to_json(str(tmp_path / "my.jsonl"))
    rmlab(tmp_path, *arguments)
    make_pairs(40, seed=1).to_json(str(tmp_path / "my.jsonl"))
    assert "was made by other inputs than is here now" in rmlab(tmp_path, *arguments).stdout
    (run_directory(tmp_path) / "metrics.json").unlink()
    assert "was begun with other inputs than is here now; it starts afresh" in rmlab(tmp_path, *arguments).stdout


@pytest.mark.slow
def test_a_multirun_makes_one_directory_per_run_and_skips_finished_ones(tmp_path):
    arguments = ["-m", "debug=tiny", "loss=plain,margin", "seed=0,1"]
    rmlab(tmp_path, *arguments)
    assert len(list(tmp_path.glob("runs/debug/*/metrics.json"))) == 4
    again = rmlab(tmp_path, *arguments)
    assert "sweep debug: 4 runs: 4 finished (skipped)" in again.stdout


@pytest.mark.slow
def test_a_loss_of_ones_own_needs_two_files_and_no_change_of_rmlab(tmp_path):
    """README: one function, one YAML, `plugins` and `-cd`."""
    (tmp_path / "mylab" / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "mylab" / "__init__.py").touch()
    (tmp_path / "mylab" / "losses.py").write_text(
        "from rmlab import LOSSES, Preferences\n\n\n@LOSSES.register\n"
        "def squared_hinge(preferences: Preferences, *, gap: float):\n"
        '    """max(0, gap - (r_better - r_worse))^2 per pair."""\n'
        "    return (gap - preferences.gap).relu().square()\n"
    )
    (tmp_path / "mylab" / "conf" / "loss" / "squared_hinge.yaml").write_text(
        "# Squared hinge.\nsquared_hinge:\n  gap: 1.0\n"
    )
    mine = ["-cd", "mylab/conf", "plugins=[mylab.losses]", "debug=tiny", "loss=squared_hinge"]
    rmlab(tmp_path, *mine, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    out = run_directory(tmp_path)
    assert out.name.startswith("squared_hinge-s0-")
    assert yaml.safe_load((out / "config.yaml").read_text())["loss"] == {"squared_hinge": {"gap": 1.0}}


@pytest.mark.slow
def test_terms_combine_on_the_command_line(tmp_path):
    rmlab(tmp_path, "debug=tiny", "loss=margin", "+loss.center.weight=0.01")
    config = yaml.safe_load((run_directory(tmp_path) / "config.yaml").read_text())
    assert config["loss"] == {"bradley_terry": {"margin": 1.0}, "center": {"weight": 0.01}}


@pytest.mark.parametrize("logger", ["tensorboard", "trackio"])
@pytest.mark.slow
def test_other_loggers(logger, tmp_path):
    pytest.importorskip(logger, reason=f"{logger} is an extra")
    done = rmlab(tmp_path, "debug=tiny", f"logger={logger}", TRACKIO_DIR=str(tmp_path / "trackio"))
    assert "metrics.json" in done.stdout
    if logger == "tensorboard":
        assert list(run_directory(tmp_path).glob("tensorboard/**/events.out.tfevents.*"))


@pytest.mark.slow
def test_an_adapter_run_keeps_adapter_and_merged_model(tmp_path):
    rmlab(tmp_path, "debug=tiny", "peft=lora", "trainer.learning_rate=1e-2")
    out = run_directory(tmp_path)
    assert (out / "adapter" / "adapter_model.safetensors").exists()
    from transformers import AutoModelForSequenceClassification

    assert AutoModelForSequenceClassification.from_pretrained(out / "model").config.num_labels == 1


@pytest.mark.slow
def test_own_jsonl_with_a_margin_warns_when_no_row_has_one(tmp_path):
    make_pairs(40).to_json(str(tmp_path / "my.jsonl"))
    done = rmlab(tmp_path, "debug=tiny", "data=files", "data.path=my.jsonl", "loss=margin")
    assert "warning: loss.bradley_terry.margin is set, but no row states a strength" in done.stdout
    assert "40 comparisons of 40 rows" in done.stdout


@pytest.mark.slow
def test_a_pretrained_encoder_learns_from_the_command_line(minilm, tmp_path):
    """Real weights, real graded data: two steps from a folder, evaluated on held-out prompts."""
    data = shared("topical_chat.json.gz")
    done = rmlab(
        tmp_path, "experiment=topical_chat_minilm", f"data.path={data}", f"model.path={minilm}", "logger=none",
        "trainer.max_steps=2", "data.max_length=96",
    )  # fmt: skip
    metrics = json.loads((run_directory(tmp_path) / "metrics.json").read_text())
    assert metrics["eval"]["eval"]["label_ties"] > 0
    assert "60 comparisons of 60 rows; 360 responses, 900 preferences, 66 ties" in done.stdout


@pytest.mark.slow
def test_a_linear_probe_computes_its_features_once_for_all_arms(tmp_path):
    """Two losses on one frozen model: features for the training and the evaluation set, made by the first run."""
    arms = [
        "-m",
        *SMALL,
        "model.train_last_layers=0",
        "loss=plain,centered",
        "logger=none",
        "data.group_by_prompt=true",
    ]
    rmlab(tmp_path, *arms)
    logs = [file.read_text() for file in tmp_path.glob("runs/*/*/rmlab.log")]
    assert sum(log.count("frozen layers: computed once for the responses") for log in logs) == 2
    assert len(list(tmp_path.glob("runs/.cache/features-*.bin"))) == 2
    metrics = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/*/metrics.json")]
    assert len(metrics) == 2
    assert all(0 < m["eval"]["eval"]["nll"] < 1 for m in metrics)
