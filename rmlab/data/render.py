"""Prompt and response to token ids. Training, evaluation and scoring all come through `encode`."""

from typing import Any

from rmlab.data import Text, Tokenizer
from rmlab.messages import UserError

NO_TEMPLATE = (
    "the rows are chat messages but the tokenizer has no chat template; set model.chat_template=chatml (or plain, or "
    "FILE.jinja)"
)


def render(tokenizer: Tokenizer, prompt: Text, response: Text, template: dict[str, Any]) -> str:
    """The exact text that is scored: `prompt + response`, or both through the tokenizer's chat template.

    Plain text is closed with the EOS token; a chat template closes its turns itself, and a server that applies
    the same template sees the same text.
    """
    if isinstance(prompt, str) and isinstance(response, str):
        text, eos = prompt + response, tokenizer.eos_token
        return text if eos is None or text.endswith(eos) else text + eos
    messages: list[dict[str, Any]] = []
    if prompt:
        messages += [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages += [{"role": "assistant", "content": response}] if isinstance(response, str) else response
    if getattr(tokenizer, "chat_template", None) is None:
        raise UserError(NO_TEMPLATE)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **template))


def encode(tokenizer: Tokenizer, prompt: Text, response: Text, template: dict[str, Any]) -> list[int]:
    """Token ids with exactly one BOS and one final EOS, where the tokenizer has them.

    Special tokens are taken from what the tokenizer puts around an empty text ([CLS] .. [SEP], <s> ..), and never
    doubled when the text or the chat template already wrote them.
    """
    text = render(tokenizer, prompt, response, template)
    ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    before, after = special_tokens(tokenizer)
    while len(ids) > 1 and before and ids[: len(before)] == before == ids[len(before) : 2 * len(before)]:
        ids = ids[len(before) :]
    while len(ids) > 1 and ids[-1] == ids[-2] == tokenizer.eos_token_id:
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
        render(tokenizer, probe[:1], probe[1:], {**template, "chat_template": clock + source}) for clock in CLOCKS
    )
    if today != other_day:
        raise UserError(
            "the chat template prints today's date, so rewards would change from day to day; pin it, for example "
            "data.chat_template_kwargs.date_string='26 Jul 2024', or set model.chat_template=FILE.jinja"
        )
