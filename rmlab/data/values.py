"""Values of a row, read and checked: what is not what its column says is a UserError naming row and column."""

import math
from collections.abc import Mapping
from typing import Any

from rmlab.data import Text
from rmlab.messages import UserError

LARGEST = 3e38  # of float32, in which losses compute
IDS = range(2**31)  # of tokens, as they are kept
# What apply_chat_template takes besides the variables of a template, and what rmlab decides itself.
RESERVED = {
    "chat_template", "tokenize", "conversation", "messages", "return_dict", "return_tensors", "padding", "truncation",
    "max_length", "tokenizer_kwargs", "return_assistant_tokens_mask", "add_generation_prompt", "continue_final_message",
    "sanitize_control_tokens", "self",
}  # fmt: skip


def listed(values: Any, where: str, column: str) -> list[Any]:
    """`values` as they are; UserError naming row and column if they are no list."""
    if not isinstance(values, list):
        raise UserError(f"{where}: {column} must be a list, not {brief(values)}")
    return values


def sized(values: Any, count: int, where: str, column: str) -> list[Any]:
    """`values` as they are; UserError unless they are a list of `count`."""
    values = listed(values, where, column)
    if len(values) != count:
        raise UserError(f"{where}: {column} holds {len(values)} values, {count} are needed")
    return values


def number(value: Any, where: str, column: str) -> float:
    """A finite float, or a UserError: NaN in a margin would silently poison every weight of the model."""
    if value is None:
        raise UserError(f"{where}: {column} is missing, but other rows have it; give it to all rows or to none")
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not abs(result) <= LARGEST:
        raise UserError(f"{where}: {column} is {brief(value)}, not a finite number; fix or remove the row")
    return result


def share(value: Any, where: str) -> float:
    """A probability as a float; UserError unless it is a number between 0 and 1."""
    probability = number(value, where, "probability")
    if not 0.0 <= probability <= 1.0:
        raise UserError(f"{where}: probability is {probability}, not between 0 and 1")
    return probability


def place(value: Any, count: int, where: str, column: str) -> int:
    """The index of one of `count` responses."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise UserError(
            f"{where}: {column} is {brief(value)}, which does not name one of the {count} responses by index"
        )
    return value


def token_ids(value: Any, where: str, column: str) -> list[int]:
    """A list of token ids."""
    for token in listed(value, where, column):
        if isinstance(token, bool) or not isinstance(token, int) or token not in IDS:
            raise UserError(
                f"{where}: {column} holds {brief(token)}, which is no token id; ids are whole and at least 0"
            )
    return value


def named(value: Any, where: str, column: str) -> str | None:
    """`id` or `subset` as text, or None. UserError for what is neither text nor a number."""
    if isinstance(value, Mapping | list):
        raise UserError(f"{where}: {column} is {brief(value)}, neither text nor a number")
    return None if value is None else whole(printed(value, where, column), where, column)


def printed(value: Any, where: str, column: str) -> str:
    """`str` of it; UserError for an integer of thousands of digits and what is nested too deep."""
    try:
        return str(value)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: {column} is {brief(value)}; fix or remove the row") from error


def text(value: Any, where: str, column: str) -> Text:
    """A string, or a list of {"role", "content"} messages whose content is text."""
    if isinstance(value, str):
        return whole(value, where, column)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return printed(value, where, column)  # JSON written by tools that guess types: an answer of "True" or "42"
    messages = [value] if isinstance(value, Mapping) else value
    messages = [shared_message(m, where, column) for m in messages] if isinstance(messages, list) else messages
    if not isinstance(messages, list) or not all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) for m in messages
    ):
        raise UserError(f"{where}: {column} is neither text nor chat messages: {brief(value)}")
    if not messages:
        raise UserError(f"{where}: {column} holds no message; give text, or at least one message")
    return [message(m, f"{where}: {column} message {n}") for n, m in enumerate(messages)]


SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def shared_message(given: Any, where: str, column: str) -> Any:
    """A message that is written as {"from": "human" or "gpt", "value": text}, as {"role", "content"}; else as it is."""
    if not isinstance(given, Mapping) or "role" in given or not {"from", "value"} <= set(given):
        return given
    if given["from"] not in SPEAKERS:
        raise UserError(f"{where}: {column} has a message from {brief(given['from'])}, none of {sorted(SPEAKERS)}")
    return {"role": SPEAKERS[given["from"]], "content": given["value"]}


def message(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A chat message with its content as text; all else stays as the user wrote it.

    Parts of text are joined. UserError for images and other parts, and for no content, unless it calls tools.
    """
    content = given.get("content")
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise UserError(f"{where} holds {brief(part)}; rmlab's models read text, so parts must be of type text")
        content = "".join(part["text"] for part in content)
    if content is None and given.get("tool_calls"):
        return dict(given)
    if not isinstance(content, str):
        raise UserError(f"{where} has no text as its content: {brief(content)}")
    return {**given, "content": whole(content, where, "content")}


def whole(value: str, where: str, column: str) -> str:
    """The text; UserError for one that no encoding can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: {column} holds half a character (a lone surrogate, at {error.start}); repair the text"
        ) from error
    return value


def refuse_reserved(variables: Any, where: str) -> None:
    """UserError unless these are variables of a chat template: not what rmlab or the tokenizer decides."""
    if not isinstance(variables, Mapping):
        raise UserError(f"{where} must be a mapping, not {brief(variables)}")
    for name in variables:
        if not isinstance(name, str) or not name.isidentifier():
            raise UserError(f"{where}: {brief(name)} is no name of a variable of a template")
    for name in sorted(RESERVED & set(variables)):
        hint = "; set model.chat_template instead" if name == "chat_template" else ""
        raise UserError(f"{where}: {name} is no variable of a template{hint}; leave it out")


def brief(value: Any) -> str:
    """The beginning of a value, for messages."""
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):  # an integer of thousands of digits; a value too deep to print
        return f"a {type(value).__name__} that cannot be printed"


def without_nulls(value: Any) -> Any:
    """Without keys whose value is None, at any depth: Arrow gives each row the keys of all. Lists keep their Nones."""
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value
