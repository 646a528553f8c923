"""Secrets are never written: values of keys and environment variables whose names say so become *** in every file."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "***"
SECRET = re.compile(r"(^|_)(token|secret|password|passwd|api_?key|access_?key|credentials?)s?$", re.IGNORECASE)
# Tokens of a vocabulary, and numbers of them.
NO_SECRET = re.compile(r"^(pad|eos|bos|unk|sep|cls|mask|num|min|max|new|additional_special)_|_per_", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether the name of a key or of an environment variable says that its value is a secret."""
    return bool(SECRET.search(name)) and not NO_SECRET.search(name)


def secrets_of(config: Any, name: str = "") -> set[str]:
    """The secret values in a config, at any depth, and those of the environment."""
    found = {value for key, value in os.environ.items() if is_secret(key) and len(value) >= 8}
    if isinstance(config, Mapping):
        parts: Iterable[tuple[str, Any]] = ((str(k), v) for k, v in config.items())
    elif isinstance(config, list):
        parts = ((name, v) for v in config)
    else:
        return found | ({config} if isinstance(config, str) and config not in ("", MASK) and is_secret(name) else set())
    return found.union(*(secrets_of(value, key) for key, value in parts))


def masked(value: Any, secrets: Iterable[str]) -> Any:
    """The value with every secret in its texts, keys and all, replaced by ***."""
    secrets = sorted(secrets, key=len, reverse=True)
    if isinstance(value, Mapping):
        return {k: masked(v, secrets) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(v, secrets) for v in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
    return value


def without_masks(value: Any) -> Any:
    """null for what a config that was read back has masked: *** opens nothing."""
    if isinstance(value, Mapping):
        return {k: without_masks(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_masks(v) for v in value]
    return None if value == MASK else value
