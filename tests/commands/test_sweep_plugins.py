"""A sweep over a loss of one's own goes on like any other, and notices when its file has changed."""

import sys

import pytest
from sweeping import TINY, here, metrics

LOSS = """
from rmlab import LOSSES, Preferences

@LOSSES.register
def {name}(preferences: Preferences, *, gap: float):
    return (gap - preferences.gap).relu()
"""
MINE = [*TINY, "plugins=[sweep_plugin]", "loss=plain"]


def launch(place, monkeypatch, *overrides):
    """As in a new process of the installed command: nothing is imported, Python does not look in the current folder."""
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "sweep_plugin", raising=False)
        patch.setattr(sys, "path", [folder for folder in sys.path if folder not in ("", str(place))])
        return here(place, *MINE, *overrides)


@pytest.mark.slow
def test_a_sweep_with_a_plugin_goes_on_and_notices_a_changed_one(tmp_path, monkeypatch):
    (tmp_path / "sweep_plugin.py").write_text(LOSS.format(name="swept_hinge"))
    launch(tmp_path, monkeypatch, "loss.swept_hinge.gap=0.5")
    first = metrics(tmp_path)
    printed = launch(tmp_path, monkeypatch, "loss.swept_hinge.gap=0.5,1")
    assert "sweep s: 2 runs: 1 finished (skipped), 1 new" in printed
    assert "warning" not in printed
    assert len(metrics(tmp_path)) == 2
    assert first.items() <= metrics(tmp_path).items()
    (tmp_path / "sweep_plugin.py").write_text(LOSS.format(name="swept_hinge") + "# other\n")
    printed = launch(tmp_path, monkeypatch, "loss.swept_hinge.gap=0.5,1")
    assert "warning: 2 finished runs were made by other inputs than is here now" in printed
