"""What differs between the arms of a study: their configs, and what made their numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rmlab.report.arms import GROUPS, Values, option_of, show
from rmlab.report.runs import Run
from rmlab.report.study import Study
from rmlab.report.tables import Table, Tables
from rmlab.runner.config import computed, flatten

LONG = 24  # characters of a hash, beyond which its beginning is enough


def arms_table(study: Study) -> Tables:
    """The keys whose values differ between arms, and those of code, packages, data and hardware; none: no table.

    A line per key, or per arm where there are more arms than keys. An arm whose runs differ has several values.
    """
    told = {arm: settings_of(runs) for arm, runs in study.arms.items() if runs}
    keys = list(dict.fromkeys(key for values in told.values() for key in values))
    keys = [key for key in keys if len({told[arm].get(key, "") for arm in told}) > 1]
    if not keys:
        return []
    cells = pd.DataFrame({arm: [told[arm].get(key, "") for key in keys] for arm in told}, index=keys)
    if len(told) > len(keys):
        cells = cells.T
    cells = cells.rename_axis("arm" if len(told) > len(keys) else "key").reset_index()
    return [Table("What the arms differ in", cells, "arms")]


def settings_of(runs: Sequence[Run]) -> dict[str, str]:
    """Key -> its value, or the values that different runs have, as text."""
    values: dict[str, list[str]] = {}
    for run in [run for run in runs if run.state == "finished"] or runs:
        for key, value in {**options(run), **config_of(run), **environment_of(run.environment)}.items():
            said = values.setdefault(key, [])
            if value not in said:
                said.append(value)
    return {key: ", ".join(said) for key, said in values.items()}


def options(run: Run) -> dict[str, str]:
    """The chosen options of config groups."""
    chosen = {group: option_of(run, group) for group in GROUPS}
    return {group: str(option) for group, option in chosen.items() if option is not None}


def config_of(run: Run) -> dict[str, str]:
    """Dotted key -> value of all that is computed, the seed apart."""
    return {key: show(value) for key, value in flatten(computed(run.config)).items() if key != "seed"}


def environment_of(environment: Mapping[str, Any]) -> dict[str, str]:
    """`code`, `python`, `processes`, `hardware.*`, `packages.*`, and `inputs.*`, the hashes of files."""
    kept = ("code", "python", "processes", "hardware", "packages", "inputs")
    told: Values = flatten({key: environment[key] for key in kept if key in environment})
    return {key: short(show(value)) for key, value in told.items() if key != "hardware.cpus"}


def short(text: str) -> str:
    """The beginning of a hash."""
    return text if len(text) <= LONG else f"{text[:LONG]}\u2026"
