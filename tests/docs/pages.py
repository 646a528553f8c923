"""The documentation as data: pages, their fenced blocks and the marks above them, the commands in a block."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """mark: the HTML comment just above it, such as `needs: hub`, `not run: installs`, `file: NAME`, `run`."""

    language: str
    text: str
    mark: str
    line: int


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["text"], m["mark"] or "", text[: m.start()].count("\n") + 1)
        for m in BLOCK.finditer(text)
    ]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a bash block; comments and continued lines are the shell's."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
