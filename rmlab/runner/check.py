"""The `trainer` node: every key a field of RewardConfig, every plain value of its type. No torch here."""

import ast
import difflib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmlab.messages import UserError, check_at_least

# Fields of RewardConfig that the runner sets from elsewhere in the config.
SET_ELSEWHERE = {
    "output_dir": "run.dir",
    "seed": "seed",
    "report_to": "logger",
    "run_name": "run.name",
    "max_length": "data.max_length",
    "overlong": "data.overlong",
    "identical": "data.identical",
    "prompt_overlap": "data.prompt_overlap",
    "pair_weighting": "data.pair_weighting",
    "dataset_num_proc": "run.num_proc",
    "cache_dir": "run.cache_dir",
    "model_init_kwargs": "model.init_kwargs",
    "trust_remote_code": "model.trust_remote_code",
    "chat_template_path": "model.chat_template",
    "eos_token": "model.eos_token",
    "pad_token": "model.pad_token",
    "center_rewards_coefficient": "loss.center.weight",
    "layout": "scoring.layout",
    "group_by_prompt": "data.group_by_prompt",
    "train_last_layers": "model.train_last_layers",
    "feature_cache_gb": "run.feature_cache_gb",
}


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """UserError naming the key and the nearest known one."""
    known = trainer_fields()
    for key, value in trainer.items():
        if key in SET_ELSEWHERE:
            raise UserError(f"trainer.{key} is set by {SET_ELSEWHERE[key]}; set that instead")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else " (transformers.TrainingArguments lists them)"
            raise UserError(f"trainer has no option {key!r}{hint}")
        kinds = known[key]
        if kinds and not matches(value, kinds):
            raise UserError(f"trainer.{key} must be {' or '.join(sorted(kinds))}, not {value!r}")
    check_at_least("trainer.tokens_per_batch", trainer.get("tokens_per_batch"), 1)


def trainer_fields() -> dict[str, set[str]]:
    """Field name -> names of its plain types (empty: anything), of TrainingArguments and RewardConfig.

    The sources are read, not imported: importing them takes four seconds, and an error should not.
    """
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    ours = Path(__file__).parent.parent / "training" / "config.py"
    files = [Path(spec.submodule_search_locations[0]) / "training_args.py", ours]
    classes = [
        node
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name in ("TrainingArguments", "RewardConfig")
    ]
    annotated = [
        (statement.target.id, ast.unparse(statement.annotation))
        for node in classes
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    ]
    return {name: plain_types(kind) for name, kind in annotated}


def plain_types(annotation: str) -> set[str]:
    """Names of the types in an annotation; none if some type is not plain, and then any value passes."""
    parts = {part.strip() for part in annotation.strip("'\"").split("|")}
    return parts if parts <= {"None", "bool", "int", "float", "str"} else set()


def matches(value: Any, kinds: set[str]) -> bool:
    """Whether the value is of one of these types; an int also passes for a float, but a bool for neither."""
    names = {type(value).__name__ if value is not None else "None"}
    if names == {"int"}:
        names.add("float")
    return bool(names & kinds)
