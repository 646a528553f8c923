"""What the order of the rooms (pyproject.toml, checked by import-linter in `make lint`) does not say."""

import ast

from conftest import ROOT

PACKAGE = ROOT / "rmlab"


def test_the_rooms_of_plain_files_need_no_torch():
    """By their text: `data`, `report` and what is beside the rooms never name it at the top of a module."""
    for file in [*PACKAGE.glob("*.py"), *(PACKAGE / "data").rglob("*.py"), *(PACKAGE / "report").rglob("*.py")]:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("torch", "transformers", "peft") for name in names), file
