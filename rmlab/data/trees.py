"""Comparison -> token tree: the ids that all responses share, then one suffix each."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from datasets import Dataset, Features, IterableDataset, List, Value
from jinja2 import TemplateError

from rmlab.data import Comparison, Text, Tokenizer
from rmlab.data.cache import digest
from rmlab.data.config import Options
from rmlab.data.render import encode, special_tokens
from rmlab.data.rows import identical
from rmlab.messages import UserError, first_line

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
    index: int = -1
    token_vectors: "Tensor | None" = None  # (T, d) what frozen layers made of its tokens, see scoring/feature_cache.py
    response_vectors: "Tensor | None" = None  # (K, d) the same of its responses

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "TokenTree":
        """From a row of a data set of trees."""
        return cls(**{name: row[name] for name in NAMES if name in row})

    def row(self) -> dict[str, Any]:
        """The columns that a data set keeps."""
        return {name: getattr(self, name) for name in FEATURES}

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


# What a chat template raises for messages that it does not take.
TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError, AttributeError, RecursionError)
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
    }
)


def to_tree(comparison: Comparison, index: int, where: str, tokenizer: Tokenizer, options: Options) -> TokenTree:
    """The token tree of a comparison; `where` names its row in errors, `index` is its id if it has none."""
    refuse_identical(comparison, where, options)
    template = {**options.template, **comparison.template}
    tokens = encoded(comparison, where, tokenizer, template)
    before = special_tokens(tokenizer)[0]
    prompt = prompt_length(comparison, tokens, tokenizer, template, before)
    tokens, dropped, cut = fitted(tokens, where, len(before), options)
    prompt = prompt if cut is None else max(prompt - cut, min(prompt, len(before)))
    same = [p for p in comparison.preferences if p.probability != 0.5 and tokens[p.better] == tokens[p.worse]]
    preferences = [p for p in comparison.preferences if p not in same]
    if not dropped and not preferences:
        dropped = "identical"
    shared = len(common_prefix(tokens))
    return TokenTree(
        prefix=tokens[0][:shared],
        suffixes=[t[shared:] for t in tokens],
        better=[p.better for p in preferences],
        worse=[p.worse for p in preferences],
        strength=[p.strength for p in preferences],
        probability=[p.probability for p in preferences],
        gold=comparison.gold or [],
        id=comparison.id if comparison.id is not None else str(index),
        prompt_id=prompt_id(comparison),
        split_id=prompt_id(comparison, system=False),
        subset=comparison.subset or "",
        lengths=[max(len(t) - prompt, 0) for t in tokens],
        length=max(map(len, tokens)),
        implicit=not comparison.prompt,
        identical=len(same),
        dropped=dropped,
        truncated=cut is not None,
    )


def refuse_identical(comparison: Comparison, where: str, options: Options) -> None:
    """UserError where data.identical=error and a preference is between equal responses; `where` names the row."""
    if options.identical == "error" and identical(comparison):
        raise UserError(
            f"{where}: the better and the worse response are identical; remove the row or set data.identical=drop"
        )


def encoded(comparison: Comparison, where: str, tokenizer: Tokenizer, template: dict[str, Any]) -> list[list[int]]:
    """(K,) the token ids of each response with its prompt. UserError for messages that the template does not take."""
    if comparison.tokenised:
        largest, known = max(map(max, comparison.responses)), len(tokenizer)
        if largest >= known:
            raise UserError(f"{where}: token id {largest} is none of the tokenizer's {known}; is it another's?")
        return list(comparison.responses)
    refuse_unread(comparison, where, tokenizer, template)
    try:
        return [encode(tokenizer, comparison.prompt, r, template) for r in comparison.responses]
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except TEMPLATE_ERRORS as error:
        raise UserError(f"{where}: the chat template does not take its messages: {first_line(error)}") from error


def refuse_unread(comparison: Comparison, where: str, tokenizer: Tokenizer, template: dict[str, Any]) -> None:
    """UserError for tools, or calls of them, that the chat template never shows: the model would not read them."""
    parts = [part for part in (comparison.prompt, *comparison.responses) if not isinstance(part, str)]
    source = str(getattr(tokenizer, "chat_template", None) or "")
    unread = {"tools": bool(template.get("tools")), "tool_calls": any(m.get("tool_calls") for p in parts for m in p)}
    for name, given in unread.items():
        if parts and source and given and name not in source:
            hint = ", or hide them with data.columns.tools=null" if name == "tools" else ""
            raise UserError(
                f"{where}: the chat template does not show {name}; set model.chat_template to one that does{hint}"
            )


def fitted(
    tokens: list[list[int]], where: str, before: int, options: Options
) -> tuple[list[list[int]], str, int | None]:
    """(tokens within max_length, why the row is dropped or empty, how many prompt tokens were cut; None: whole).

    before: special tokens at their beginning, which stay.
    """
    limit, longest = options.max_length, max(map(len, tokens))
    if limit is None or longest <= limit:
        return tokens, "", None
    if options.overlong == "error":
        raise UserError(
            f"{where}: {longest} tokens, data.max_length is {limit}; raise it or set data.overlong=drop or truncate"
        )
    if options.overlong == "truncate":
        tokens, cut = truncate(tokens, limit, before)
        return tokens, "", cut
    return tokens, "overlong", None


def prompt_length(
    comparison: Comparison,
    tokens: list[list[int]],
    tokenizer: Tokenizer,
    template: dict[str, Any],
    before: list[int],
) -> int:
    """Tokens of the prompt, with what the tokenizer puts before it; of the shared prefix where it is implicit."""
    if not comparison.prompt:
        return len(common_prefix(tokens))
    text = comparison.prompt
    if not isinstance(text, str):
        try:
            text = str(tokenizer.apply_chat_template(text, tokenize=False, **template))
        except TEMPLATE_ERRORS:  # it does not take a prompt alone, such as one of the system
            return len(common_prefix(tokens))
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return len(ids) + (len(before) if ids[: len(before)] != before else 0)


def truncate(tokens: list[list[int]], limit: int, before: int) -> tuple[list[list[int]], int]:
    """(the tokens, how many were cut of the prompt): the oldest shared ones after `before` special ones, of all alike.

    Where the prompt is not enough, the longest responses lose their end, but never their last token (EOS): it is
    where the score is read.
    """
    before = min(before, limit - 1)
    room = max(0, len(common_prefix(tokens)) - before)
    cut = min(room, max(map(len, tokens)) - limit)
    tokens = [t[:before] + t[before + cut :] for t in tokens]
    return [t if len(t) <= limit else [*t[: limit - 1], t[-1]] for t in tokens], cut


def common_prefix(sequences: Sequence[Any]) -> Any:
    """What all sequences begin with, in their own type; empty if that is nothing."""
    return os.path.commonprefix(list(sequences))  # noqa: RUF071  (of any sequences: texts, token ids, messages)


def prompt_id(comparison: Comparison, system: bool = True) -> str:
    """A hash of the prompt as messages: the same question is the same prompt however it is wrapped.

    A row without a prompt of its own is its own, for what texts share by chance is none. system: with its system
    messages.
    """
    prompt = comparison.prompt
    if not prompt:
        return digest(sorted(json.dumps(r) for r in comparison.responses))
    messages = as_messages(prompt)
    asked = [m for m in messages if system or m["role"] not in ("system", "developer")]
    return digest(asked or messages)


def as_messages(prompt: Text) -> list[dict[str, Any]]:
    """Chat messages, a text as one of the user, without white space around their contents."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return [
        {k: v.strip() if k == "content" and isinstance(v, str) else v for k, v in m.items() if v is not None}
        for m in messages
    ]
