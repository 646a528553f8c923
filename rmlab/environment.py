"""What made the numbers of a run: code, packages, hardware. Written beside them, and compared when one is skipped."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import rmlab

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
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
    }


def git_state() -> dict[str, str | None]:
    """Commit and hash of uncommitted changes of the checkout that rmlab runs from; nulls for an installed package."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top) != Path(__file__).parent.parent.resolve():
        return {"commit": None, "diff": None}
    difference = git("diff", "HEAD")
    return {
        "commit": git("rev-parse", "HEAD"),
        "diff": hashlib.sha256(difference.encode()).hexdigest()[:16] if difference else None,
    }


def code_hash() -> str:
    """A hash of rmlab's own source files: what `commit` cannot say of an installed package."""
    whole = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        whole.update(file.relative_to(Path(__file__).parent).as_posix().encode() + file.read_bytes())
    return whole.hexdigest()[:16]


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return rmlab.__version__ if name == "rmlab" else None


def accelerator() -> dict[str, Any]:
    import torch

    known: dict[str, Any] = {"threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        known.update(gpu=torch.cuda.get_device_name(0), gpus=torch.cuda.device_count())
    return known
