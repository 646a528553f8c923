"""Runs in a folder of their own, for faults.py: start the command, disturb it, compare what it left."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from faults_stages import WORK

HERE = Path(__file__).resolve().parent
OVERRIDES = [
    "debug=tiny", "logger=none", "run.threads=1", "trainer.save_steps=1", "trainer.save_total_limit=1",
    "run.keep=[model,checkpoints]",
    "trainer.max_steps=4", f"run.dir={WORK}/run", f"run.cache_dir={WORK}/cache",
]  # fmt: skip
TIMEOUT = 300  # seconds of one run, which takes about ten


class Failed(Exception):  # noqa: N818
    """What a cell found wrong, in a sentence."""


# ---- runs ----


@dataclass(frozen=True)
class Ended:
    """A run that has ended: its exit status (negative: the signal), and all that it printed."""

    status: int
    text: str

    @property
    def last(self) -> str:
        """The last line; a progress bar ends its own with a return."""
        return next((line.strip() for line in reversed(re.split("[\r\n]", self.text)) if line.strip()), "")

    def sentence(self) -> str:
        """The error that it ended with. Failed unless it is one line after `rmlab: error:`, and no traceback."""
        said = re.findall("rmlab: error: .*", self.text)
        if "Traceback" in self.text:
            raise Failed(f"a traceback was printed, exit status {self.status}: {said[-1] if said else self.last}")
        if self.status not in (1, 2) or len(said) != 1:
            raise Failed(f"exit status {self.status} and {len(said)} sentences: {self.last}")
        return said[0]


@dataclass(frozen=True)
class Place:
    """A folder in which one command is run, disturbed and not. `work` holds all that the runs write."""

    path: Path

    @classmethod
    def anew(cls, path: Path) -> "Place":
        """An empty one."""
        shutil.rmtree(path, ignore_errors=True)
        (path / WORK).mkdir(parents=True)
        return cls(path)

    @property
    def work(self) -> Path:
        return self.path / WORK

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The command, or with `words` (stage, fault, call) the one that is disturbed; it prints to pipes."""
        launcher = [str(HERE / "faults_stages.py"), *words, "--"] if words else ["-m", "rmlab.commands.train"]
        env = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
        env |= {"HF_DATASETS_CACHE": f"{WORK}/datasets", "PYTHONDONTWRITEBYTECODE": "1"}
        both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([sys.executable, *launcher, *OVERRIDES], cwd=self.path, env=env, **both)

    def ended(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for a run; all that it printed is kept in a file beside the others."""
        try:
            text = process.communicate(timeout=TIMEOUT)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failed(f"a run took longer than {TIMEOUT} s") from None
        (self.path / f"run{len(list(self.path.glob('run*.log')))}.log").write_text(text, encoding="utf-8")
        return Ended(process.returncode, text)

    def run(self) -> Ended:
        """The undisturbed command. Failed unless it succeeds."""
        ended = self.ended(self.start())
        if ended.status != 0:
            raise Failed(f"undisturbed, it ended with {ended.status}: {ended.last}")
        return ended

    def disturbed(self, stage: str, fault: str, call: int) -> Ended:
        """The command, disturbed at that call of the stage. Failed if the stage never came."""
        self.struck.unlink(missing_ok=True)
        ended = self.ended(self.start(stage, fault, str(call)))
        if not self.struck.exists():
            raise Failed(f"the stage never came; exit status {ended.status}")
        return ended

    @property
    def struck(self) -> Path:
        """What the disturbed run writes as it reaches its stage: the names of the files that the stage wrote."""
        return self.path / "struck.json"

    def compare(self, reference: Path) -> None:
        """Failed unless the results are those of the reference, to the byte, and nothing is left of earlier tries."""
        found, wanted = self.work / "run", reference / WORK / "run"
        names = {str(f.relative_to(wanted)) for f in wanted.glob("scores/*.parquet")}
        for name in sorted({*names, "metrics.json", "history.json", "model/model.safetensors"}):
            if not (found / name).is_file() or (found / name).read_bytes() != (wanted / name).read_bytes():
                raise Failed(f"{name} is {'another' if (found / name).exists() else 'gone'}")
        for name in ("config.yaml", "environment.json"):
            try:
                keys, known = (set(yaml.safe_load((d / name).read_text(encoding="utf-8"))) for d in (found, wanted))
            except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
                raise Failed(f"{name} is lost: {type(error).__name__}") from None
            if keys != known:
                raise Failed(f"{name} has other keys: {sorted(keys ^ known)}")
        left = [str(f.relative_to(found)) for f in found.rglob("*.tmp")]
        kept, right = ({f.name for f in (d / "checkpoints").iterdir()} for d in (found, wanted))
        if left or kept != right:
            raise Failed(f"left behind: {left or sorted(kept ^ right)}")

    def again(self, reference: Path, progress: str | None = None) -> Ended:
        """Run the command undisturbed and compare. Failed where it does not go on from where it could (`progress`)."""
        ended = self.run()
        self.compare(reference)
        if progress and progress not in ended.text:
            raise Failed(f"what was finished was lost: the next run does not say {progress!r}")
        return ended


# ---- harms ----


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def flipped(file: Path) -> None:
    """One bit, in the middle: what a check of the form alone would miss."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def removed(file: Path) -> None:
    file.unlink()


HARMS = (cut, zeroed, flipped, removed)
