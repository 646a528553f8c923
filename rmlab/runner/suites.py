"""Benchmark suites of a run or of any model: read and checked before a model loads, scored once, kept as they come.

suites/NAME.json is written last: with the same key there is nothing left to do. The rewards are in scores/NAME.parquet
and its preferences, what counts in scores/NAME.items.parquet.
"""

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab.files import file_hash, read, replacing, write_json
from rmlab.messages import UserError, check_all, first_line, is_first_rank, say
from rmlab.runner.directory import RunDirectory

if TYPE_CHECKING:  # which import torch, pandas or datasets
    from rmlab.evaluation import Suite
    from rmlab.evaluation.result import Result
    from rmlab.metrics.scored import ScoredComparison
    from rmlab.model.config import ModelConfig
    from rmlab.scoring.ensemble import Ensemble
    from rmlab.scoring.reward_model import RewardModel

NAME = re.compile(r"[\w-]+")
# The part of an error that names the option of a data source, which suites read rows by; and not data.jsonl.
KEY = re.compile(r"(?<![\w./-])data\.(?=(path|name|split|revision|columns|prompt_separator)\b(?!\.json|\.parquet))")


@dataclass(frozen=True)
class Entry:
    """An entry of `eval`: its name, the suite that it names, and the options of that suite."""

    name: str
    suite: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, spec: Any) -> "Entry":
        """UserError for what is no entry, an unknown suite and wrong options."""
        from rmlab.evaluation import SUITES

        if not NAME.fullmatch(name):
            raise UserError(f"eval: {name!r} names files, so it takes letters, digits, _ and - alone")
        if not isinstance(spec, Mapping):
            raise UserError(f"eval.{name} is {spec!r}; it must hold the options of a suite, such as path")
        options = {str(key): value for key, value in spec.items() if key != "suite"}
        suite = str(spec.get("suite", name))
        try:
            SUITES.build(suite, options, f"eval.{name}")
        except UserError as error:
            raise UserError(f"eval.{name}: {error}" if "eval." not in str(error) else str(error)) from error
        return cls(name, suite, options)


@dataclass(frozen=True)
class Read:
    """A suite whose rows have been read. key: a hash of them and of how they are counted; prompts: ids of theirs."""

    entry: Entry
    suite: "Suite"
    key: str
    prompts: frozenset[str]

    @property
    def name(self) -> str:
        """That of the entry, of its files and in tables."""
        return self.entry.name

    @property
    def stated(self) -> dict[str, Any]:
        """What suites/NAME.json says of it besides its numbers."""
        options = {"suite": self.entry.suite, **self.entry.options}
        return {"suite": self.entry.suite, "key": self.key, "options": options}

    def file(self, out: RunDirectory) -> Path:
        """Its suites/NAME.json."""
        return out.path / "suites" / f"{self.name}.json"

    def is_finished(self, out: RunDirectory) -> bool:
        """Whether it was scored there, from the same rows and counted in the same way."""
        try:
            return bool(read(self.file(out)).get("key") == self.key)
        except UserError:  # damaged
            return False


def entries(evals: Mapping[str, Any], sets: Iterable[str] = ()) -> list[Entry]:
    """The entries of an `eval` node. UserError for wrong ones and names of evaluation sets. Reads no rows."""
    if evals and "eval" in evals:
        raise UserError("eval.eval: evaluation sets are called eval; give the suite another name")
    for name in sorted(set(evals) & set(sets)):
        raise UserError(f"eval.{name} has the name of an evaluation set, data.eval.{name}; give one of them another")
    found: list[Entry] = []

    def take(name: str, spec: Any) -> None:
        found.append(Entry.of(name, spec))

    check_all(*(partial(take, str(name), spec) for name, spec in evals.items()))
    return found


def read_suites(evals: Mapping[str, Any], model: "ModelConfig", identity: str = "") -> list[Read]:
    """The suites of an `eval` node with every row read, before a model loads.

    identity: of the model, where the directory is not of one model alone. UserError for all that is wrong in them.
    """
    found: list[Read] = []

    def take(entry: Entry) -> None:
        found.append(read_suite(entry, model, identity))

    check_all(*(partial(take, entry) for entry in entries(evals)))
    return found


def read_suite(entry: Entry, model: "ModelConfig", identity: str) -> Read:
    """One of them. What is said of a data source is said of the entry."""
    from rmlab import evaluation
    from rmlab.data.cache import code, digest
    from rmlab.data.columns import where_of
    from rmlab.data.rows import to_comparison
    from rmlab.data.trees import prompt_id
    from rmlab.evaluation.chat import as_text
    from rmlab.runner.check import check_row

    try:
        suite = evaluation.SUITES.build(entry.suite, entry.options)()
        read_rows = (to_comparison(row, where_of(entry.name, index)) for index, row in enumerate(suite.rows))
        prompts = frozenset(prompt_id(comparison) for comparison in read_rows)
        first = suite.rows[0]
        check_row(model, first if model.has_chat_template() else as_text(first), entry.name)
    except UserError as error:
        said = KEY.sub(f"eval.{entry.name}.", str(error))
        raise UserError(said if f"eval.{entry.name}" in said else f"eval.{entry.name}: {said}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # of a value of another type
        raise UserError(
            f"eval.{entry.name}: its rows are not those that {entry.suite} has ({type(error).__name__}: "
            f"{first_line(error)}); is {entry.options.get('path')} the right data?"
        ) from error
    own = Path(inspect.getfile(evaluation.SUITES[entry.suite]))  # a plugin's
    counted = code(Path(evaluation.__file__).parent), file_hash(own) if own.is_file() else None
    options = {key: value for key, value in entry.options.items() if key != "path"}  # its rows may have moved
    return Read(entry, suite, digest([entry.suite, options, counted, list(suite.rows), identity]), prompts)


def outstanding(evals: Mapping[str, Any], out: RunDirectory) -> list[str]:
    """The entries that have no numbers there, as far as can be told without reading their rows."""
    found = []
    for name, spec in evals.items():
        try:
            kept = read(out.path / "suites" / f"{name}.json")
        except UserError:
            kept = {}
        if not isinstance(spec, Mapping) or kept.get("options") != {"suite": str(name), **spec}:
            found.append(str(name))
    return found


def score_suites(
    suites: Sequence[Read], out: RunDirectory, model: Callable[[], "RewardModel | Ensemble"], again: bool = False
) -> dict[str, dict[str, Any]]:
    """What each suites/NAME.json says, by name; those that are not finished are scored, from the first rank alone.

    model: loads it, if it is needed. again: also what is finished, for it was of another model.
    """
    if not is_first_rank():
        return {}
    todo = [suite for suite in suites if again or not suite.is_finished(out)]
    for suite in [suite for suite in suites if suite not in todo]:
        say(f"skipped suite {suite.name}: it is finished in {out}")
        write_json(suite.file(out), {**read(suite.file(out)), **suite.stated})  # its rows may have moved
    if todo:
        loaded = model()
        for suite in todo:
            score_suite(suite, out, loaded)
    return {suite.name: read(suite.file(out)) for suite in suites}


def score_suite(read_one: Read, out: RunDirectory, model: "RewardModel | Ensemble") -> None:
    """Score one suite and write its files, the one that says that it is finished last."""
    from rmlab.evaluation.chat import rows_for
    from rmlab.evaluation.result import Result
    from rmlab.metrics.diagnostics import diagnose

    name, suite = read_one.name, read_one.suite
    say(f"suite {name}: {len(suite.rows):,} comparisons")
    scored = list(shown(model.scored(rows_for(model.tokenizer, suite.rows), name), name, len(suite.rows)))
    result = Result.of(suite, scored, name)
    read_one.file(out).unlink(missing_ok=True)  # of rewards that now go; what failed before has cost nothing
    out.write_scores(name, scored, model.names)
    write_items(result, out.path / "scores" / f"{name}.items.parquet")
    told = {**read_one.stated, "measured": model.measured, **result.as_dict()}
    known = any(comparison.better for comparison in scored)
    told["diagnostics"] = diagnose(scored, seen_before(out, model)) if known else {}
    read_one.file(out).parent.mkdir(parents=True, exist_ok=True)
    write_json(read_one.file(out), told)


def seen_before(out: RunDirectory, model: "RewardModel | Ensemble") -> tuple[float, float] | None:
    """(mean, sd) of the rewards that rmlab_reward.json tells of the model; None without it. out: of one in memory."""
    from rmlab.model.reference import read_reference

    for place in [model.folder] if model.folder else [out.model, out.path / "adapter"]:
        with contextlib.suppress(UserError):
            reference = read_reference(place)
            return reference.mean, reference.std
    return None


def shown(scored: Iterable["ScoredComparison"], name: str, whole: int) -> Iterable["ScoredComparison"]:
    """The same, with a bar on a terminal that goes when it ends."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(scored, name, whole, console=console, transient=True, disable=not console.is_terminal)


def write_items(result: "Result", path: Path) -> None:
    """A row per item: id, prompt, subset, value, comparison (the first one that it was made of)."""
    import pandas as pd

    rows = [
        {"id": i.id, "prompt": i.prompt_id, "subset": i.subset, "value": i.value, "comparison": i.comparisons[0]}
        for i in result.items
    ]
    with replacing(path) as scratch:
        pd.DataFrame(rows).to_parquet(scratch, index=False)
