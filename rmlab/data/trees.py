"""Token trees: the ids that all responses of a comparison share, then one suffix each."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import xxhash
from datasets import Dataset, Features, IterableDataset, List, Value

from rmlab.data import Comparison, Text
from rmlab.data.cache import as_json, digest
from rmlab.data.config import Columns

if TYPE_CHECKING:
    from torch import Tensor

Trees: TypeAlias = Dataset | IterableDataset  # rows are token trees: FEATURES


@dataclass(frozen=True)
class TokenTree:
    """A comparison as tokens: K responses that share `prefix`, and P preferences between them.

    Chosen and rejected are encoded whole; the prefix is their longest common one. A row of a data set of trees has
    these columns (FEATURES), and `index`, its place in the set, once it is numbered.
    """

    prefix: list[int]
    suffixes: list[list[int]]  # (K,) each response's own tokens
    better: list[int]  # (P,) which response
    worse: list[int]  # (P,)
    strength: list[float]  # (P,)
    probability: list[float]  # (P,)
    gold: list[float] = field(default_factory=list)  # (K,) the true rewards, or empty
    id: str = ""
    prompt_id: str = ""
    split_id: str = ""  # of the prompt without its system messages: what a split keeps together
    subset: str = ""
    lengths: list[int] = field(default_factory=list)  # (K,) tokens of each response without its prompt
    length: int = 0  # tokens of the longest response with its prompt, for grouping by length
    implicit: bool = False  # the prompt is only known as what the responses share
    identical: int = 0  # preferences left out because their two responses are the same tokens
    dropped: str = ""  # why the row is left out; empty: it stays
    truncated: bool = False
    empty: bool = False  # a response is nothing but white space
    content: int = 0  # a hash of prompt, responses and preferences: what says the same has the same
    place: int = -1  # of its row in its source
    index: int = -1
    style: list[list[int]] = field(default_factory=list)  # (K, S) of evaluation sets, see excerpts.py
    excerpts: list[str] = field(default_factory=list)  # (1 + K) of evaluation sets
    token_vectors: "Tensor | None" = None  # (T, d) what frozen layers made of its tokens, see scoring/feature_cache.py
    response_vectors: "Tensor | None" = None  # (K, d) the same of its responses
    reference_logps: list[float] = field(default_factory=list)  # (K,) see training/reference.py
    weight: list[float] = field(default_factory=list)  # (P,) what each preference counts in a mean; empty: 1 each
    columns: list[list[list[float]]] = field(default_factory=list)  # (Options.columns, K or P, 1 or D), see extra.py
    read: list[str] = field(default_factory=list)  # (Options.columns,) what these are: NAME KIND

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "TokenTree":
        """From a row of a data set of trees."""
        return cls(**{name: row[name] for name in NAMES if name in row})

    def row(self, columns: Iterable[str] | None = None) -> dict[str, Any]:
        """The columns that a data set keeps: FEATURES, if no others are asked for."""
        return {name: getattr(self, name) for name in columns or FEATURES}

    @property
    def responses(self) -> list[list[int]]:
        """The K responses as whole token ids."""
        return [[*self.prefix, *suffix] for suffix in self.suffixes]

    @property
    def tokens(self) -> int:
        """How many there are with the prefix counted once."""
        return len(self.prefix) + sum(map(len, self.suffixes))

    @property
    def longest(self) -> int:
        """Tokens of the longest response."""
        return len(self.prefix) + max(map(len, self.suffixes))


SYSTEM = ("system", "developer")  # roles of messages that say how to answer, not what is asked
NAMES = tuple(f.name for f in dataclasses.fields(TokenTree))

FEATURES = Features(
    {
        "prefix": List(Value("int32")),
        "suffixes": List(List(Value("int32"))),
        "better": List(Value("int32")),
        "worse": List(Value("int32")),
        "strength": List(Value("float32")),
        "probability": List(Value("float32")),
        "gold": List(Value("float64")),
        "id": Value("string"),
        "prompt_id": Value("string"),
        "split_id": Value("string"),
        "subset": Value("string"),
        "lengths": List(Value("int32")),
        "length": Value("int32"),
        "implicit": Value("bool"),
        "identical": Value("int32"),
        "dropped": Value("string"),
        "truncated": Value("bool"),
        "empty": Value("bool"),
        "content": Value("int64"),
        "place": Value("int64"),
        "weight": List(Value("float32")),
        "columns": List(List(List(Value("float32")))),
        "read": List(Value("string")),
    }
)


def common_prefix(sequences: Sequence[Any]) -> Any:
    """What all sequences begin with, in their own type; empty if that is nothing."""
    first, last = min(sequences), max(sequences)  # what these share, all between them do
    low, high = 0, min(len(first), len(last))
    while low < high:  # halves are compared in C, item by item takes ten times as long
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[low:middle] == last[low:middle] else (low, middle - 1)
    return first[:low]


def prompt_id(comparison: Comparison, system: bool = True) -> str:
    """A hash of the prompt as messages: the same question is the same prompt however it is wrapped.

    A row without a prompt of its own is its own, for what texts share by chance is none. system: with its system
    messages.
    """
    prompt = comparison.prompt
    if not prompt:
        return digest(sorted(json.dumps(r) for r in comparison.responses))
    messages = as_messages(prompt)
    asked = [m for m in messages if system or m["role"] not in SYSTEM]
    return digest(asked or messages)


def prompt_ids(comparison: Comparison) -> tuple[str, str]:
    """(with, without) its system messages; hashed once where there are none."""
    whole, prompt = prompt_id(comparison), comparison.prompt
    if isinstance(prompt, str) or not any(message["role"] in SYSTEM for message in prompt):
        return whole, whole
    return whole, prompt_id(comparison, system=False)


def content_hash(comparison: Comparison, read: Columns = ()) -> int:
    """Of prompt, responses and preferences, whatever the order of the last two, and what the loss reads of them.

    id, subset and gold are no part. read: which columns the comparison has.
    """
    said = [hashed(response) for response in comparison.responses]
    stated = []
    for p in comparison.preferences:
        sides = said[p.better], said[p.worse]
        stated.append([*(sorted(sides) if p.probability == 0.5 else sides), p.strength, p.probability, p.weight])
    columns = {}
    for name, kind in read:
        owners: list[Any] = stated if kind == "pair" else said
        columns[name] = sorted(as_json(pair) for pair in zip(owners, comparison.columns[name], strict=True))
    return hashed([hashed(comparison.prompt), comparison.template, sorted(said), sorted(stated), columns])


def hashed(value: Any) -> int:
    """64 bits of a value of JSON, as a number with a sign, which every library has."""
    text = f'"{value}' if isinstance(value, str) else as_json(value)
    return xxhash.xxh3_64_intdigest(text.encode()) - 2**63


def as_messages(prompt: Text) -> list[dict[str, Any]]:
    """Chat messages, a text as one of the user, without white space around their contents."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return [
        {k: v.strip() if k == "content" and isinstance(v, str) else v for k, v in m.items() if v is not None}
        for m in messages
    ]
