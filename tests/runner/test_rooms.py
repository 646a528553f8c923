"""The rooms of rmlab stand on each other: a module imports its own room and those below, also inside functions."""

import ast

from conftest import ROOT

PACKAGE = ROOT / "rmlab"
ROOMS = ("commands", "report", "runner", "training", "scoring", "model", "metrics", "losses", "data")  # from above
GROUND = ("registry", "messages", "upstream")


def imported(file):
    """(line, module below rmlab) of every import of rmlab in a file; "" for rmlab/__init__.py alone."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "rmlab":
                    yield node.lineno, alias.name.partition(".")[2]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} is relative"
            if node.module == "rmlab":  # `from rmlab import upstream`
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif (node.module or "").startswith("rmlab."):
                yield node.lineno, node.module.partition(".")[2]


def level(room):
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def test_imports_only_go_down():
    upwards = []
    for file in sorted(PACKAGE.rglob("*.py")):
        room = file.relative_to(PACKAGE).with_suffix("").parts[0]
        if room == "__init__":  # its public names are of all rooms
            continue
        for line, module in imported(file):
            other = module.partition(".")[0]
            if other and level(other) < level(room):
                upwards.append(f"{file.relative_to(ROOT)}:{line} imports {module}")
    assert upwards == []


def test_the_ground_imports_no_room():
    for name in GROUND:
        assert {module for _, module in imported(PACKAGE / f"{name}.py")} <= set(GROUND)


def test_every_room_and_module_has_its_place():
    """A new room is put into the order above; another file beside the rooms needs a reason."""
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and list(p.glob("*.py"))}
    assert folders == set(ROOMS)
    assert {p.stem for p in PACKAGE.glob("*.py")} == {"__init__", *GROUND}


def test_the_rooms_of_plain_files_need_no_torch():
    """By their text: `data`, `report` and the ground never name it at the top of a module."""
    for file in [*PACKAGE.glob("*.py"), *(PACKAGE / "data").rglob("*.py"), *(PACKAGE / "report").rglob("*.py")]:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("torch", "transformers", "peft") for name in names), file


def test_the_list_of_imports_sees_all_kinds(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "import rmlab.data.rows\nfrom rmlab import upstream, report\nfrom rmlab.runner.run import run\n"
        "import os, rmlab\ndef f():\n    from rmlab.commands.train import main\nimport rmlabel\nfrom rmlabel import x\n"
    )
    modules = [module for _, module in imported(file)]
    assert sorted(modules) == ["", "commands.train", "data.rows", "report", "runner.run", "upstream"]
