"""Sweeps under every launcher and sweeper: the same numbers, and a dead worker takes no other run along."""

import json

import pytest
import yaml
from conftest import ROOT
from hydra.core.plugins import Plugins
from sweeping import TINY, error_of, here, metrics, state, sweep


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """A finished sweep of two losses and two seeds: its folder and what it printed."""
    place = tmp_path_factory.mktemp("serial")
    return place, here(place, *TINY, "loss=plain,margin", "seed=0,1")


@pytest.mark.parametrize(
    ("launcher", "options"),
    [
        ("joblib", ["hydra.launcher.n_jobs=2"]),
        ("submitit_local", []),
        ("ray", ["+hydra.launcher.ray.init.num_cpus=2"]),
    ],
)
@pytest.mark.slow
def test_every_launcher_gives_the_numbers_of_the_serial_one(launcher, options, serial, tmp_path):
    package = {"submitit_local": "submitit"}.get(launcher, launcher)
    pytest.importorskip(f"hydra_plugins.hydra_{package}_launcher", reason=f"the extra for {launcher} is not installed")
    printed = sweep(tmp_path, *TINY, "loss=plain,margin", "seed=0,1", f"hydra/launcher={launcher}", *options)
    assert "\n[4/4] " in printed
    assert len(printed.splitlines()) <= 4 + 6, printed
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


@pytest.mark.slow
def test_a_launcher_that_dies_does_not_take_the_other_runs_along(tmp_path, monkeypatch):
    """It dies after one run of three: the other two are launched again."""
    dying_launcher(monkeypatch, 1)
    printed = here(tmp_path, *TINY, "seed=0,1,2")
    assert len(metrics(tmp_path)) == 3
    assert "the launcher stopped: MemoryError: a worker was killed" in printed
    assert [printed.count(f"\n[{n}/3] plain-s") for n in (1, 2, 3)] == [1, 1, 1]


def test_a_run_that_kills_every_launcher_fails(tmp_path, monkeypatch):
    """No end of trying: a launch that brings no run to its end is the last one."""
    dying_launcher(monkeypatch, 1, 0)
    printed = here(tmp_path, *TINY, "seed=0,1", status=1)
    states = {out.name.split("-")[1]: state(out) for out in tmp_path.glob("runs/s/plain-*")}
    assert states == {"s0": "finished", "s1": "failed"}
    assert "1 of 2 runs failed" in printed
    assert "\n[2/2] plain-s1-" in printed
    assert "failed: MemoryError: a worker was killed" in printed


@pytest.mark.slow
def test_a_failure_in_a_worker_is_told_like_one_here(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the joblib extra is not installed")
    arms = ["trainer.optim=adamw_bnb_8bit,adamw_torch", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    printed = sweep(tmp_path, *TINY, *arms, status=1)
    assert "1 of 2 runs failed" in printed
    assert len(metrics(tmp_path)) == 1


@pytest.mark.slow
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
    errors = [error_of(out) for out in tmp_path.glob("runs/tune/*-s0-*")]
    assert errors == ["data.overlong is 'dorp'; did you mean 'drop'?"] * 2


@pytest.mark.slow
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
