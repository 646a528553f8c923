"""The types of conf/train.yaml, the hash that names a run, and every check that needs no model. No torch here."""

import ast
import difflib
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from rmlab.messages import UserError, did_you_mean

HERE = Path(__file__).parent
# In a wheel conf/ lies inside the package, in a checkout (and an editable install) beside it.
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"

# Config nodes that say where a run is kept and how it is watched and reported, not what it computes. `plugins` only
# make names known; a changed plugin file is noticed by its hash.
PLACES = ("study", "question", "report", "plugins", "run", "logger", "hydra")

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
    "train_layers": "model.train_layers",
    "feature_cache_gb": "run.feature_cache_gb",
}


@dataclass
class Run:
    name: str = MISSING
    id: str = MISSING
    dir: str = MISSING
    redo: bool = MISSING
    cache_dir: str | None = MISSING
    feature_cache_gb: float = MISSING
    num_proc: int | None = MISSING
    threads: int | None = MISSING


@dataclass
class Report:
    baseline: str | None = MISSING
    tune: list[str] = MISSING


@dataclass
class Model:
    path: str | None = MISSING
    config: dict[str, Any] = MISSING
    tokenizer: str | None = MISSING
    dtype: str = MISSING
    attn_implementation: str | None = MISSING
    head_init: Any = MISSING
    train_layers: int | None = MISSING
    pad_token: str | None = MISSING
    eos_token: str | None = MISSING
    chat_template: str | None = MISSING
    revision: str | None = MISSING
    trust_remote_code: bool = MISSING
    quantization: dict[str, Any] = MISSING
    init_kwargs: dict[str, Any] = MISSING


@dataclass
class Data:
    train: dict[str, Any] = MISSING
    eval: dict[str, Any] = MISSING
    eval_fraction: float = MISSING
    head: int | None = MISSING
    max_rows: int | None = MISSING
    split_seed: int = MISSING
    max_length: int | None = MISSING
    overlong: str = MISSING
    identical: str = MISSING
    prompt_overlap: str = MISSING
    pair_weighting: str = MISSING
    group_by_prompt: bool = MISSING
    chat_template_kwargs: dict[str, Any] = MISSING
    # What conf/data/files.yaml fills its one source from; unset elsewhere.
    path: str | None = None
    name: str | None = None
    split: str | None = None
    revision: str | None = None
    columns: dict[str, Any] | None = None
    prompt_separator: str | None = None
    streaming: bool | None = None


@dataclass
class Scoring:
    layout: str = MISSING


@dataclass
class Config:
    study: str = MISSING
    question: str | None = MISSING
    seed: int = MISSING
    plugins: list[str] = MISSING
    run: Run = MISSING
    model: Model = MISSING
    data: Data = MISSING
    loss: dict[str, Any] = MISSING
    peft: dict[str, Any] = MISSING
    scoring: Scoring = MISSING
    logger: dict[str, Any] = MISSING
    trainer: dict[str, Any] = MISSING
    report: Report = MISSING


def register() -> None:
    """Tell Hydra the schema and OmegaConf the one resolver, `${rmlab_id:}`. Idempotent."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("rmlab_id", lambda *, _root_: run_id(_root_), replace=True)


def run_id(config: DictConfig) -> str:
    """8 hex digits of sha256 over the resolved config without the `PLACES` (study, run, logger, ...).

    0 and 0.0 are the same value; the order of mixed sources is not, for it orders the rows.
    """
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    run = {**content.get("run", {}), "id": "", "dir": ""}  # the id cannot hash itself
    whole = OmegaConf.create({**{k: v for k, v in content.items() if k != "hydra"}, "run": run})
    resolved = OmegaConf.to_container(whole, resolve=True)
    assert isinstance(resolved, dict)
    return content_id({str(k): v for k, v in resolved.items()})


def content_id(config: Mapping[str, Any]) -> str:
    """The id of a resolved config."""
    kept = {**computed(config), "sources": list(config.get("data", {}).get("train", []))}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def computed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that says what is computed: without `PLACES`."""
    return {k: canonical(v) for k, v in config.items() if k not in PLACES}


def canonical(value: Any) -> Any:
    """Whole floats as ints, at any depth."""
    if isinstance(value, dict):
        return {k: canonical(v) for k, v in value.items()}
    if isinstance(value, list):
        return [canonical(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def flatten(node: Any, name: str = "") -> dict[str, Any]:
    """One level: {"trainer.learning_rate": 0.001}. Lists and empty nodes are values."""
    if not isinstance(node, dict) or not node:
        return {name: node}
    prefix = f"{name}." if name else ""
    return {key: value for k, child in node.items() for key, value in flatten(child, f"{prefix}{k}").items()}


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Plain resolved Python values; below this line nobody sees OmegaConf. A `???` left over is a UserError."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"the config needs {missing[0]}; give it on the command line: {missing[0]}=...")
    content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(content, dict)
    return {str(k): v for k, v in content.items()}


def validate(config: Mapping[str, Any]) -> None:
    """Check what can be checked without torch, rows or a model. Raises UserError naming the key."""
    check_trainer(config["trainer"])
    data = config["data"]
    choices = {
        "overlong": ("drop", "truncate", "error"),
        "identical": ("error", "drop"),
        "prompt_overlap": ("error", "drop", "allow"),
        "pair_weighting": ("pair", "prompt"),
    }
    for key, allowed in choices.items():
        if data[key] not in allowed:
            raise UserError(f"data.{key} is {data[key]!r}{did_you_mean(data[key], allowed)}")
    layouts = ("auto", "shared_prefix", "packed", "padded")
    if config["scoring"]["layout"] not in layouts:
        given = config["scoring"]["layout"]
        raise UserError(f"scoring.layout is {given!r}{did_you_mean(given, layouts)}")
    for node, key, least in (
        ("model", "train_layers", 0),
        ("run", "feature_cache_gb", 0),
        ("run", "threads", 1),
        ("trainer", "tokens_per_batch", 1),
    ):
        value = config[node].get(key)
        if value is not None and value < least:
            raise UserError(f"{node}.{key} is {value}; it must be at least {least}")
    if not 0 <= data["eval_fraction"] < 1:
        raise UserError(f"data.eval_fraction is {data['eval_fraction']}; it must be at least 0 and below 1")
    streaming = any(spec.get("streaming") for spec in data["train"].values())
    if streaming and "max_steps" not in config["trainer"]:
        raise UserError("streaming data has no length; set trainer.max_steps")
    if streaming and not data["eval"] and data["eval_fraction"]:
        raise UserError("a stream cannot be split; give data.eval, or data.eval_fraction=0 to evaluate on nothing")
    if streaming and data["group_by_prompt"]:
        raise UserError("data.group_by_prompt needs all rows at once; leave it out for streams")
    if config["trainer"].get("eval_strategy", "no") not in ("no", False) and not (
        data["eval"] or data["eval_fraction"]
    ):
        raise UserError("trainer.eval_strategy is set, but data.eval is empty and data.eval_fraction 0")
    check_logger(config["logger"])
    check_model_files(config["model"], data["max_length"])


def check_logger(logger: Mapping[str, Any]) -> None:
    known = {
        "report_to",
        *(("mode", "project", "entity", "job_type", "tags") if logger["report_to"] == "wandb" else ()),
    }
    for key in logger:
        if key not in known:
            raise UserError(f"logger has no option {key!r}{did_you_mean(key, known)}")


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Every key a field of RewardConfig, every plain value of its type."""
    fields = trainer_fields()
    for key, value in trainer.items():
        if key in SET_ELSEWHERE:
            raise UserError(f"trainer.{key} is set by {SET_ELSEWHERE[key]}; set that instead")
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else " (transformers.TrainingArguments lists them)"
            raise UserError(f"trainer has no option {key!r}{hint}")
        kinds = fields[key]
        if kinds and not matches(value, kinds):
            raise UserError(f"trainer.{key} must be {' or '.join(sorted(kinds))}, not {value!r}")


def trainer_fields() -> dict[str, set[str]]:
    """Field name -> names of its plain types (empty: anything), of TrainingArguments and RewardConfig.

    The sources are read, not imported: importing them takes four seconds, and an error should not.
    """
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    files = [Path(spec.submodule_search_locations[0]) / "training_args.py", HERE / "reward_config.py"]
    classes = [
        node
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name in ("TrainingArguments", "RewardConfig")
    ]
    return {
        statement.target.id: plain_types(ast.unparse(statement.annotation))
        for node in classes
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


def plain_types(annotation: str) -> set[str]:
    parts = {part.strip() for part in annotation.strip("'\"").split("|")}
    return parts if parts <= {"None", "bool", "int", "float", "str"} else set()


def matches(value: Any, kinds: set[str]) -> bool:
    names = {type(value).__name__ if value is not None else "None"}
    if names == {"int"}:
        names.add("float")
    return bool(names & kinds)


def check_model_files(model: Mapping[str, Any], max_length: int | None) -> None:
    """What config.json and tokenizer_config.json of a checkpoint already tell: labels, positions, pad token."""
    given = {**model["config"], **model["init_kwargs"]}
    if given.get("num_labels", 1) != 1:
        raise UserError(f"model: num_labels={given['num_labels']}, but a reward model has one output; leave it out")
    if model["path"] is None:
        if "model_type" not in model["config"]:
            raise UserError("model needs model.path (a checkpoint) or model.config.model_type (random weights)")
        check_positions(model["config"], "model.config", max_length)
        return
    config = checkpoint_json(model, "config.json")
    classifier = any("ForSequenceClassification" in name for name in config.get("architectures") or [])
    labels = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2 if classifier else 1)
    if classifier and labels != 1:
        raise UserError(
            f"model.path: {model['path']} is a classifier with num_labels={labels}; a reward model has one output. Use "
            "a base model or a checkpoint with num_labels=1"
        )
    check_positions(config, model["path"], max_length)
    tokenizer = checkpoint_json(model, "tokenizer_config.json") if model["tokenizer"] is None else {}
    special = checkpoint_json(model, "special_tokens_map.json") if tokenizer and "pad_token" not in tokenizer else {}
    if tokenizer and model["pad_token"] is None and not (tokenizer.get("pad_token") or special.get("pad_token")):
        raise UserError(
            f"model.path: the tokenizer of {model['path']} has no pad token; set model.pad_token to one of its tokens "
            "that text never holds, or to a new one: model.pad_token='<|pad|>'"
        )


def check_config_keys(given: Mapping[str, Any]) -> None:
    """UserError for a key that the architecture does not know: transformers would keep it and ignore it.

    Not part of `validate`: only transformers knows, and importing it takes longer than the other checks.
    """
    from transformers import CONFIG_MAPPING

    if not given:
        return
    kind = given["model_type"]
    if kind not in CONFIG_MAPPING:
        raise UserError(f"model.config.model_type: no {kind!r}{did_you_mean(kind, CONFIG_MAPPING.keys())}")
    known = {"model_type", *CONFIG_MAPPING[kind]().to_dict(), *CONFIG_MAPPING[kind].attribute_map}
    for key in given:
        if key not in known:
            raise UserError(f"model.config: {kind} has no {key!r}{did_you_mean(key, known)}")


def check_positions(config: Mapping[str, Any], name: str, max_length: int | None) -> None:
    """Learned absolute positions end; rotary ones do not."""
    if any("rope" in key or "rotary" in key for key in config):
        return
    positions = next((config[k] for k in ("max_position_embeddings", "n_positions") if k in config), None)
    if config.get("model_type") in ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3", "phi3"):
        return  # rotary by default, also where the config does not say so
    if positions is not None and "roberta" in str(config.get("model_type")):
        positions -= config.get("pad_token_id", 1) + 1  # RoBERTa counts positions from pad_token_id + 1
    if positions is not None and (max_length is None or max_length > positions):
        raise UserError(f"data.max_length={max_length} is beyond the {positions} positions of {name}; lower it")


def checkpoint_json(model: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A JSON file of a local checkpoint, or of one on the hub (downloaded once); {} if it has none."""
    path = Path(model["path"]).expanduser()
    if path.is_dir():
        file = path / name
    elif model["path"].startswith((".", "/", "~")) or model["path"].count("/") > 1:
        raise UserError(f"model.path: no folder {model['path']!r}")
    else:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )

        try:
            file = Path(hf_hub_download(model["path"], name, revision=model["revision"]))
        except (LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError, HfHubHTTPError, OSError) as e:
            if isinstance(e, EntryNotFoundError) and not isinstance(e, LocalEntryNotFoundError):
                return {}
            reason = str(e).strip().splitlines()[0]
            raise UserError(f"model.path: {model['path']!r} is no local folder, and the hub says: {reason}") from e
    if not file.exists():
        if name == "config.json":
            raise UserError(f"model.path: {path} holds no config.json; is it a saved model?")
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
