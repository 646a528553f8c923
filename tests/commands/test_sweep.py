"""Sweeps: what their files promise, and that nothing is run twice or lost, under every launcher."""

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, make_pairs
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from rmlab.commands.train import main
from rmlab.runner.config import CONF, register, run_id, to_dict, validate
from rmlab.runner.directory import BusyError, locked, read_error, state, write_error

register()
SWEEPS = sorted(file.stem for file in (ROOT / "sweeps").glob("*.yaml") if file.stem != "wandb")
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


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """A finished sweep of two losses and two seeds: its folder and what it printed."""
    place = tmp_path_factory.mktemp("serial")
    return place, here(place, *TINY, "loss=plain,margin", "seed=0,1")


# ---- the files in sweeps/ ----


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_file_asks_a_question_and_its_jobs_compose(name):
    text = (ROOT / "sweeps" / f"{name}.yaml").read_text()
    assert text.startswith("question: ")
    assert text.splitlines()[0].endswith("?")
    content = yaml.safe_load(text)
    assert f"| `{name}` | {content['question']} |" in (ROOT / "README.md").read_text()
    assert content["hydra"]["mode"] == "MULTIRUN"
    assert content["study"] == name
    params = content["hydra"]["sweeper"]["params"]
    ids = set()
    jobs = first_jobs(params) if name != "tune" else [["loss=plain", "trainer.learning_rate=0.001"]]
    for job in jobs:
        with initialize_config_dir(str(ROOT / "sweeps"), version_base="1.3"):
            config = compose(name, [*job, f"hydra.searchpath=[file://{CONF}]"], return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            OmegaConf.set_struct(config, False)
            del config.hydra
            validate(to_dict(config))
            ids.add(run_id(config))
    assert len(ids) == len(jobs)


def first_jobs(params):
    """Every value of the first swept key, with the first value of the others."""
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    choices = []
    for override in parsed:
        if "glob" in str(params[override.key_or_group]):
            values = [file.stem for file in sorted((CONF / override.key_or_group).glob("*.yaml"))]
        elif override.is_sweep_override():
            values = list(override.sweep_string_iterator())
        else:
            values = [override.get_value_element_as_str()]
        choices.append([f"{override.key_or_group}={value}" for value in values])
    swept = next(i for i, values in enumerate(choices) if len(values) > 1)
    return [[values[0] if i != swept else value for i, values in enumerate(choices)] for value in choices[swept]]


def test_every_registered_loss_is_swept_and_an_experiment_replaces_the_embedded_default(tmp_path):
    """`glob(*)` finds the losses of -cd too, and one override brings other data."""
    command = [
        sys.executable,
        "-m",
        "rmlab.commands.train",
        "-cd",
        str(ROOT / "sweeps"),
        "-cn",
        "losses",
        "--cfg",
        "all",
    ]
    done = subprocess.run([*command, "experiment=topical_chat_minilm"], capture_output=True, text=True, cwd=tmp_path)
    config = yaml.safe_load(done.stdout)
    assert config["hydra"]["sweeper"]["params"] == {"loss": "glob(*)", "seed": "range(5)"}
    assert list(config["data"]["train"]) == ["train"]
    assert config["run"]["threads"] is None
    assert config["study"] == "losses"


# ---- nothing is run twice, nothing is lost ----


def test_a_sweep_says_how_many_runs_of_each_kind_and_how_far_it_is(serial):
    place, printed = serial
    assert "sweep s: 4 runs: 4 new" in printed
    assert "sweep s: 4 of 4 runs done, 0 failed, 0 left" in printed
    assert len(metrics(place)) == 4
    config = yaml.safe_load(next(place.glob("runs/s/margin-s1-*/config.yaml")).read_text())
    assert config["run"]["choices"]["loss"] == "margin"


def test_finished_runs_are_not_launched_and_others_are_taken_up(serial):
    """One line says how many are skipped, resumed and tried again; metrics stay the same bytes."""
    place, _ = serial
    before = metrics(place)
    half, broken = (next(place.glob(f"runs/s/{name}-s1-*")) for name in ("plain", "margin"))
    (half / "metrics.json").unlink()
    (broken / "metrics.json").unlink()
    write_error(RuntimeError("no memory\nat all"), broken)
    assert (state(half), state(broken), read_error(broken)) == ("half-done", "failed", "RuntimeError: no memory")
    printed = here(place, *TINY, "loss=plain,margin", "seed=0,1")
    assert "sweep s: 4 runs: 2 finished (skipped), 1 half-done (resumed), 1 failed (tried again)" in printed
    assert printed.count("run runs/s/") == 2
    assert metrics(place) == before
    assert not (broken / "error.txt").exists()


def test_a_failing_run_does_not_stop_the_others(tmp_path):
    """Its error is in its directory and in the summary; the exit status is 1; its neighbours are finished."""
    arms = ["trainer.optim=adamw_bnb_8bit,adamw_torch", "loss=plain,margin"]  # bitsandbytes is not installed
    printed = here(tmp_path, *TINY, *arms, status=1)
    runs = {out: state(out) for out in tmp_path.glob("runs/s/*-s0-*")}
    assert sorted(runs.values()) == ["failed", "failed", "finished", "finished"]
    for out in (out for out, found in runs.items() if found == "failed"):
        assert "bitsandbytes" in read_error(out)
        assert "Traceback" in (out / "error.txt").read_text()
        assert f"failed: {out.relative_to(tmp_path)}: ImportError" in printed
        assert "bitsandbytes" in (out / "rmlab.log").read_text()
    assert "2 of 4 runs failed" in printed
    assert "Error executing job" not in printed


def test_a_config_that_cannot_run_fails_alone(tmp_path):
    printed = here(tmp_path, *TINY, "data.overlong=drop,dorp", status=1)
    (out,) = (out for out in tmp_path.glob("runs/s/*-s0-*") if state(out) == "failed")
    assert read_error(out) == "data.overlong is 'dorp'; did you mean 'drop'?"
    assert f"failed: {out.relative_to(tmp_path)}: data.overlong is 'dorp'" in printed
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
    with locked(out):
        assert state(out) == "finished"
        (out / "metrics.json").rename(out / "aside.json")
        assert state(out) == "running"
        with pytest.raises(BusyError), locked(out):
            pass
        refused = here(place, *arguments, "loss=plain", status=2)
        assert f"{out.relative_to(place)} is being trained by another process" in refused
        waiting = start(place, *TINY, "loss=plain,margin", "seed=0")
        lines = iter(waiting.stdout.readline, "")  # and it is not launched only to be passed over
        assert any("waiting for another process, which trains runs/s/plain-s0-" in line for line in lines)
        (out / "aside.json").rename(out / "metrics.json")  # the other process has finished
    rest, _ = waiting.communicate(timeout=300)
    assert waiting.returncode == 0, rest
    assert f"skipped {out.relative_to(place)}" in rest
    assert "passed over" not in rest
    assert metrics(place) == before


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(tmp_path):
    """Each run is trained once, by one of them; both end well."""
    arguments = [*TINY, "loss=plain,margin", "seed=0,1"]
    both = [start(tmp_path, *arguments) for _ in range(2)]
    printed = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sum(text.count("\nrun runs/s/") for text in printed) == 4
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
    sweep(whole, *arguments)
    process = start(killed, *arguments)
    deadline = time.time() + 120
    while time.time() < deadline and not list(killed.glob("runs/s/plain-s1-*/checkpoints/checkpoint-*/whole")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    states = {out.name.split("-")[1]: state(out) for out in killed.glob("runs/s/plain-*")}
    assert states == {"s0": "finished", "s1": "half-done", "s2": "new"}
    finished = next(killed.glob("runs/s/plain-s0-*/metrics.json")).stat().st_mtime_ns
    printed = sweep(killed, *arguments)
    assert "sweep s: 3 runs: 1 finished (skipped), 1 half-done (resumed), 1 new" in printed
    assert metrics(killed) == metrics(whole)
    assert next(killed.glob("runs/s/plain-s0-*/metrics.json")).stat().st_mtime_ns == finished


# ---- launchers and sweepers ----


@pytest.mark.parametrize(
    ("launcher", "options"),
    [
        ("joblib", ["hydra.launcher.n_jobs=2"]),
        pytest.param("submitit_local", [], marks=pytest.mark.slow),
        pytest.param("ray", ["+hydra.launcher.ray.init.num_cpus=2"], marks=pytest.mark.slow),
    ],
)
def test_every_launcher_gives_the_numbers_of_the_serial_one(launcher, options, serial, tmp_path):
    package = {"submitit_local": "submitit"}.get(launcher, launcher)
    pytest.importorskip(f"hydra_plugins.hydra_{package}_launcher", reason=f"the extra for {launcher} is not installed")
    printed = sweep(tmp_path, *TINY, "loss=plain,margin", "seed=0,1", f"hydra/launcher={launcher}", *options)
    assert "sweep s: 4 of 4 runs done, 0 failed, 0 left" in printed
    assert metrics(tmp_path) == metrics(serial[0])


def dying_launcher(monkeypatch, *deaths):
    """Launchers die at the job that is `deaths[n]`-th of the n-th launch, as when a worker is killed for memory."""
    make, left = Plugins.instantiate_launcher, list(deaths)

    def instantiate_launcher(self, **arguments):
        launcher = make(self, **arguments)
        launch = launcher.launch

        def dies(job_overrides, initial_job_idx):
            if not left:
                return launch(job_overrides, initial_job_idx)
            launch(job_overrides[: left.pop(0)], initial_job_idx)
            raise MemoryError("a worker was killed")

        launcher.launch = dies
        return launcher

    monkeypatch.setattr(Plugins, "instantiate_launcher", instantiate_launcher)


def test_a_launcher_that_dies_does_not_take_the_other_runs_along(tmp_path, monkeypatch):
    """It dies after one run of three: the other two are launched again."""
    dying_launcher(monkeypatch, 1)
    printed = here(tmp_path, *TINY, "seed=0,1,2")
    assert len(metrics(tmp_path)) == 3
    assert "the launcher stopped: MemoryError: a worker was killed" in printed
    assert printed.count("\nrun runs/s/") == 3


def test_a_run_that_kills_every_launcher_fails(tmp_path, monkeypatch):
    """No end of trying: a launch that brings no run to its end is the last one."""
    dying_launcher(monkeypatch, 1, 0)
    printed = here(tmp_path, *TINY, "seed=0,1", status=1)
    states = {out.name.split("-")[1]: state(out) for out in tmp_path.glob("runs/s/plain-*")}
    assert states == {"s0": "finished", "s1": "failed"}
    assert "1 of 2 runs failed" in printed
    assert "failed: runs/s/plain-s1-" in printed


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
def test_a_failure_in_a_worker_is_told_like_one_here(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the joblib extra is not installed")
    arms = ["trainer.optim=adamw_bnb_8bit,adamw_torch", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    printed = sweep(tmp_path, *TINY, *arms, status=1)
    assert "1 of 2 runs failed" in printed
    assert len(metrics(tmp_path)) == 1


def test_an_optuna_study_goes_on_where_it_was(tmp_path):
    """Two trials, two more: four directories, one study, the best value told."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the tune extra is not installed")
    tune = ["-cd", str(ROOT / "sweeps"), "-cn", "tune", "debug=tiny", "study=tune", "hydra.sweeper.n_trials=2"]
    here(tmp_path, *tune)
    first = metrics(tmp_path, "tune")
    assert len(first) == 2
    printed = here(tmp_path, *tune)
    assert "Best value: " in printed
    after = metrics(tmp_path, "tune")
    assert len(after) == 4
    assert first.items() <= after.items()
    import optuna

    (name,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path}/runs/tune/optuna.db")
    assert (name.study_name, name.n_trials) == ("tune", 4)
    accuracies = [json.loads(content)["eval"]["eval"]["accuracy"] for content in after.values()]
    assert f"Best value: {max(accuracies)}" in printed


def test_a_trial_that_cannot_run_does_not_stop_the_study(tmp_path):
    """Every trial of this one has a wrong value; each is told to Optuna as failed, and none is the whole sweep."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the tune extra is not installed")
    tune = ["-cd", str(ROOT / "sweeps"), "-cn", "tune", "debug=tiny", "study=tune", "hydra.sweeper.n_trials=2"]
    here(tmp_path, *tune, "data.overlong=dorp", status=1)
    errors = [read_error(out) for out in tmp_path.glob("runs/tune/*-s0-*")]
    assert errors == ["data.overlong is 'dorp'; did you mean 'drop'?"] * 2


def test_values_that_belong_together_are_one_choice(tmp_path):
    """Paired sweeps without a plugin: a dict per choice, merged into its node."""
    pairs = "trainer={learning_rate: 1e-3, weight_decay: 0.1}, {learning_rate: 2e-3, weight_decay: 0.2}"
    here(tmp_path, *TINY, pairs)
    trainers = [yaml.safe_load(file.read_text())["trainer"] for file in tmp_path.glob("runs/s/*/config.yaml")]
    assert sorted((t["learning_rate"], t["weight_decay"]) for t in trainers) == [(0.001, 0.1), (0.002, 0.2)]
    assert all(t["max_steps"] == 2 for t in trainers)


def test_a_wandb_agent_can_drive_rmlab(tmp_path):
    """The command that W&B's agent would make of sweeps/wandb.yaml. A finished run gives its results again."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    content = yaml.safe_load((ROOT / "sweeps" / "wandb.yaml").read_text())
    values = {"loss": {"value": "plain"}, "trainer.learning_rate": {"value": 0.001}}
    arguments = create_sweep_command_args({"args": values})
    command = []
    for part in create_sweep_command(content["command"]):
        command += arguments["args_no_hyphens"] if part == "${args_no_hyphens}" else [part]
    assert command[0] == content["program"] == "rmlab"
    command = [part.replace("online", "offline") for part in command[1:]]
    for run in ("first", "second"):
        environment = {"WANDB_SWEEP_ID": "sweep", "WANDB_RUN_ID": run}
        sweep(tmp_path, *command, "debug=tiny", "logger=wandb", "study=s", **environment)
        assert list(tmp_path.glob(f"runs/s/plain-s0-*/wandb/offline-run-*-{run}/run-{run}.wandb")), run
    assert len(metrics(tmp_path)) == 1
