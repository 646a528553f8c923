"""Where groups of configs lie besides rmlab's own: every -cd, and the folders of installed packages.

A package names its folder under the entry point group `rmlab.conf`: `own_loss = "own_loss.conf"` is own_loss/conf.
"""

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

FLAGS = ("-cd", "--config-dir")
GROUP = "rmlab.conf"


class Folders(SearchPathPlugin):
    """What Hydra asks for further places; `given` are those of the command line."""

    given: ClassVar[list[Path]] = []

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add them, in their order; of two files of one name the first counts."""
        for folder in (*self.given, *installed()):
            search_path.append(provider="rmlab", path=f"file://{folder}")


def installed() -> list[Path]:
    """The folders of configs of installed packages, none of which is run for it."""
    found = []
    for entry in metadata.entry_points(group=GROUP):
        package, *inner = entry.value.split(".")
        spec = importlib.util.find_spec(package)
        found += [Path(place, *inner) for place in (spec and spec.submodule_search_locations) or []]
    return [folder for folder in found if folder.is_dir()]


def take_folders(arguments: list[str]) -> list[str]:
    """The arguments with the last -cd alone, which Hydra knows; it is told of the others."""
    places = [n for n, word in enumerate(arguments) if word.partition("=")[0] in FLAGS]
    taken: set[int] = set()
    for place in places[:-1]:
        joined = "=" in arguments[place]
        Folders.given.append(Path(folders_of(arguments[place:])[0]).absolute())
        taken |= {place} if joined else {place, place + 1}
    return [word for n, word in enumerate(arguments) if n not in taken]


def folders_of(arguments: list[str]) -> list[Path]:
    """What -cd, --config-dir and -cd=DIR name, in their order."""
    following = [*arguments[1:], ""]
    pairs = [(*word.partition("="), after) for word, after in zip(arguments, following, strict=True)]
    return [Path(value if joined else after) for flag, joined, value, after in pairs if flag in FLAGS]


def register() -> None:
    """Make Hydra ask."""
    Plugins.instance().register(Folders)
