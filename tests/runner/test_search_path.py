"""Folders of configs on the command line and of installed packages."""

from pathlib import Path

import pytest

from rmlab.runner import search_path
from rmlab.runner.search_path import Folders, folders_of, installed, take_folders


@pytest.mark.parametrize(
    ("words", "left", "given"),
    [
        (["-cd", "a", "x=1"], ["-cd", "a", "x=1"], []),
        (["-cd", "a", "x=1", "--config-dir", "b", "-cn", "c"], ["x=1", "--config-dir", "b", "-cn", "c"], ["a"]),
        (["-cd=a", "-cd=b", "-cd", "c"], ["-cd", "c"], ["a", "b"]),
        (["x=-cd"], ["x=-cd"], []),
    ],
)
def test_hydra_is_given_the_last_folder_and_asks_for_the_others(words, left, given, monkeypatch):
    monkeypatch.setattr(Folders, "given", [])
    assert take_folders(words) == left
    assert Folders.given == [Path(folder).absolute() for folder in given]
    assert folders_of(words) == [Path(f) for f in given] + folders_of(left)


def test_a_package_names_its_folder_and_is_not_run_for_it(tmp_path, monkeypatch):
    package = tmp_path / "theirpackage"
    (package / "deep" / "conf").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        search_path.metadata.EntryPoint("one", value, "rmlab.conf")
        for value in ("theirpackage.deep.conf", "theirpackage.none", "no_such_package.conf")
    ]
    monkeypatch.setattr(search_path.metadata, "entry_points", lambda group: points if group == "rmlab.conf" else [])
    assert installed() == [package / "deep" / "conf"]
