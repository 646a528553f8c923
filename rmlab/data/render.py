"""Prompt and response to token ids. Training, evaluation and scoring all come through `encode`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rmlab.data import Text, Tokenizer
from rmlab.messages import UserError
from rmlab.upstream import batch_ids

NO_TEMPLATE = (
    "the rows are chat messages but the tokenizer has no chat template; set model.chat_template=chatml (or plain, or "
    "FILE.jinja)"
)


@dataclass(frozen=True)
class Special:
    """The special tokens of a tokenizer, which takes as long to say them as to read a sentence: asked once for many."""

    before: list[int]  # what it puts before a text: [BOS], [CLS], nothing
    after: list[int]
    eos: str | None
    eos_id: int | None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Special":
        """As they are now."""
        return cls(*special_tokens(tokenizer), tokenizer.eos_token, tokenizer.eos_token_id)


def render(tokenizer: Tokenizer, prompt: Text, response: Text, template: dict[str, Any], eos: str | None) -> str:
    """The exact text that is scored: `prompt + response`, or both through the tokenizer's chat template.

    Plain text is closed with the EOS token `eos`; a chat template closes its turns itself, and a server that applies
    the same template sees the same text.
    """
    if isinstance(prompt, str) and isinstance(response, str):
        text = prompt + response
        return text if eos is None or text.endswith(eos) else text + eos
    messages: list[dict[str, Any]] = []
    if prompt:
        messages += [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages += [{"role": "assistant", "content": response}] if isinstance(response, str) else response
    if getattr(tokenizer, "chat_template", None) is None:
        raise UserError(NO_TEMPLATE)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **template))


def encode(tokenizer: Tokenizer, prompt: Text, response: Text, template: dict[str, Any]) -> list[int]:
    """Token ids with exactly one BOS and one final EOS, where the tokenizer has them."""
    special = Special.of(tokenizer)
    text = render(tokenizer, prompt, response, template, special.eos)
    return closed(tokens_of(tokenizer, [text])[text], special)


def tokens_of(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, list[int]]:
    """Text -> its token ids without special ones; each different text is tokenised once, many in one call."""
    ids: dict[str, list[int]] = {}
    for part in parts(dict.fromkeys(texts)):
        found = batch_ids(tokenizer, part) or tokenizer(part, add_special_tokens=False, **IDS_ALONE)["input_ids"]
        ids.update(zip(part, found, strict=True))
    return ids


# Of what a tokenizer can say of a text.
IDS_ALONE: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
PART = 2**20  # characters for one call of a tokenizer, which takes about a hundred bytes of memory for each token


def parts(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in lists of at most PART characters; a longer text has one of its own."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and size + len(text) > PART:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part


def closed(ids: list[int], special: Special) -> list[int]:
    """The token ids of a text with exactly one BOS and one final EOS.

    Special tokens are taken from what the tokenizer puts around an empty text ([CLS] .. [SEP], <s> ..), and never
    doubled when the text or the chat template already wrote them.
    """
    before, after = special.before, special.after
    while len(ids) > 1 and before and ids[: len(before)] == before == ids[len(before) : 2 * len(before)]:
        ids = ids[len(before) :]
    while len(ids) > 1 and ids[-1] == ids[-2] == special.eos_id:
        ids = ids[:-1]
    if ids[: len(before)] != before:
        ids = before + ids
    if ids[len(ids) - len(after) :] != after:
        ids = ids + after
    return ids


def special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text: ([BOS], []), ([CLS], [SEP]), ([], []), ..."""
    probe = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(whole) - len(probe) + 1):
        if whole[start : start + len(probe)] == probe:
            return list(whole[:start]), list(whole[start + len(probe) :])
    return [], []


# Two macros that hide the clock of a template.
CLOCKS = [f"{{% macro strftime_now(format) %}}{day}{{% endmacro %}}" for day in ("one day", "another day")]


def refuse_dated_template(tokenizer: Tokenizer, template: dict[str, Any]) -> None:
    """UserError when the chat template prints today's date: rewards would change from day to day."""
    source = str(getattr(tokenizer, "chat_template", None) or "")
    if "strftime_now" not in source:
        return

    probe: list[dict[str, Any]] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    today, other_day = (
        render(tokenizer, probe[:1], probe[1:], {**template, "chat_template": clock + source}, None) for clock in CLOCKS
    )
    if today != other_day:
        raise UserError(
            "the chat template prints today's date, so rewards would change from day to day; pin it, for example "
            "data.chat_template_kwargs.date_string='26 Jul 2024', or set model.chat_template=FILE.jinja"
        )
