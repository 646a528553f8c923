"""How many tokens a model has positions for, from its config alone. No torch."""

from collections.abc import Mapping
from typing import Any, cast

from rmlab.data.config import Options
from rmlab.messages import UserError, say

USUAL = cast(int, Options.max_length)  # tokens

# Positions are rotary by default, also where the config does not say so.
ROTARY = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3", "phi3")
# Families that count positions from pad_token_id + 1, as RoBERTa does.
OFFSET = ("roberta", "camembert", "mpnet", "longformer", "data2vec-text", "ibert", "luke", "xmod", "markuplm", "lilt")
CHANGING = ("longrope", "dynamic")  # kinds of rotary embeddings whose frequencies depend on the longest row of a batch


def usable_length(max_length: int | str | None, taken: int | None) -> int | None:
    """`max_length`; for `auto` 1024, or what the model takes if that is less."""
    if not isinstance(max_length, str):
        return max_length
    return USUAL if taken is None else min(USUAL, taken)


def tell_shorter(max_length: int | str | None, taken: int | None, name: str) -> None:
    """A line where `auto` is less than usual."""
    if isinstance(max_length, str) and taken is not None and taken < USUAL:
        say(f"max_length is {taken}: {name} takes no longer rows")


def taken_by(config: Mapping[str, Any]) -> int | None:
    """The longest row that a model takes, in tokens; None for any."""
    return min((limit for limit in (learned(config), unchanging(config)[1]) if limit is not None), default=None)


def check_positions(config: Mapping[str, Any], name: str, max_length: int | str | None) -> None:
    """Learned absolute positions end; rotary ones do not, but some change for the whole batch beyond a length.

    `auto` is never beyond them.
    """
    if isinstance(max_length, str):
        return
    kind, limit = unchanging(config)
    if limit is not None and (max_length is None or max_length > limit):
        raise UserError(
            f"data.max_length={max_length} is beyond the {limit} tokens from which on the {kind} positions of "
            f"{name} change with the longest row of a batch, and rewards with their neighbours; lower it"
        )
    positions = learned(config)
    if positions is not None and (max_length is None or max_length > positions):
        raise UserError(f"data.max_length={max_length} is beyond the {positions} positions of {name}; lower it")


def learned(config: Mapping[str, Any]) -> int | None:
    """The number of absolute positions; None where they are rotary, or where the config does not say."""
    if any("rope" in key or "rotary" in key for key in config) or config.get("model_type") in ROTARY:
        return None
    positions: int | None = next((config[k] for k in ("max_position_embeddings", "n_positions") if k in config), None)
    if positions is None or not any(name in str(config.get("model_type")) for name in OFFSET):
        return positions
    pad = config.get("pad_token_id")
    return positions - (1 if pad is None else pad) - 1


def unchanging(config: Mapping[str, Any]) -> tuple[str, int | None]:
    """(kind of rotary positions, tokens up to which a long row leaves the rewards of its batch alone; None: any)."""
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    parts = [rope, *rope.values()] if isinstance(rope, Mapping) else []
    for part in (part for part in parts if isinstance(part, Mapping)):
        kind = part.get("rope_type", part.get("type"))
        original = part.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
        if kind in CHANGING and (limit := original or config.get("max_position_embeddings")) is not None:
            return kind, limit
    return "", None
