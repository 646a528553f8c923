"""What made the numbers of a run: code, packages, hardware. Written beside them, and compared when one is skipped."""

import functools
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import rmlab
from rmlab.messages import processes
from rmlab.model.identity import weights_of_run
from rmlab.registry import installed_plugins, path_of_plugins
from rmlab.runner.config import PACKAGE, Config

PACKAGES = ("rmlab", "torch", "transformers", "accelerate", "peft", "datasets", "tokenizers", "hydra-core", "numpy")


def describe_environment() -> dict[str, Any]:
    """All that a rerun needs besides config.yaml; call it after torch is imported."""
    return {
        **git_state(),
        **software(),
        "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), **accelerator()},
        "command": sys.argv[1:],
    }


def software() -> dict[str, Any]:
    """What may change the numbers of the same config: rmlab's code, the packages, Python."""
    return {
        "code": code_hash(),
        "packages": {name: version(name) for name in (*PACKAGES, *plugin_packages())},
        "python": platform.python_version(),
        "processes": processes(),
    }


def fingerprints(config: Config) -> dict[str, str]:
    """Hashes of what the config only names: local data, plugin modules, the run it begins from. A changed one is
    another run.
    """
    specs = [s for part in (config.data.train, config.data.eval) for s in part.values() if isinstance(s, Mapping)]
    data = [Path(spec["path"]).expanduser() for spec in specs if isinstance(spec.get("path"), str)]
    files = {place: sorted(place.rglob("*")) if place.is_dir() else [place] for place in data}
    for module in (*config.plugins, *(entry.module for entry in installed_plugins())):
        place = source_of(module)
        if place is not None:
            files[place] = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    hashes = {}
    for place, some in files.items():
        whole = hashlib.sha256()
        for file in some:
            if file.is_file():
                whole.update(file_hash(file, file.stat().st_size, file.stat().st_mtime_ns))
        hashes[str(place)] = whole.hexdigest()[:16]  # by path: two sources may have files of one name
    if config.model.init_from is not None:
        hashes["model.init_from"] = weights_of_run(config.model.init_from) or ""
    return hashes


def source_of(module: str) -> Path | None:
    """The file of a module, or the folder of the package that it lies in; None for what cannot be found.

    Nothing is imported to find it, so it may be asked of code that is not to be run.
    """
    name, *parts = module.split(".")
    spec = top_level_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    while spec and not spec.origin and parts:  # a folder without __init__.py: what is in it
        part = parts.pop(0)
        spec = PathFinder.find_spec(part, places)
        places = [os.path.join(place, part) for place in places]
    if spec is None or not spec.origin:
        return None
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


def top_level_spec(name: str) -> ModuleSpec | None:
    """What importing this name, without a dot, as a plugin would find."""
    before = sys.path
    sys.path = path_of_plugins()
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    finally:
        sys.path = before


@functools.cache
def file_hash(file: Path, size: int, modified: int) -> bytes:
    """Of the content; read once per process while size and time of change stay, as many runs share their data."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def git_state() -> dict[str, str | None]:
    """Commit and hash of uncommitted changes of the checkout that rmlab runs from; nulls for an installed package."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top) != PACKAGE.parent.resolve():
        return {"commit": None, "diff": None}
    difference = git("diff", "HEAD")
    return {
        "commit": git("rev-parse", "HEAD"),
        "diff": hashlib.sha256(difference.encode()).hexdigest()[:16] if difference else None,
    }


def code_hash() -> str:
    """A hash of rmlab's own source files, but those of commands and of the report, which reads what runs have left.

    That is what `commit` cannot say of an installed package.
    """
    whole = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        if not {"report", "commands"} & set(file.relative_to(PACKAGE).parts):
            whole.update(file.relative_to(PACKAGE).as_posix().encode() + file.read_bytes())
    return whole.hexdigest()[:16]


def changed_since(environment: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """What made a finished run and is other now: of code, packages, python, processes, inputs.

    A plugin that was not loaded then made no difference to it.
    """
    here = software()
    now = {**here, "inputs": {k: inputs.get(k) for k in environment.get("inputs", {})}}
    now["packages"] = {k: here["packages"].get(k) for k in environment.get("packages", here["packages"])}
    return [key for key in now if environment.get(key) != now[key]]


def plugin_packages() -> list[str]:
    """Names of the installed packages that register with rmlab."""
    return sorted({entry.dist.name for entry in installed_plugins() if entry.dist is not None})


def version(name: str) -> str | None:
    """Of an installed package, and of rmlab also where it is not installed; None for another that is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return rmlab.__version__ if name == "rmlab" else None


def accelerator() -> dict[str, Any]:
    """torch's threads; where there is CUDA also the name of the first GPU and the number of them."""
    import torch

    known: dict[str, Any] = {"threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        known.update(gpu=torch.cuda.get_device_name(0), gpus=torch.cuda.device_count())
    return known
