"""Every command of the documentation does what it says: it runs here, made small, in the order of its page.

A comment just above a block says otherwise. `needs: hub` (a model or data from elsewhere) and `needs: cluster`: its
commands are only composed. `not run: reason`: installs and the like; what they name must exist. `file: NAME` above any
block writes it, and `run` above a Python block runs it; other Python must compile.
"""

import glob
import importlib
import json
import logging
import os
import re
import shutil
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from pages import PAGES, ROOT, Block, blocks, commands, name

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
SMALL = ["logger=none", "trainer.max_steps=2", "trainer.save_strategy=no", "run.threads=1"]
ROWS = {  # the files that the documentation speaks of: names of the two sides
    "my.jsonl": ("chosen", "rejected"),
    "hh.jsonl": ("chosen", "rejected"),
    "dev.jsonl": ("chosen", "rejected"),
    "hard.jsonl": ("chosen", "worse"),
    "good.jsonl": ("good", "rejected"),
}


def call(command: str, *arguments: str) -> None:
    """A console script in this process, which has torch imported already."""
    module, _, function = SCRIPTS[command].partition(":")
    before, threads = sys.argv, torch.get_num_threads()
    sys.argv = [command, *arguments]
    try:
        status = getattr(importlib.import_module(module), function)()
    except SystemExit as stopped:
        status = stopped.code
    finally:
        sys.argv = before
        torch.set_num_threads(threads)
        logging.getLogger().handlers.clear()  # Hydra's, of a folder that goes
    assert not status, f"{command} {' '.join(arguments)} ended with {status}"


def small(arguments: list[str]) -> list[str]:
    """A training command made small: one seed (two in a sweep's file), two steps, few rows."""
    if "--cfg" in arguments:
        return arguments
    arguments = [re.sub(r"^(seed=\d+),.*", r"\1", a) for a in arguments]
    if "-cn" in arguments:
        search = arguments[arguments.index("-cn") + 1] == "tune"
        arguments += ["hydra.sweeper.n_trials=2"] if search else ["seed=0,1"]
    synthetic = not any(a.startswith("data=") for a in arguments)
    return [*arguments, *SMALL, *(["data.train.synthetic.prompts=200"] if synthetic else [])]


def run(command: list[str]) -> None:
    program, *arguments = command
    assert program in SCRIPTS, f"mark the block of {program!r}, or teach this test to run it"
    arguments = [found for a in arguments for found in (sorted(glob.glob(a)) if "*" in a and "(" not in a else [a])]
    if program == "rmlab":
        arguments = small(arguments)
    elif program == "rmlab-report":
        arguments.append("--no-figures")  # seconds each, and tested elsewhere
    call(program, *arguments)


def compose(command: list[str]) -> None:
    """The first job of a training command; for other programs of rmlab, whether they know these arguments."""
    program, *arguments = command
    if program == "rmlab":
        first = [a if any(c in a for c in "{[(") else a.partition(",")[0] for a in arguments if a != "-m"]
        call("rmlab", *first, "--cfg", "job")
    elif program == "torchrun":
        assert module_exists(arguments[arguments.index("-m") + 1])
    else:
        assert program in SCRIPTS


def exists(command: list[str]) -> None:
    """What a command that is not run names: a target of make, a file or module of Python, an option of a script."""
    program, *arguments = command
    if program == "make":
        assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) for target in arguments)
    if program == "python":
        source = (ROOT / arguments[0]).read_text()
        assert all(option in source for option in arguments if option.startswith("-"))
    if program == "rmlab":
        compose(command)


def module_exists(module: str) -> bool:
    return find_spec(module) is not None


@pytest.fixture(scope="module")
def finished_study(tmp_path_factory):
    """runs/losses, which most pages speak of: made once."""
    folder = tmp_path_factory.mktemp("study")
    furnish(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        run(["rmlab", "-cd", "sweeps", "-cn", "losses"])
    finally:
        os.chdir(before)
    return folder / "runs"


@pytest.fixture
def place(tmp_path, monkeypatch, finished_study):
    """A working directory as a reader has it: a checkout's files, rows, a finished study."""
    furnish(tmp_path)
    shutil.copytree(finished_study, tmp_path / "runs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for module in [m for m in sys.modules if m.partition(".")[0] == "mylab"]:
        del sys.modules[module]


def furnish(folder: Path) -> None:
    for part in ("sweeps", "examples", "benchmarks"):
        (folder / part).symlink_to(ROOT / part)
    for file, sides in ROWS.items():
        rows = [
            {
                "prompt": f"{file} {n} asks : tell me about rivers . ",
                sides[0]: f"Gladly , here is something about rivers {n} .",
                sides[1]: f"Ugh , fine {n} .",
                "meta": {"rating_gap": 1.0 + n % 3},
            }
            for n in range(60)
        ]
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = [" ".join(f"of {place} number {n} much is told ," for place in range(40)) for n in range(60)]
    (folder / "web.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in told))


def perform(block: Block, namespace: dict[str, object]) -> None:
    kind, _, rest = block.mark.partition(":")
    if kind == "file":
        file = Path(rest.strip())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
    if block.language == "python":
        code = compile(block.text, "block", "exec")
        if kind == "run":
            exec(code, namespace)
    if block.language == "bash":
        does = {"needs": compose, "not run": exists, "": run}[kind]
        for command in commands(block.text):
            does(command)


LONG = [f"docs/{page}.md" for page in ("sweeps", "report", "run-directory", "data", "ensembles")]  # half a minute each


@pytest.mark.parametrize(
    "page", [pytest.param(p, id=name(p), marks=[pytest.mark.slow] * (name(p) in LONG)) for p in PAGES]
)
def test_the_commands_of_a_page_do_what_it_says(page, place):
    namespace: dict[str, object] = {}
    for block in blocks(page):
        try:
            perform(block, namespace)
        except Exception as error:
            raise AssertionError(f"{name(page)}, line {block.line}: {error}") from error


def test_marks_are_known_and_few_commands_are_not_run():
    marks = [block.mark for page in PAGES for block in blocks(page) if block.language == "bash"]
    for mark in marks:
        assert mark in ("", "needs: hub", "needs: cluster") or mark.startswith("not run: "), mark
    assert sum(mark == "" for mark in marks) > len(marks) / 2
