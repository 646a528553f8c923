"""The documentation holds together: links resolve, the config page is up to date, the site builds, fetching nothing."""

import re
import runpy
import subprocess
import sys
from importlib.util import find_spec

import pytest
from pages import PAGES, ROOT, name

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
OTHERS = [ROOT / file for file in ("CONTRIBUTING.md", "CHANGELOG.md", "examples/own_loss/README.md")]


def test_the_config_page_is_what_conf_says():
    script = runpy.run_path(str(ROOT / "docs" / "generate_config.py"))
    assert script["page"]() == (ROOT / "docs" / "config.md").read_text(encoding="utf-8"), "run make docs"


def test_every_value_of_train_yaml_is_explained():
    """On the config page each key has a meaning, but those of TrainingArguments that need none."""
    script = runpy.run_path(str(ROOT / "docs" / "generate_config.py"))
    found = list(script["entries"]((ROOT / "conf" / "train.yaml").read_text()))
    bare = [key for key, value, comment in found if value and not comment]
    assert not [key for key in bare if not key.startswith(("trainer", "hydra", "defaults"))]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_internal_links_resolve(page):
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        target = link.partition("#")[0]
        assert not target or (page.parent / target).exists(), f"{name(page)} links to {link}"


def test_the_rooms_are_those_of_the_code():
    """The table of docs/architecture.md names every module of every room, and no other."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Doors")[0]
    told = {
        room: set(modules.split(", ")) for room, modules in re.findall(r"^\| `(\w+)` \|.*\| ([\w, ]+) \|$", text, re.M)
    }
    rooms = [folder for folder in (ROOT / "rmlab").iterdir() if (folder / "__init__.py").exists()]
    assert told == {room.name: modules_of(room) for room in rooms}


def modules_of(folder):
    found = [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return {path.stem for path in found} - {"__init__"}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 185


def test_nothing_speaks_of_a_machine():
    for page in [*PAGES, *OTHERS]:
        assert not re.search(r"/(work|home|tmp|root)/", page.read_text()), name(page)


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the docs extra builds the site")
def test_the_site_builds_and_fetches_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    for page in tmp_path.glob("*.html"):
        fetched = re.findall(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text())
        assert not fetched, f"{page.name} fetches {fetched}"
