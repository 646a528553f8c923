"""One row to be scored -> Comparison: every format of training, and responses that nobody has compared yet.

training's     rows.py, with their preferences
candidates     responses [prompt]
one response   response [prompt]
dialogue       messages, the last one the assistant's
tokenised      input_ids [attention_mask]: of one response, or a list of those of several
"""

from collections.abc import Mapping
from typing import Any

from rmlab.data import Comparison, Text
from rmlab.data.pairs import SIDES
from rmlab.data.prompts import split_prompt
from rmlab.data.rows import READERS, TOKENISED, Row, about, refuse_other_media, to_comparison, unpadded
from rmlab.data.values import listed, text
from rmlab.messages import UserError

FORMATS = "prompt + response, prompt + responses, messages, input_ids, or a format of training"
READ = {"prompt", "response", "responses", "messages", "input_ids"}


def to_candidates(row: Row, where: str) -> Comparison:
    """The K >= 1 responses of a row, with the preferences that it states, if any. `where` names it in errors."""
    if is_comparison(row):
        return to_comparison(row, where)
    refuse_other_media(row, where)
    tokenised = row.get("input_ids") is not None
    prompt, responses = ("", token_lists(row, where)) if tokenised else texts_of(row, where)
    return Comparison(prompt, responses, [], tokenised=tokenised, **about(row, responses, tokenised, where))


def is_comparison(row: Row) -> bool:
    """Whether a row states who beats whom, in a format of training."""
    if any(chosen in row and rejected in row for chosen, rejected in (*TOKENISED, SIDES)):
        return True
    several = isinstance(row.get("responses"), list) and len(row["responses"]) > 1
    return several and any(row.get(column) is not None for column in READERS)


def texts_of(row: Row, where: str) -> tuple[Text, list[Any]]:
    """(prompt, responses) of a row of texts. UserError for one that has none, or two things that could be them."""
    given = [column for column in ("response", "responses", "messages") if row.get(column) is not None]
    if not given:
        raise UserError(f"{where}: columns {sorted(map(str, row))} hold nothing to score; give {FORMATS}")
    if len(given) > 1:
        raise UserError(f"{where}: it has {' and '.join(given)}, and one of them is to be scored; hide the others")
    (column,) = given
    values = listed(row[column], where, column) if column == "responses" else [row[column]]
    if not values:
        raise UserError(f"{where}: responses holds none; remove the row")
    responses = [text(value, where, column) for value in values]
    if column == "messages":
        refuse_unanswered(responses[0], where)
    return split_prompt(row, responses, where)


def refuse_unanswered(dialogue: Text, where: str) -> None:
    """UserError for `messages` that do not end in an answer."""
    if isinstance(dialogue, str) or dialogue[-1]["role"] != "assistant":
        said = "text" if isinstance(dialogue, str) else f"the {dialogue[-1]['role']}'s"
        raise UserError(f"{where}: messages must end in the assistant's, which is scored; the last one is {said}")


def token_lists(row: Row, where: str) -> list[list[int]]:
    """Token ids of each response, without their padding where `attention_mask` tells it."""
    ids, mask = listed(row["input_ids"], where, "input_ids"), row.get("attention_mask")
    if not ids or not isinstance(ids[0], list):
        return [unpadded(row, "input_ids", where)]
    masks = [None] * len(ids) if mask is None else listed(mask, where, "attention_mask")
    if len(masks) != len(ids):
        raise UserError(f"{where}: attention_mask holds {len(masks)} lists, and input_ids {len(ids)}")
    rows = [{"input_ids": i, "attention_mask": m} for i, m in zip(ids, masks, strict=True)]
    return [unpadded(one, "input_ids", where) for one in rows]


def unread(row: Mapping[str, Any], comparison: Comparison) -> list[str]:
    """Columns with texts beside those that are read, one of which may be the prompt, where no prompt is read."""
    if comparison.prompt or comparison.tokenised:
        return []
    known = READ | {"id", "subset", "tools", "chat_template_kwargs", *SIDES, *READERS}
    return sorted(k for k, v in row.items() if k not in known and isinstance(v, str | list) and v)
