"""Losses: pure functions of rewards and preferences. They never see tokens, layouts or the model.

A loss is a sum of named, weighted terms (`conf/loss/*.yaml`). A term returns one value per preference (P,), per
response (R,) or per comparison (N,), and never averages: the trainer alone does, so that one optimizer step is the
exact mean over its pairs however it was split into micro-batches. What is no mean of such values (a correlation, the
square of a mean) is one number () of the whole step.

A term reads what its signature names. The first parameter is the batch; each further one is `outputs`, what the head
returns, or a column of the rows, of the kind that its annotation says (PerResponse, PerPair, PerOutput); those after
the `*` are its options.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args

import torch
from torch import Tensor

from rmlab.messages import UserError
from rmlab.registry import Registry

LOSSES = Registry("loss", "rmlab.losses")

# Kinds of columns, as annotations of a term's parameters. float32; NaN where a row does not know.
PerResponse = Annotated[Tensor, "response"]  # (R,)
PerPair = Annotated[Tensor, "pair"]  # (P,)
PerOutput = Annotated[Tensor, "output"]  # (R, D): of every response a number for each output of the head

# What a run supplies by itself, and its kind. Weight: what a pair counts in a mean. Log-probabilities are those of a
# response's tokens, summed, under the LM head of a causal model: as it is, and as it was before training.
BUILT_IN = {
    "outputs": "output",
    "lengths": "response",
    "weight": "pair",
    "logps": "response",
    "reference_logps": "response",
}


@dataclass(frozen=True)
class Preferences:
    """A batch after scoring: R responses of N prompts and P preferences between them."""

    rewards: Tensor  # (R,) fp32
    better: Tensor  # (P,) index into R of the preferred response
    worse: Tensor  # (P,) index into R of the other one
    strength: Tensor  # (P,) fp32: rating difference or vote share, the margin; 1.0 when unknown
    probability: Tensor  # (P,) fp32: how surely better beats worse; 1.0, or 0.5 for a tie
    prompt: Tensor  # (R,) which comparison of the batch a response belongs to
    outputs: Tensor | None = None  # (R, D) fp32: what the head returns; `rewards` is its one reduction
    columns: Mapping[str, Tensor] = field(default_factory=dict)  # by name: lengths, and what terms ask of the rows
    names: Sequence[str] = ()  # (D,) of the outputs: told to a term once, when it is built

    @property
    def gap(self) -> Tensor:
        """(P,) reward of the better response minus reward of the worse one."""
        return self.rewards[self.better] - self.rewards[self.worse]

    @property
    def comparisons(self) -> int:
        """N, how many prompts there are."""
        return int(self.prompt.max()) + 1 if len(self.prompt) else 0

    @property
    def pair_prompt(self) -> Tensor:
        """(P,) which comparison of the batch a preference belongs to."""
        return self.prompt[self.better]

    def column(self, name: str) -> Tensor:
        """`outputs` or a column; `weight` is 1 where nothing else is known. UserError where there is none."""
        if name == "outputs":
            return self.rewards[:, None] if self.outputs is None else self.outputs
        if name == "weight" and name not in self.columns:
            return torch.ones_like(self.strength)
        if name not in self.columns:
            raise UserError(f"the batch has no column {name!r}, which a term of the loss reads")
        return self.columns[name]


@dataclass(frozen=True)
class Column:
    """What a term reads of the rows: a name, and what there is one value of: response, pair, or output."""

    name: str
    kind: str


def as_column(values: Sequence[Sequence[float]], kind: str, outputs: int) -> Tensor:
    """(n,) or, of kind output, (n, D) of a column's values (n, 1 or D); a single NaN stands for D unknown numbers."""
    if kind != "output":
        return torch.tensor([value for (value,) in values], dtype=torch.float32)
    wide = [[*v] * outputs if len(v) == 1 and math.isnan(v[0]) else v for v in values]
    return torch.tensor(wide, dtype=torch.float32)


@dataclass(frozen=True)
class Term:
    """One named summand of a loss: `weight * function(preferences)`."""

    name: str
    weight: float
    function: Callable[[Preferences], Tensor]
    per: str  # "pair", "response", "comparison": what it has one value of and is averaged over; or "step"
    columns: tuple[Column, ...] = ()  # that it reads of the rows
    built_in: frozenset[str] = frozenset()  # that it reads of BUILT_IN


def build_loss(config: Mapping[str, Any], outputs: int | Sequence[str] = 1) -> list[Term]:
    """Terms from `{name: {weight: 1.0, **options}}`; every problem is a UserError naming the key.

    A term's `weight` defaults to 1. Negative weights are refused: they turn a regulariser into its opposite.
    outputs: names of the head's, or D where they have none; a term refuses a head that is not for it.
    """
    if not config:
        raise UserError("loss has no terms; name at least one, for example loss.bradley_terry.margin=0.0")
    terms = []
    for name, given in config.items():
        if not isinstance(given, Mapping):
            raise UserError(f"loss.{name} must be a mapping of options, not {given!r}; for no options write {{}}")
        options = dict(given)
        weight = options.pop("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise UserError(f"loss.{name}.weight must be a finite number >= 0, not {weight!r}")
        function, reads = LOSSES.build(name, options), read_by(name)
        whole = reading(function, tuple(reads))
        columns = tuple(Column(column, kind) for column, kind in reads.items() if column not in BUILT_IN)
        per = values_per(name, whole, reads, outputs)
        terms.append(Term(name, float(weight), whole, per, columns, frozenset(reads) & set(BUILT_IN)))
    return terms


def reading(function: Callable[..., Tensor], names: tuple[str, ...]) -> Callable[[Preferences], Tensor]:
    """The same of a batch alone, whose columns of these names are its further arguments."""
    return (lambda batch: function(batch, *(batch.column(name) for name in names))) if names else function


def read_by(name: str) -> dict[str, str]:
    """What a registered term reads besides the batch: name -> kind. UserError for one without an annotated kind."""
    found = {}
    for parameter in list(inspect.signature(LOSSES[name], eval_str=True).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY:
            continue
        kinds = get_args(parameter.annotation)[1:]
        if not kinds and parameter.name not in BUILT_IN:
            raise UserError(
                f"loss.{name} reads {parameter.name!r}, but does not say what there is one value of; annotate it with "
                "rmlab.losses.PerResponse, PerPair or PerOutput"
            )
        found[parameter.name] = BUILT_IN.get(parameter.name) or kinds[0]
    return found


def columns_read(terms: Sequence[Term]) -> tuple[Column, ...]:
    """What these terms read of the rows, each column once. UserError for one that two read in two kinds."""
    found: dict[str, Column] = {}
    for term in terms:
        for column in term.columns:
            if found.setdefault(column.name, column) != column:
                kinds = f"{found[column.name].kind} and per {column.kind}"
                raise UserError(f"loss: terms read the column {column.name!r} per {kinds}; give one of them another")
    return tuple(found.values())


def reads_logps(terms: Sequence[Term]) -> bool:
    """Whether a loss reads log-probabilities of the responses."""
    return any({"logps", "reference_logps"} & term.built_in for term in terms)


def values_per(
    name: str,
    function: Callable[[Preferences], Tensor],
    reads: Mapping[str, str] | None = None,
    outputs: int | Sequence[str] = 1,
) -> str:
    """What a term returns one value of, seen on a batch of N = 2 comparisons, P = 4 pairs and R = 5 responses.

    Asked once, here, of rows that know no column: in a batch with as many pairs as responses (K = 3) the shape alone
    would not tell.
    """
    names = () if isinstance(outputs, int) else tuple(outputs)
    d = outputs if isinstance(outputs, int) else len(names)
    sizes = {"response": (5,), "pair": (4,), "output": (5, d)}
    shape = tuple(
        function(
            Preferences(
                rewards=torch.zeros(5),
                better=torch.tensor([0, 0, 1, 3]),
                worse=torch.tensor([1, 2, 2, 4]),
                strength=torch.ones(4),
                probability=torch.ones(4),
                prompt=torch.tensor([0, 0, 0, 1, 1]),
                outputs=torch.zeros(5, d),
                names=names,
                columns={
                    column: torch.full(sizes[kind], 1.0 if column in BUILT_IN else torch.nan)
                    for column, kind in (reads or {}).items()
                },
            )
        ).shape
    )
    known = {(4,): "pair", (5,): "response", (2,): "comparison", (): "step"}
    if shape not in known:
        raise UserError(
            f"loss.{name} returns shape {shape} for 4 pairs between 5 responses of 2 comparisons; it must be "
            "(4,), (5,), (2,) or ()"
        )
    return known[shape]
