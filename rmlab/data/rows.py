"""One row of any accepted format -> Comparison. No tokenizer, no torch: errors appear within a second.

The format is read off the columns, in this order (`format_of`):

    tokenised    input_ids_chosen, input_ids_rejected | chosen_ids, rejected_ids | chosen_input_ids, rejected_input_ids
    pair         chosen, rejected [prompt]            lists of several: each chosen one beats each rejected one
    native       prompt, responses, preferences       what Comparison holds
    graded       prompt, responses, scores            higher is better; equal scores are a tie
    ranked       prompt, responses, ranks             lower is better; equal ranks are a tie
    voted        prompt, responses, votes             K = 2: annotators' votes; K > 2: one label per pair
    labelled     prompt, responses, label             K = 2: one label

Any of them may carry id, subset, tools, chat_template_kwargs; pairs also margin, score_chosen and
score_rejected, or probability. Text is a string or a list of chat messages. Weights and columns: see extra.py.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rmlab.data import Comparison, Preference, Text
from rmlab.data.config import Options
from rmlab.data.extra import columns_of, weighed, weight_of
from rmlab.data.labels import from_label, from_votes
from rmlab.data.pairs import SIDES, all_sides, pair_preference, sides_are_lists, stated
from rmlab.data.prompts import split_prompt
from rmlab.data.values import brief, listed, named, number, place, refuse_reserved, share, sized, text, token_ids
from rmlab.messages import UserError, did_you_mean

TOKENISED = (
    ("input_ids_chosen", "input_ids_rejected"),
    ("chosen_ids", "rejected_ids"),
    ("chosen_input_ids", "rejected_input_ids"),
)
FORMATS = "chosen + rejected, or responses + one of scores, ranks, votes, label, preferences"
NOT_TEXT = ("images", "image", "videos", "video", "audio", "audios")

Row = Mapping[str, Any]


def to_comparison(row: Row, where: str, options: Options | None = None) -> Comparison:
    """The comparison that a row states, with the columns of `options`. `where` names it in errors ("train row 17")."""
    refuse_other_media(row, where)
    prompt, responses, preferences, tokenised = read_format(row, where)
    about_it = about(row, responses, tokenised, where)
    if options is not None and options.columns:
        about_it["columns"] = columns_of(row, len(responses), preferences, options, where)
    return Comparison(prompt, responses, weighed(row, preferences, where), tokenised=tokenised, **about_it)


def refuse_other_media(row: Row, where: str) -> None:
    """UserError for a row with images, videos or sounds."""
    for column in NOT_TEXT:
        if row.get(column):
            raise UserError(
                f"{where}: {column} is not read, rmlab's models read text; data.columns.{column}=null hides it"
            )


def about(row: Row, responses: list[Any], tokenised: bool, where: str) -> dict[str, Any]:
    """What rows of any format may carry, by the names of Comparison: id, subset, gold and template."""
    variables = template(row, where)
    if variables and not tokenised and isinstance(responses[0], str):
        raise UserError(
            f"{where}: {sorted(variables)} are for a chat template, which plain text has none of; write messages, or "
            "hide them with data.columns.tools=null or data.columns.chat_template_kwargs=null"
        )
    return {
        "id": named(row.get("id"), where, "id"),
        "subset": named(row.get("subset"), where, "subset"),
        "gold": gold_rewards(row, len(responses), where),
        "template": variables,
    }


def read_format(row: Row, where: str) -> tuple[Text, list[Any], list[Preference], bool]:
    """(prompt, responses, preferences, whether they are token ids) by the first format whose columns are there."""
    for chosen, rejected in TOKENISED:
        if chosen in row and rejected in row:
            ids = [unpadded(row, side, where) for side in (chosen, rejected)]
            return "", ids, [pair_preference(row, where)], True
    if sides_are_lists(row):
        given, preferences = all_sides(row, where)
        return *split_prompt(row, given, where), preferences, False
    if "chosen" in row and "rejected" in row:
        prompt, responses = split_prompt(row, [text(row[side], where, side) for side in SIDES], where)
        return prompt, responses, [pair_preference(row, where)], False
    if "responses" in row and any(column in row for column in READERS):
        responses = [text(r, where, "responses") for r in listed(row["responses"], where, "responses")]
        if len(responses) < 2:
            raise UserError(
                f"{where}: responses holds {len(responses)}, and a comparison needs at least 2; fix the row, or leave "
                "such rows out with uncompared: drop in its entry of data.train"
            )
        preferences = read_preferences(row, len(responses), where)
        return *split_prompt(row, responses, where), preferences, False
    raise UserError(f"{where}: columns {sorted(map(str, row))} are none of the accepted formats ({FORMATS})")


def decisive(row: Row) -> str | None:
    """Which of the columns `preferences` ... `label` says who wins in such a row; None for pairs."""
    pair = any({chosen, rejected} <= set(row) for chosen, rejected in (*TOKENISED, SIDES))
    return None if pair else next((column for column in READERS if column in row), None)


def check_columns(columns: Iterable[str], where: str) -> None:
    """UserError naming the missing column and the nearest present one, unless the columns make a known format."""
    have = set(columns)
    if any({c, r} <= have for c, r in TOKENISED) or {"chosen", "rejected"} <= have:
        return
    if "responses" in have and have & set(READERS):
        return
    missing = "scores" if "responses" in have else "rejected" if "chosen" in have else "chosen"
    hint = did_you_mean(missing, have)
    raise UserError(
        f"{where}: no column {missing!r}{hint}. Accepted: {FORMATS}; map yours with data.columns.{missing}=YOUR_COLUMN"
    )


# ---- token ids ----


def unpadded(row: Row, ids: str, where: str) -> list[int]:
    """Token ids of one side; where its attention mask is given (and padded scripts give it), only those it keeps."""
    tokens = token_ids(row[ids], where, ids)
    name = ids.replace("input_ids", "attention_mask")
    if "input_ids" in ids and row.get(name) is not None:
        mask = sized(row[name], len(tokens), where, name)
        for keep in mask:
            if keep not in (0, 1):
                raise UserError(f"{where}: {name} holds {brief(keep)}, neither 0 nor 1")
        tokens = [token for token, keep in zip(tokens, mask, strict=True) if keep]
    if not tokens:
        raise UserError(f"{where}: {ids} is empty")
    return tokens


# ---- preferences ----


def read_preferences(row: Row, count: int, where: str) -> list[Preference]:
    """By the first column of READERS that the row has. UserError if another that can be read contradicts it."""
    found: dict[str, list[Preference]] = {}
    for column, read in READERS.items():
        if column not in row or (found and row[column] is None):
            continue
        try:
            found[column] = read(row[column], count, where)
        except UserError:
            if not found:
                raise  # one more column of that name may be something else
    first, *others = found
    for other in others:
        if contradict(found[first], found[other]):
            raise UserError(f"{where}: {first} and {other} contradict each other; data.columns.{other}=null hides one")
    if not found[first]:
        raise UserError(f"{where}: {first} states no preference")
    return found[first]


def contradict(one: list[Preference], other: list[Preference]) -> bool:
    """Whether some pair is decided one way by one and the other way by the other."""
    decided = {(p.better, p.worse) for p in one if p.probability != 0.5}
    return any((p.worse, p.better) in decided for p in other if p.probability != 0.5)


def from_scores(scores: Any, count: int, where: str) -> list[Preference]:
    """All C(K, 2) pairs; strength is the score difference, equal scores are a tie of strength 0."""
    values = [number(s, where, "scores") for s in sized(scores, count, where, "scores")]
    pairs = itertools.combinations(range(count), 2)
    return [by_sign(i, j, number(values[i] - values[j], where, "a difference of scores")) for i, j in pairs]


def from_ranks(ranks: Any, count: int, where: str) -> list[Preference]:
    """All C(K, 2) pairs; a rank difference is no strength, so it stays 1.0 (0 for equal ranks, a tie)."""
    values = [number(r, where, "ranks") for r in sized(ranks, count, where, "ranks")]
    signs = {(i, j): values[j] - values[i] for i, j in itertools.combinations(range(count), 2)}
    return [by_sign(i, j, math.copysign(1.0, d) if d else 0.0) for (i, j), d in signs.items()]


def from_native(preferences: Any, count: int, where: str) -> list[Preference]:
    """Preferences as they are stated, strength, probability and weight 1.0 where left out.

    UserError unless better and worse are the places of two different responses.
    """
    out = []
    for given in listed(preferences, where, "preferences"):
        if not isinstance(given, Mapping) or not {"better", "worse"} <= set(given):
            raise UserError(f"{where}: preference {brief(given)} does not name better and worse")
        better, worse = (place(given[side], count, where, f"preferences.{side}") for side in ("better", "worse"))
        if better == worse:
            raise UserError(f"{where}: preference {brief(dict(given))} does not name two of the {count} responses")
        strength = number(given["strength"], where, "strength") if "strength" in given else None
        preference = stated(better, worse, strength, share(given.get("probability", 1.0), where))
        out.append(replace(preference, weight=weight_of(given["weight"], where)) if "weight" in given else preference)
    return out


READERS: dict[str, Callable[[Any, int, str], list[Preference]]] = {
    "preferences": from_native,
    "scores": from_scores,
    "ranks": from_ranks,
    "votes": from_votes,
    "label": from_label,
}


COLUMNS = {"prompt", "responses", "id", "subset", "tools", "chat_template_kwargs", "weight", *SIDES, *READERS}
"""That are read in rows of any format."""


def by_sign(i: int, j: int, difference: float) -> Preference:
    """`i` is better for a positive difference, `j` for a negative one; the strength is its size, and 0 is a tie."""
    if difference == 0:
        return Preference(i, j, 0.0, 0.5)
    return Preference(*((i, j) if difference > 0 else (j, i)), abs(difference), 1.0)


# ---- what rows of any format may carry ----


def gold_rewards(row: Row, count: int, where: str) -> list[float] | None:
    """(K,) the true rewards, where the data knows them; else the ratings, where these say who wins."""
    column = "gold_rewards" if row.get("gold_rewards") is not None else "scores"
    if row.get(column) is None or (column == "scores" and decisive(row) != "scores"):
        return None
    return [number(g, where, column) for g in sized(row[column], count, where, column)]


def template(row: Row, where: str) -> dict[str, Any]:
    """Tools (a list, or its JSON as text) and the chat template's variables of this row, those that it states."""
    tools, variables = row.get("tools") or None, row.get("chat_template_kwargs") or {}
    try:
        tools = json.loads(tools) if isinstance(tools, str) else tools
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: tools is text but no JSON ({error})") from error
    if tools is not None and not isinstance(tools, list):
        raise UserError(f"{where}: tools must be a list, not {brief(tools)}")
    refuse_reserved(variables, f"{where}: chat_template_kwargs")
    stated = {k: v for k, v in variables.items() if k != "tools" or v}
    return {**({"tools": tools} if tools else {}), **stated}


def identical(comparison: Comparison) -> bool:
    """Whether some preference is between two equal responses: no reward can satisfy it."""
    return any(
        comparison.responses[p.better] == comparison.responses[p.worse]
        for p in comparison.preferences
        if p.probability != 0.5
    )


def is_empty(comparison: Comparison) -> bool:
    """Whether some response is nothing but white space, in a chat every message of it; calls of tools are something."""
    if comparison.tokenised:
        return False
    return any(not r.strip() if isinstance(r, str) else not any(map(says, r)) for r in comparison.responses)


def says(message: Mapping[str, Any]) -> bool:
    """Whether a chat message has text or calls a tool."""
    return bool(str(message.get("content") or "").strip() or message.get("tool_calls"))
