"""Secrets are never written: what stands under a secret's name becomes <secret> in every file."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rmlab.messages import UserError

MASK = "<secret>"
SECRET = re.compile(r"(^|_)(token|secret|password|passwd|api_?key|access_?key|credentials?)s?$", re.IGNORECASE)
# Tokens of a vocabulary, and numbers of them.
NO_SECRET = re.compile(r"^(pad|eos|bos|unk|sep|cls|mask|num|min|max|new|additional_special)_|_per_", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether the name of a key or of an environment variable says that its value is a secret."""
    return bool(SECRET.search(name)) and not NO_SECRET.search(name)


def under(node: str, key: Any) -> str:
    """The name of a key below a node; none below nodes whose keys are users' words, a column or variable of a template.

    They decide what is computed, so a value of theirs must not be left out of a run's id.
    """
    return node if node in ("columns", "chat_template_kwargs") else str(key)


def secrets_of(config: Any, name: str = "") -> set[str]:
    """The secret values in a config, at any depth, and those of the environment, of eight characters at least.

    A shorter one would be found in words that have nothing to do with it.
    """
    found = {value for key, value in os.environ.items() if is_secret(key)}
    if isinstance(config, Mapping):
        found = found.union(*(secrets_of(value, under(name, key)) for key, value in config.items()))
    elif isinstance(config, list):
        found = found.union(*(secrets_of(value, name) for value in config))
    elif isinstance(config, str) and is_secret(name):
        found |= {config}
    return {secret for secret in found if len(secret) >= 8 and MASK not in secret}


def masked(value: Any, secrets: Iterable[str] = (), name: str = "") -> Any:
    """The value with <secret> in the place of what stands under a secret's name, and of every secret in its texts."""
    secrets = sorted(secrets, key=len, reverse=True)
    if isinstance(value, Mapping):
        return {k: masked(v, secrets, under(name, k)) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(v, secrets, name) for v in value]
    if not isinstance(value, str) or not value:
        return value
    if is_secret(name):
        return MASK
    for secret in secrets:
        value = value.replace(secret, MASK)
    return value


def without_masks(value: Any, name: str = "the config") -> Any:
    """null for what a config that was read back has masked. UserError naming a text of which only a part was."""
    if isinstance(value, Mapping):
        return {k: without_masks(v, f"{name}.{k}" if name != "the config" else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [without_masks(v, name) for v in value]
    if isinstance(value, str) and MASK in value and value != MASK:
        raise UserError(f"{name} holds a secret that was not written down: {value}; give it again")
    return None if value == MASK else value
