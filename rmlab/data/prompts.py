"""Where the prompt of a row ends and its responses begin: what both hold is said once."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rmlab.data import Text
from rmlab.data.values import text
from rmlab.messages import UserError

Messages = list[dict[str, Any]]


def prompt_of(row: Mapping[str, Any], where: str) -> Text:
    """The prompt as text or messages; empty for none."""
    return "" if row.get("prompt") in (None, "", []) else text(row["prompt"], where, "prompt")


def split_prompt(row: Mapping[str, Any], responses: list[Text], where: str) -> tuple[Text, list[Text]]:
    """(prompt, responses), as text or messages, with an explicit prompt or the turns that all responses share.

    A text prompt beside message lists becomes a user message. UserError for texts beside messages.
    """
    if len({type(response) for response in responses}) > 1:
        raise UserError(f"{where}: chosen and rejected, or all responses, must be text or all be messages")
    prompt = prompt_of(row, where)
    if not isinstance(responses[0], str):
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) and prompt else list(prompt)
        said, rest = said_once(cast(Messages, messages), cast(list[Messages], responses), where)
        return said, cast(list[Text], rest)
    if isinstance(prompt, str):
        return prompt, responses
    # Messages as the prompt and plain text as the answers: the answers are the assistant's turns.
    return prompt, [[{"role": "assistant", "content": r}] for r in responses]


def said_once(prompt: Messages, dialogues: list[Messages], where: str) -> tuple[Messages, list[Messages]]:
    """(prompt, what each dialogue adds to it): what they repeat of it stands in the prompt alone.

    That is the whole prompt, somewhere in the dialogue, or the end of it with which the dialogue begins. UserError
    where some repeat it and others do not.
    """
    ends = [end_of(prompt, dialogue) for dialogue in dialogues]
    repeated = ends if any(ends) else [overlap(prompt, dialogue) for dialogue in dialogues]
    if any(repeated) and not all(repeated):
        raise UserError(f"{where}: some responses repeat the prompt and others do not (of a pair chosen or rejected)")
    if prompt and not any(ends):
        return prompt, [dialogue[n:] for dialogue, n in zip(dialogues, repeated, strict=True)]
    cut = ends[0]
    if not cut or any(dialogue[:cut] != dialogues[0][:cut] for dialogue in dialogues):
        cut = shared_turns(dialogues)
    return dialogues[0][:cut], [dialogue[cut:] for dialogue in dialogues]


def shared_turns(dialogues: list[Messages]) -> int:
    """How many messages all begin with, the last one of each apart."""
    same = sum(1 for _ in itertools.takewhile(all_equal, zip(*dialogues, strict=False)))
    return min(same, *(len(dialogue) - 1 for dialogue in dialogues))


def all_equal(values: Sequence[Any]) -> bool:
    """Whether all are the same."""
    return all(value == values[0] for value in values)


def end_of(prompt: Messages, dialogue: Messages) -> int:
    """Where the dialogue has said the whole prompt for the last time, before its last turn; 0 if it does not."""
    turns, wanted = keys(dialogue), keys(prompt)
    ends = range(len(turns) - 1, len(wanted) - 1, -1) if wanted else ()
    return next((end for end in ends if turns[end - len(wanted) : end] == wanted), 0)


def overlap(prompt: Messages, dialogue: Messages) -> int:
    """How many messages at the end of the prompt are the dialogue's first, its last turn apart."""
    turns, wanted = keys(dialogue), keys(prompt)
    sizes = range(min(len(wanted), len(turns) - 1), 0, -1)
    return next((size for size in sizes if turns[:size] == wanted[-size:]), 0)


def keys(messages: Messages) -> list[Any]:
    """By what messages are the same: white space around is nothing."""
    return [(m["role"], str(m.get("content") or "").strip(), m.get("tool_calls") or None) for m in messages]
