"""Runs at W&B."""

import sys
from types import SimpleNamespace

import pytest

from rmlab.runner.config import Config
from rmlab.runner.directory import RunDirectory
from rmlab.runner.tracking import tracked


@pytest.mark.parametrize(("error", "code"), [(None, None), (KeyError("no"), 1), (SystemExit(143), 1)])
def test_an_error_ends_the_run_at_wandb_and_is_not_printed_there(monkeypatch, tmp_path, capfd, error, code):
    """W&B's own context manager prints whatever passes through it, a Ctrl-C too."""
    ended = []
    run = SimpleNamespace(finish=lambda exit_code=None: ended.append(exit_code))
    fake = SimpleNamespace(init=lambda **_: run, Settings=lambda **_: None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = Config(logger={"report_to": "wandb", "mode": "offline"})
    if error is None:
        with tracked(config, RunDirectory(tmp_path)) as tracker:
            assert tracker is run
    else:
        with pytest.raises(type(error)), tracked(config, RunDirectory(tmp_path)):
            raise error
    assert ended == [code]
    assert capfd.readouterr().err == ""
