"""What the data room is told, checked, with its defaults; conf/train.yaml states the same values, a comment each."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rmlab.data.values import refuse_reserved
from rmlab.messages import UserError, check_at_least, check_one_of, check_seed

OVERLONG = ("drop", "truncate", "error")
IDENTICAL = ("drop", "error")
KEEP = ("keep", "drop", "error")
PROMPT_OVERLAP = ("error", "drop", "allow")
PAIR_WEIGHTING = ("pair", "prompt")
AUGMENT = ("rrm",)
AUTO = "auto"
KINDS = ("response", "pair", "output")  # what a column has a number of; output: a list of them per response
Columns: TypeAlias = tuple[tuple[str, str], ...]  # (name, one of KINDS)


@dataclass(frozen=True)
class Options:
    """How rows become tokens. Everything here is part of the cache key."""

    max_length: int | None = 1024  # tokens per response, prompt included
    overlong: str = "drop"  # drop | truncate | error
    identical: str = "drop"  # drop | error: rows whose better and worse response are the same
    duplicates: str = "keep"  # keep | drop | error: rows that say again what an earlier one of the set says
    empty: str = "keep"  # keep | drop | error: rows with a response that is nothing but white space
    template: dict[str, Any] = field(default_factory=dict)  # chat template variables for every row
    columns: Columns = ()  # what the loss reads of the rows
    complete: bool = True  # a row without one of them is an error; else, as in evaluation sets, it is unknown (NaN)

    def __post_init__(self) -> None:
        """UserError for a length that is no whole number above 0, unknown words, and names of no template variable."""
        if self.max_length is not None and type(self.max_length) is not int:
            raise UserError(f"max_length is {self.max_length!r}; it must be a whole number, or null for no limit")
        refuse_reserved(self.template, "data.chat_template_kwargs")
        check_at_least("max_length", self.max_length, 1)
        check_one_of("overlong", self.overlong, OVERLONG)
        check_one_of("identical", self.identical, IDENTICAL)
        check_one_of("duplicates", self.duplicates, KEEP)
        check_one_of("empty", self.empty, KEEP)
        for name, kind in self.columns:
            check_one_of(f"the kind of the column {name!r}", kind, KINDS)


@dataclass
class DataConfig:
    """The `data` node of a config: sources, split, and how rows become comparisons."""

    train: dict[str, Any] = field(default_factory=dict)
    eval: dict[str, Any] = field(default_factory=dict)
    eval_fraction: float = 0.1
    limit: int | None = None
    max_rows: int | None = None
    split_seed: int = 0
    max_length: int | str | None = AUTO  # as Options, or what the model takes: see rmlab/model/positions.py
    overlong: str = Options.overlong
    identical: str = Options.identical
    duplicates: str = Options.duplicates
    empty: str = Options.empty
    prompt_overlap: str = "error"
    pair_weighting: str = "pair"
    group_by_prompt: bool = False
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    # What conf/data/files.yaml fills its one source from; unused elsewhere.
    path: str | None = None
    name: str | None = None
    split: str | None = None
    revision: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    prompt_separator: str | None = None
    streaming: bool | None = None

    @property
    def options(self) -> Options:
        """The part of this config that decides how a row becomes tokens, and so is part of the cache key."""
        length = Options.max_length if isinstance(self.max_length, str) else self.max_length
        choices = self.overlong, self.identical, self.duplicates, self.empty
        return Options(length, *choices, dict(self.chat_template_kwargs))

    @property
    def generated(self) -> bool:
        """Whether some training rows are made, not read."""
        return any(isinstance(spec, Mapping) and spec.get("source") != "load" for spec in self.train.values())

    @property
    def streams(self) -> bool:
        """Whether training rows are read as they are needed."""
        return any(isinstance(spec, Mapping) and spec.get("streaming") for spec in self.train.values())

    @property
    def evaluates(self) -> bool:
        """Whether there is something to evaluate on: sets of their own, or a share held out of the training rows."""
        return bool(self.eval or self.eval_fraction)

    def check(self) -> None:
        """UserError naming the key. What needs a source's own signature is checked when the source is built."""
        check_choices(self, where="data.")
        for part, names in (("train", self.train), ("eval", self.eval)):
            check_names(f"data.{part}", names)
        check_seed("data.split_seed", self.split_seed)
        check_length("data.max_length", self.max_length)
        for key in ("limit", "max_rows"):
            check_at_least(f"data.{key}", getattr(self, key), 1)
        if not 0 <= self.eval_fraction < 1:
            raise UserError(f"data.eval_fraction is {self.eval_fraction}; it must be at least 0 and below 1")
        if self.streams and not self.eval and self.eval_fraction:
            raise UserError("a stream cannot be split; give data.eval, or data.eval_fraction=0 to evaluate on nothing")
        if self.streams and self.group_by_prompt:
            raise UserError("data.group_by_prompt needs all rows at once; leave it out for streams")
        weighed = [
            name for name, spec in self.train.items() if isinstance(spec, Mapping) and spec.get("weight", 1) != 1
        ]
        if self.group_by_prompt and self.pair_weighting == "prompt" and weighed:
            raise UserError(
                f"data.train.{weighed[0]}.weight makes copies of rows, which data.group_by_prompt makes one comparison "
                "of their prompt, and data.pair_weighting=prompt counts that once; leave one of the three out"
            )


def check_length(key: str, value: Any) -> None:
    """UserError unless `value` is a whole number above 0, `auto`, or null for no limit."""
    if value is not None and value != AUTO and type(value) is not int:
        raise UserError(f"{key} is {value!r}; it must be a whole number, {AUTO}, or null for no limit")
    check_at_least(key, None if value == AUTO else value, 1)


def check_names(where: str, names: Iterable[Any]) -> None:
    """UserError for a set whose name cannot be a file's: scores/NAME.parquet."""
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[\w ()+=,@~-][\w .()+=,@~-]{0,99}", name):
            raise UserError(
                f"{where}: {name!r} names a file, scores/NAME.parquet; use letters, digits and _ - . of them"
            )


def check_choices(config: Any, where: str = "") -> None:
    """UserError unless what a config chooses among words is one of them."""
    for key, allowed in (
        ("overlong", OVERLONG),
        ("identical", IDENTICAL),
        ("duplicates", KEEP),
        ("empty", KEEP),
        ("prompt_overlap", PROMPT_OVERLAP),
        ("pair_weighting", PAIR_WEIGHTING),
    ):
        check_one_of(f"{where}{key}", getattr(config, key), allowed)


@dataclass(frozen=True)
class SourceConfig:
    """One entry of `data.train` or `data.eval`: `{source: NAME, weight: 1.0, **options of the source}`.

    Of `data.train` also `augment`: what adds rows to it, see augment.py.
    """

    where: str  # data.train.NAME, for messages
    source: str
    weight: float
    options: dict[str, Any]
    augment: str | None = None

    @classmethod
    def of(cls, spec: Any, where: str, known: list[str]) -> "SourceConfig":
        """From the entry that `where` names. UserError for no mapping, no source or a weight not above 0.

        known: the sources to name in the error if there is none.
        """
        if not isinstance(spec, Mapping):
            raise UserError(f"{where} must be a mapping with a source, not {spec!r}")
        if "source" not in spec:
            raise UserError(f"{where} has no source; set {where}.source to one of {known}")
        weight = spec.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise UserError(f"{where}.weight must be a number above 0, not {weight!r}")
        augment = spec.get("augment")
        if augment is not None:
            check_one_of(f"{where}.augment", augment, AUGMENT)
        options = {str(k): v for k, v in spec.items() if k not in ("source", "weight", "augment")}
        return cls(where, str(spec["source"]), float(weight), options, augment)
