"""A changed file of a plugin makes other runs, wherever in the current folder it lies; finding it runs none of it."""

import sys

import pytest

from rmlab.runner.config import Config
from rmlab.runner.environment import changed_since, describe_environment, fingerprints, source_of

RAN = "open('it-ran', 'w')\n"


def lay(place, *files):
    for file in files:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(RAN)


@pytest.fixture
def console(tmp_path, monkeypatch):
    """The current folder, which is no place where Python looks, as for an installed command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    return tmp_path


@pytest.mark.parametrize(
    ("plugin", "files", "changed"),
    [
        ("lone_module", ["lone_module.py"], "lone_module.py"),
        ("whole_package", ["whole_package/__init__.py", "whole_package/losses.py"], "whole_package/losses.py"),
        ("a_package.losses", ["a_package/__init__.py", "a_package/losses.py"], "a_package/losses.py"),
        ("by_a_module.losses", ["by_a_module/__init__.py", "by_a_module/losses.py"], "by_a_module/__init__.py"),
        ("no_init.losses", ["no_init/losses.py"], "no_init/losses.py"),
        ("no_init_at_all.inner.losses", ["no_init_at_all/inner/losses.py"], "no_init_at_all/inner/losses.py"),
    ],
)
def test_a_changed_plugin_is_noticed(plugin, files, changed, console):
    lay(console, *files)
    config = Config(plugins=[plugin])
    before = {**describe_environment(), "inputs": fingerprints(config)}
    assert changed_since(before, fingerprints(config)) == []
    (console / changed).write_text(RAN + "# other\n")
    assert changed_since(before, fingerprints(config)) == ["inputs"]
    assert not (console / "it-ran").exists()
    assert str(console) not in sys.path


def test_what_cannot_be_found_has_no_source(console):
    lay(console, "somewhere/losses.py")
    assert source_of("nowhere") is None
    assert source_of("somewhere.else") is None
    assert source_of("somewhere.losses") == console / "somewhere" / "losses.py"
