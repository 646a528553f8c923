"""Keys of the config that older versions called otherwise, or did not have."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from rmlab.messages import UserError

RENAMED = {"data.head": "data.limit", "model.train_layers": "model.train_last_layers"}

# Keys that older versions did not have, with the values that stand for what those did: they are no part of what is
# computed, so that their runs are the same runs.
NEUTRAL: dict[str, list[Any]] = {
    "model.head": [{}, {"linear": {}}],
    "model.init_from": [None],
    "data.*.synthetic.stated": [None],
    "data.*.synthetic.long_tail": [0.0],
    "data.*.synthetic.biases": [{}],
    "data.*.synthetic.annotators": [{}],
    "data.*.synthetic.ratings": [{}],
    "data.*.synthetic.apart": [False],
    "data.*.synthetic.skip": [0],
}


def without_neutral(node: Any, path: str) -> Any:
    """A node of the config, which is at the dotted `path`, without what is NEUTRAL in it."""
    if not isinstance(node, dict):
        return node
    return {k: without_neutral(v, f"{path}.{k}") for k, v in node.items() if not is_neutral(f"{path}.{k}", v)}


def is_neutral(path: str, value: Any) -> bool:
    """Whether it stands for what was done before there was such a key."""
    return any(fnmatchcase(path, key) and value in values for key, values in NEUTRAL.items())


def refuse_renamed(arguments: Iterable[str]) -> None:
    """UserError with the new name for an old one in an override, as `data.head=3` or `data={head: 3}`."""
    for argument in arguments:
        whole, _, value = argument.lstrip("+~").partition("=")
        for old, new in RENAMED.items():
            node, _, key = old.partition(".")
            if whole == old or (whole == node and re.search(rf"[{{,]\s*{key}\s*:", value)):
                raise UserError(f"{old} is now {new}")


def renamed(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The config of an older version without its old keys. UserError naming the new one where a value would be lost."""
    config = {key: dict(node) if isinstance(node, Mapping) else node for key, node in mapping.items()}
    for old, new in RENAMED.items():
        node, _, key = old.partition(".")
        if isinstance(config.get(node), dict) and config[node].pop(key, None) is not None:
            raise UserError(f"{old} is now {new}")
    return config
