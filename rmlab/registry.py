"""The one indirection of rmlab: a name in YAML is the name of one registered function."""

import functools
import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, TypeVar

from rmlab.messages import UserError, did_you_mean, say

F = TypeVar("F", bound=Callable[..., Any])

GROUPS = ("rmlab.losses", "rmlab.heads", "rmlab.data", "rmlab.evaluation")  # of entry points


class Registry:
    """Functions of one kind, keyed by function name; their keyword-only parameters are the schema.

    `package` is imported, with every module in it, at the first lookup: a new function needs a new
    file and nothing else. Other packages register by being imported: those that `plugins:` in the config names, and
    installed ones that have an entry point in the group of the package's name (GROUPS).
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._functions: dict[str, Callable[..., Any]] = {}
        self._loaded = False

    def register(self, function: F) -> F:
        """Decorator. UserError for another function under a taken name."""
        name = function.__name__
        known = self._functions.get(name)
        if known is not None and known.__module__ != function.__module__:
            both = f"{known.__module__} and {function.__module__}"
            raise UserError(f"{self.kind} {name!r} is registered twice, by {both}; rename the one that is yours")
        self._functions[name] = function
        return function

    def names(self) -> list[str]:
        """All registered names, sorted; the first call imports the package and what registers by entry points."""
        self._load()
        return sorted(self._functions)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        self._load()
        if name not in self._functions:
            raise UserError(f"no {self.kind} named {name!r}{did_you_mean(name, self._functions)}")
        return self._functions[name]

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The options of a function: its keyword-only parameters. Those without a default must be given."""
        parameters = inspect.signature(self[name]).parameters.items()
        return {key: parameter for key, parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}

    def build(self, name: str, options: Mapping[str, Any], where: str | None = None) -> Callable[..., Any]:
        """The function with its options bound. Missing, unknown and non-numeric-for-float options are a UserError."""
        function, takes = self[name], self.options(name)
        where = where or f"{self.kind}.{name}"
        unknown = sorted(set(options) - set(takes))
        missing = [key for key, p in takes.items() if p.default is p.empty and key not in options]
        if unknown or missing:
            wrong = [f"unknown {unknown}"] * bool(unknown) + [f"missing {missing}"] * bool(missing)
            raise UserError(f"{where} takes {[*takes]}, the config gives {sorted(options)} ({', '.join(wrong)})")
        for key, value in options.items():
            number = takes[key].annotation in (float, int, "float", "int")  # a module may keep annotations as text
            if number and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise UserError(f"{where}.{key} must be a number, not {value!r}")
        return functools.partial(function, **options)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__, f"{self.package}."):
            importlib.import_module(module.name)
        for entry in metadata.entry_points(group=self.package):
            try:
                entry.load()
            except Exception as error:  # whatever it is, it is not ours, and the rest can do without it
                say(f"warning: {entry.value}, which registers with {self.package}, cannot be imported: {error}")


def installed_plugins() -> list[metadata.EntryPoint]:
    """The entry points of installed packages in rmlab's groups (GROUPS)."""
    return [entry for group in GROUPS for entry in metadata.entry_points(group=group)]


def import_plugins(modules: Iterable[str]) -> None:
    """Import the modules of `plugins:`, so that what they register can be named in the config."""
    for module in modules:
        sys.path[:] = path_of_plugins()
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"plugins: cannot import {module!r} ({error})") from error


def path_of_plugins() -> list[str]:
    """Where plugins are looked for: a console script does not look in the current folder, where they often lie."""
    return sys.path if os.getcwd() in sys.path else [os.getcwd(), *sys.path]
