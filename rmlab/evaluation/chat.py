"""Rows of a suite as a model's tokenizer takes them: as a chat where it has a chat template, else as plain text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rmlab.data import Tokenizer

BETWEEN = "\n\n"  # a question in plain text and its answer, turns of a dialogue


def rows_for(tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows, with prompts as user messages or as text; responses in text belong to them."""
    for row in rows:
        yield as_chat(row) if getattr(tokenizer, "chat_template", None) else as_text(row)


def as_chat(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A text prompt as the message of a user, to which the responses answer."""
    prompt = row.get("prompt")
    return {**row, "prompt": [{"role": "user", "content": prompt}]} if isinstance(prompt, str) and prompt else row


def as_text(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A prompt as text with an empty line after it; of several turns each begins with its role, as does the answer."""
    prompt = row.get("prompt")
    if not prompt:
        return row
    if isinstance(prompt, str):
        return {**row, "prompt": prompt.rstrip() + BETWEEN}
    if len(prompt) == 1:
        return {**row, "prompt": prompt[0]["content"].rstrip() + BETWEEN}
    turns = [f"{message['role']}: {message['content']}" for message in prompt]
    return {**row, "prompt": BETWEEN.join([*turns, "assistant: "])}
