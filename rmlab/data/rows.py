"""One row of any accepted format -> Comparison. No tokenizer, no torch: errors appear within a second.

The format is read off the columns, in this order (`format_of`):

    tokenised    input_ids_chosen, input_ids_rejected | chosen_ids, rejected_ids | chosen_input_ids, rejected_input_ids
    pair         chosen, rejected [prompt]
    graded       prompt, responses, scores            higher is better; equal scores are a tie
    ranked       prompt, responses, ranks             lower is better; equal ranks are a tie
    voted        prompt, responses, votes             K = 2: annotators' votes; K > 2: one label per pair
    labelled     prompt, responses, label             K = 2: one label
    native       prompt, responses, preferences       what Comparison holds

Any of them may carry id, subset, tools, chat_template_kwargs; pairs also margin, score_chosen and
score_rejected, or probability. Text is a string or a list of chat messages.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from rmlab.data import Comparison, Preference, Text
from rmlab.messages import UserError, did_you_mean

TOKENISED = (
    ("input_ids_chosen", "input_ids_rejected"),
    ("chosen_ids", "rejected_ids"),
    ("chosen_input_ids", "rejected_input_ids"),
)
FORMATS = "chosen + rejected, or responses + one of scores, ranks, votes, label, preferences"

Row = Mapping[str, Any]


def to_comparison(row: Row, where: str) -> Comparison:
    """The comparison that a row states. `where` names the row in errors ("train row 17")."""
    shared: dict[str, Any] = {
        "id": None if row.get("id") is None else str(row["id"]),
        "subset": None if row.get("subset") is None else str(row["subset"]),
        "gold": None if row.get("gold_rewards") is None else [float(g) for g in row["gold_rewards"]],
        "template": template(row, where),
    }
    for chosen, rejected in TOKENISED:
        if chosen in row and rejected in row:
            ids = [unpadded(row, chosen), unpadded(row, rejected)]
            if not all(ids):
                raise UserError(f"{where}: {chosen if not ids[0] else rejected} is empty")
            return Comparison("", ids, turned([pair_preference(row, where)]), tokenised=True, **shared)
    if "chosen" in row and "rejected" in row:
        prompt, responses = split_prompt(row, where)
        return Comparison(prompt, responses, turned([pair_preference(row, where)]), **shared)
    for column, read in READERS.items():
        if column in row and "responses" in row:
            responses = [text(r, where, "responses") for r in listed(row["responses"], where, "responses")]
            if len(responses) < 2:
                raise UserError(f"{where}: responses holds {len(responses)}; a comparison needs at least 2")
            preferences = turned(read(row[column], len(responses), where))
            if not preferences:
                raise UserError(f"{where}: {column} states no preference")
            return Comparison(text(row.get("prompt") or "", where, "prompt"), responses, preferences, **shared)
    raise UserError(f"{where}: columns {sorted(row)} are none of the accepted formats ({FORMATS})")


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


def split_prompt(row: Row, where: str) -> tuple[Text, list[Text]]:
    """(prompt, [chosen, rejected]) of a pair, with an implicit or explicit prompt, as text or messages.

    A prompt that chosen and rejected repeat as their own first messages is not said twice, and a text prompt
    beside message lists becomes a user message.
    """
    chosen, rejected = text(row["chosen"], where, "chosen"), text(row["rejected"], where, "rejected")
    if type(chosen) is not type(rejected):
        raise UserError(f"{where}: chosen and rejected must both be text or both be messages")
    prompt = text(row["prompt"], where, "prompt") if row.get("prompt") else None
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            return "", [chosen, rejected]
        if not isinstance(prompt, str):
            # Messages as the prompt and plain text as the answers: the answers are the assistant's turns.
            return prompt, [[{"role": "assistant", "content": r}] for r in (chosen, rejected)]
        return prompt, [chosen, rejected]
    chosen, rejected = cast(list[dict[str, Any]], chosen), cast(list[dict[str, Any]], rejected)
    if prompt is None:
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
        cut = min(same, len(chosen) - 1, len(rejected) - 1)
        return chosen[:cut], [chosen[cut:], rejected[cut:]]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if chosen[: len(messages)] == messages and rejected[: len(messages)] == messages:
        chosen, rejected = chosen[len(messages) :], rejected[len(messages) :]
    return messages, [chosen, rejected]


def unpadded(row: Row, ids: str) -> list[int]:
    """Token ids of one side; where its attention mask is given (and padded scripts give it), only those it keeps."""
    mask = row.get(ids.replace("input_ids", "attention_mask")) if "input_ids" in ids else None
    return [int(i) for i, keep in zip(row[ids], mask or itertools.repeat(1), strict=False) if keep]


def turned(preferences: list[Preference]) -> list[Preference]:
    """Better is the likelier side (probability >= 0.5), and a tie has no strength."""
    out = []
    for p in preferences:
        if p.probability < 0.5:
            p = Preference(p.worse, p.better, p.strength, 1 - p.probability)
        out.append(Preference(p.better, p.worse, 0.0, 0.5) if p.probability == 0.5 else p)
    return out


def template(row: Row, where: str) -> dict[str, Any]:
    """Tools (a list, or its JSON as text) and the chat template's variables of this row."""
    tools, variables = row.get("tools") or None, row.get("chat_template_kwargs") or {}
    try:
        tools = json.loads(tools) if isinstance(tools, str) else tools
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: tools is text but no JSON ({error})") from error
    if not isinstance(variables, Mapping):
        raise UserError(f"{where}: chat_template_kwargs must be a mapping, not {variables!r}")
    return {"tools": without_nulls(tools), **without_nulls(variables)}


def pair_preference(row: Row, where: str) -> Preference:
    """Strength from margin, or score_chosen - score_rejected; probability from its column; 1.0 where unknown."""
    probability = share(row["probability"], where) if "probability" in row else 1.0
    if "margin" in row:
        return Preference(0, 1, number(row["margin"], where, "margin"), probability)
    if "score_chosen" in row and "score_rejected" in row:
        chosen = number(row["score_chosen"], where, "score_chosen")
        return Preference(0, 1, chosen - number(row["score_rejected"], where, "score_rejected"), probability)
    return Preference(0, 1, 1.0, probability)


def from_scores(scores: Any, count: int, where: str) -> list[Preference]:
    """All C(K, 2) pairs; strength is the score difference, equal scores are a tie of strength 0."""
    values = [number(s, where, "scores") for s in sized(scores, count, where, "scores")]
    return [by_sign(i, j, values[i] - values[j]) for i, j in itertools.combinations(range(count), 2)]


def from_ranks(ranks: Any, count: int, where: str) -> list[Preference]:
    """All C(K, 2) pairs; a rank difference is no strength, so it stays 1.0 (0 for equal ranks, a tie)."""
    values = [number(r, where, "ranks") for r in sized(ranks, count, where, "ranks")]
    signs = {(i, j): values[j] - values[i] for i, j in itertools.combinations(range(count), 2)}
    return [by_sign(i, j, math.copysign(1.0, d) if d else 0.0) for (i, j), d in signs.items()]


def from_label(label: Any, count: int, where: str) -> list[Preference]:
    """With K = 2 one label, which is read as the only vote; with K > 2 a list of one label per pair, as in `votes`."""
    return from_votes([label], count, where) if count == 2 else from_votes(label, count, where)


def from_votes(votes: Any, count: int, where: str) -> list[Preference]:
    """Labels 1 (first), 2 (second) or 0 (tie), by position: the k-th wins label k.

    With K = 2 every vote is about the one pair: probability is the winner's share (a tie counts half to each) and
    strength is 2 * probability - 1. With K > 2 there is one label per pair (0,1), (0,2), ..., (1,2), ...
    """
    pairs = list(itertools.combinations(range(count), 2))
    if count == 2:
        shares = [first_share(votes, where)]
    else:
        shares = [first_share([v], where) for v in sized(votes, len(pairs), where, "votes")]
    return [
        Preference(*((i, j) if share >= 0.5 else (j, i)), abs(2 * share - 1), max(share, 1 - share))
        for (i, j), share in zip(pairs, shares, strict=True)
    ]


def from_native(preferences: Any, count: int, where: str) -> list[Preference]:
    """Preferences as they are stated, strength and probability 1.0 where left out.

    UserError unless better and worse are the places of two different responses.
    """
    out = []
    for given in listed(preferences, where, "preferences"):
        if not isinstance(given, Mapping) or not {"better", "worse"} <= set(given):
            raise UserError(f"{where}: preference {given!r} does not name better and worse")
        preference = Preference(
            int(given["better"]),
            int(given["worse"]),
            number(given.get("strength", 1.0), where, "strength"),
            share(given.get("probability", 1.0), where),
        )
        if not {preference.better, preference.worse} <= set(range(count)) or preference.better == preference.worse:
            raise UserError(f"{where}: preference {dict(given)} does not name two of the {count} responses")
        out.append(preference)
    return out


READERS: dict[str, Callable[[Any, int, str], list[Preference]]] = {
    "preferences": from_native,
    "scores": from_scores,
    "ranks": from_ranks,
    "votes": from_votes,
    "label": from_label,
}


def first_share(votes: Any, where: str) -> float:
    """Share of the votes that prefer the first of two responses; ties count half."""
    values = {"0": 0.5, "1": 1.0, "2": 0.0, "tie": 0.5, "first": 1.0, "second": 0.0, "a": 1.0, "b": 0.0}
    shares = []
    for vote in listed(votes, where, "votes"):
        key = str(vote).strip().lower().removesuffix(".0")
        if key not in values:
            raise UserError(f"{where}: vote {vote!r} is none of {sorted(values)} (0 is a tie, 1 and 2 the position)")
        shares.append(values[key])
    if not shares:
        raise UserError(f"{where}: no votes")
    return sum(shares) / len(shares)


def by_sign(i: int, j: int, difference: float) -> Preference:
    """`i` is better for a positive difference, `j` for a negative one; the strength is its size, and 0 is a tie."""
    if difference == 0:
        return Preference(i, j, 0.0, 0.5)
    return Preference(*((i, j) if difference > 0 else (j, i)), abs(difference), 1.0)


def listed(values: Any, where: str, column: str) -> list[Any]:
    """`values` as they are; UserError naming row and column if they are no list."""
    if not isinstance(values, list):
        raise UserError(f"{where}: {column} must be a list, not {values!r}")
    return values


def share(value: Any, where: str) -> float:
    """A probability as a float; UserError unless it is a number between 0 and 1."""
    probability = number(value, where, "probability")
    if not 0.0 <= probability <= 1.0:
        raise UserError(f"{where}: probability is {probability}, not between 0 and 1")
    return probability


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
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result):
        raise UserError(f"{where}: {column} is {value!r}, not a finite number; fix or remove the row")
    return result


def text(value: Any, where: str, column: str) -> Text:
    """A string, or a list of {"role", "content"} messages stripped of the nulls that Arrow fills in."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return str(value)  # JSON written by tools that guess types: an answer of "True" or "42"
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list) and all(isinstance(m, Mapping) and "role" in m for m in value):
        return [without_nulls(m) for m in value]
    raise UserError(f"{where}: {column} is neither text nor chat messages: {str(value)[:80]!r}")


def without_nulls(value: Any) -> Any:
    """Without keys whose value is None, at any depth: Arrow gives each row the keys of all. Lists keep their Nones."""
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def identical(comparison: Comparison) -> bool:
    """Whether some preference is between two equal responses: no reward can satisfy it."""
    return any(
        comparison.responses[p.better] == comparison.responses[p.worse]
        for p in comparison.preferences
        if p.probability != 0.5
    )
