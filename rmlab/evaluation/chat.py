"""Rows of a benchmark as a model's tokenizer takes them: as a chat, or as plain text where it has no chat template."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rmlab.data import Text, Tokenizer, excerpts, values

BETWEEN = "\n\n"  # a question in plain text and its answer, turns of a dialogue


def asked(prompt: Text) -> Text:
    """A prompt in text as the message of a user, to which responses in text answer."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) and prompt else prompt


def rows_for(tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows as they are where the tokenizer has a chat template, else as text what can be."""
    return iter(rows) if getattr(tokenizer, "chat_template", None) else map(as_text, rows)


def as_text(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Messages before responses in text as a text with an empty line after it; of several each begins with its role."""
    prompt = row.get("prompt")
    answers = row.get("responses") or [row.get("chosen"), row.get("rejected")]
    if not isinstance(prompt, list) or not prompt or not all(isinstance(answer, str) for answer in answers):
        return row
    said = [excerpts.message(values.message(one, "prompt")) for one in prompt]
    if len(said) == 1:
        return {**row, "prompt": said[0].rstrip() + BETWEEN}
    turns = [f"{one['role']}: {what}" for one, what in zip(prompt, said, strict=True)]
    return {**row, "prompt": BETWEEN.join([*turns, "assistant: "])}
