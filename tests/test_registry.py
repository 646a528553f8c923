"""Registries: names, options, and packages that join by entry point."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from rmlab import LOSSES, UserError
from rmlab.registry import Registry


def install(site, name, entry_points, **modules):
    """What pip leaves of a package: its modules, and metadata with entry points."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n{key} = {module}\n" for group, (key, module) in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)


def run(site, place, *overrides):
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rmlab.commands.train", "logger=none", "run.dir=out", *overrides]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)


LOSS = """
from rmlab import LOSSES, Preferences


@LOSSES.register
def squared_hinge(preferences: Preferences, *, gap: float):
    return (gap - preferences.gap).relu().square()
"""
SOURCE = """
from datasets import Dataset

from rmlab import DATASETS


@DATASETS.register
def counting(*, rows: int):
    return Dataset.from_list(
        [{"prompt": f"Say {n} .", "chosen": f"{n} it is .", "rejected": "no ."} for n in range(rows)]
    )
"""


def test_a_loss_and_a_data_source_join_by_entry_point(tmp_path):
    """No `plugins:`, no config directory: the package is installed, and its names can be used. The run records it."""
    site = tmp_path / "site"
    groups = {"rmlab.losses": ("squared_hinge", "theirloss"), "rmlab.data": ("counting", "theirdata")}
    install(site, "theirlab", groups, theirloss=LOSS, theirdata=SOURCE)
    done = run(
        site, tmp_path, "loss.squared_hinge.gap=1.0", "data.train={theirs: {source: counting, rows: 40}}",
        "~data.train.synthetic", "debug=tiny", "data.eval_fraction=0.25",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert metrics["train"]["steps"] == 2
    assert metrics["eval"]["eval"]["comparisons"] == 10
    assert environment["packages"]["theirlab"] == "1.0"
    assert any(name.endswith("theirloss.py") for name in environment["inputs"])


@pytest.mark.slow
def test_an_installed_package_that_cannot_be_imported_is_named_and_passed_over(tmp_path):
    site = tmp_path / "site"
    install(site, "broken", {"rmlab.losses": ("broken", "brokenloss")}, brokenloss="import no_such_module\n")
    done = run(site, tmp_path, "debug=tiny", "data.train.synthetic.prompts=100")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "warning: brokenloss, which registers with rmlab.losses, cannot be imported" in done.stdout


def test_unknown_names_and_options_name_both_sides():
    with pytest.raises(UserError, match="no loss named 'bradley_tery'; did you mean 'bradley_terry'"):
        LOSSES.build("bradley_tery", {})
    with pytest.raises(UserError, match=r"loss.bradley_terry takes \['margin', .*\], the config gives \['scale'\]"):
        LOSSES.build("bradley_terry", {"scale": 1.0})


def test_annotations_may_be_text_and_name_what_only_a_type_checker_knows():
    registry = Registry("term", "rmlab.losses")

    @registry.register
    def plugged(data: "Unknown", *, gap: "float") -> "Unknown":  # noqa: F821
        return data, gap

    assert registry.build("plugged", {"gap": 2})("rows") == ("rows", 2)
    with pytest.raises(UserError, match=r"term.plugged.gap must be a number, not 'wide'"):
        registry.build("plugged", {"gap": "wide"})
