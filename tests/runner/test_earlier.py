"""The run of an earlier stage is found by its seed, and never guessed."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rmlab.messages import UserError
from rmlab.runner.config import register
from rmlab.runner.directory import RunDirectory
from rmlab.runner.earlier import earlier_run


def finished(place, seed):
    out = RunDirectory(place)
    out.write_config({"seed": seed, "run": {}, "loss": {}})
    out.write_metrics({"eval": {}, "train": {}})
    return out


def test_a_run_is_followed_by_its_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        finished(tmp_path / "runs" / "first" / f"plain-s{seed}-0000000{seed}", seed)
    RunDirectory(tmp_path / "runs" / "first" / "plain-s2-00000002").write_config({"seed": 2, "run": {}, "loss": {}})
    register()
    config = OmegaConf.create({"seed": 1, "begin": "${rmlab_run:first,${seed}}"})
    assert config.begin == "runs/first/plain-s1-00000001"
    with pytest.raises(OmegaConfBaseException, match="no finished run of seed 2"):
        _ = OmegaConf.merge(config, {"seed": 2}).begin
    finished(tmp_path / "runs" / "first" / "margin-s1-0000000f", 1)
    with pytest.raises(UserError, match="2 runs of seed 1"):
        earlier_run("first", 1)
