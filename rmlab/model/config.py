"""What the model room is told, checked, with its defaults. No torch: a mistake is named before it loads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rmlab.messages import UserError, check_at_least, check_one_of, did_you_mean, first_line

ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
HEADS = ("1/sqrt(d+1)", "1/(d+1)", "zero", "default")
DTYPES = ("float32", "bfloat16", "float16", "auto")
# Positions are rotary by default, also where the config does not say so.
ROTARY = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3", "phi3")


@dataclass
class ModelConfig:
    """The `model` node of a config: a checkpoint or random weights, and how it is made a reward model."""

    path: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    dtype: str = "float32"
    attn_implementation: str | None = "sdpa"
    head_init: Any = "1/sqrt(d+1)"
    train_last_layers: int | None = None
    pad_token: str | None = None
    eos_token: str | None = None
    chat_template: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    quantization: dict[str, Any] = field(default_factory=dict)
    init_kwargs: dict[str, Any] = field(default_factory=dict)

    def check(self, max_length: int | None) -> None:
        """UserError naming the key, from the config and from what files of the checkpoint already tell.

        Those are its labels, its positions (for rows of `max_length` tokens) and its pad token.
        """
        check_at_least("model.train_last_layers", self.train_last_layers, 0)
        check_one_of("model.dtype", self.dtype, DTYPES)
        if self.attn_implementation is not None and "/" not in self.attn_implementation:  # a kernel of the hub
            check_one_of("model.attn_implementation", self.attn_implementation, ATTENTIONS)
        self.check_head()
        given = {**self.config, **self.init_kwargs}
        if given.get("num_labels", 1) != 1:
            raise UserError(f"model: num_labels={given['num_labels']}, but a reward model has one output; leave it out")
        if self.path is not None:
            self.check_checkpoint(max_length)
        elif "model_type" not in self.config:
            raise UserError("model needs model.path (a checkpoint) or model.config.model_type (random weights)")
        else:
            check_positions(self.config, "model.config", max_length)

    def check_head(self) -> None:
        """UserError for a first weight of the head that is neither a known word nor a deviation."""
        if isinstance(self.head_init, str):
            check_one_of("model.head_init", self.head_init, HEADS)
        elif isinstance(self.head_init, bool) or not isinstance(self.head_init, int | float):
            raise UserError(f"model.head_init is {self.head_init!r}; use a number or one of {', '.join(HEADS)}")
        else:
            check_at_least("model.head_init", self.head_init, 0)

    def check_checkpoint(self, max_length: int | None) -> None:
        """UserError for a checkpoint with several labels, too few positions for `max_length`, or no pad token."""
        base_of_changes(self)
        if (base := base_of_adapter(self)) is not None:
            replace(self, path=base, tokenizer=self.tokenizer or self.path).check_checkpoint(max_length)
            return
        config = self.checkpoint_file("config.json")
        classifier = any("ForSequenceClassification" in name for name in config.get("architectures") or [])
        labels = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 1 + classifier)
        if classifier and labels != 1:
            raise UserError(
                f"model.path: {self.path} is a classifier with num_labels={labels}; a reward model has one output. Use "
                "a base model or a checkpoint with num_labels=1"
            )
        check_positions(config, str(self.path), max_length)
        if self.tokenizer is not None or self.pad_token is not None:
            return
        tokenizer = self.checkpoint_file("tokenizer_config.json")
        special = {} if "pad_token" in tokenizer else self.checkpoint_file("special_tokens_map.json")
        if tokenizer and not (tokenizer.get("pad_token") or special.get("pad_token")):
            raise UserError(
                f"model.path: the tokenizer of {self.path} has no pad token; set model.pad_token to one of its tokens "
                "that text never holds, or to a new one: model.pad_token='<|pad|>'"
            )

    def checkpoint_file(self, name: str) -> dict[str, Any]:
        """A JSON file of a local checkpoint, or of one on the hub (downloaded once); {} if it has none."""
        path = str(self.path)
        folder = Path(path).expanduser()
        if folder.is_dir():
            file = folder / name
        elif path.startswith((".", "/", "~")) or path.count("/") > 1:
            raise UserError(f"model.path: no folder {path!r}")
        elif (found := hub_file(path, name, self.revision)) is not None:
            file = found
        else:
            return {}
        if not file.exists():
            if name == "config.json":
                raise UserError(f"model.path: {folder} holds no config.json; is it a saved model?")
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"model.path: cannot read {file}: {first_line(error)}") from error
        if not isinstance(content, dict):
            raise UserError(f"model.path: {file} holds no keys and values")
        return content


def base_of_adapter(config: ModelConfig) -> str | None:
    """The base model of a local folder (or hub name) that holds an adapter; None for a model of its own."""
    try:
        about = config.checkpoint_file("adapter_config.json") if config.path is not None else {}
    except UserError:  # there is no such folder, or the hub cannot be asked: loading the model will say so
        return None
    if not about:
        return None
    base = about.get("base_model_name_or_path")
    if not base:
        raise UserError(f"model.path: the adapter {config.path} does not say what its base model is")
    return str(base)


BASE = "base.json"  # beside the changes of a base model, see changes.py


@dataclass(frozen=True)
class Base:
    """What base.json holds: where the base model is, how it was loaded, a hash of its weights that were not trained."""

    path: str
    revision: str | None
    dtype: str
    weights: str


def base_of_changes(config: ModelConfig) -> Base | None:
    """Of a local folder (or hub name) that holds changes alone; None for a whole model. UserError if it is not here."""
    try:
        about = config.checkpoint_file(BASE) if config.path is not None else {}
    except UserError:  # as for adapters
        return None
    if not about:
        return None
    try:
        base = Base(**about)
    except TypeError as error:
        raise UserError(f"model.path: {config.path}/{BASE} is not what was written: {first_line(error)}") from error
    if Path(base.path).is_absolute() and not Path(base.path).is_dir():
        raise UserError(
            f"model.path: {config.path} holds what was trained on the base model {base.path}, which is not there; put "
            f"it there, or write its place into {BASE}"
        )
    return base


def hub_file(repository: str, name: str, revision: str | None) -> Path | None:
    """A file of a hub repository; None if it has no such file. UserError where the hub cannot be asked."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except (HfHubHTTPError, HFValidationError, OSError) as error:  # what is offline or no repository is one of them
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise UserError(
            f"model.path: {repository!r} is no local folder, and the hub says: {first_line(error)}"
        ) from error


def check_positions(config: Mapping[str, Any], name: str, max_length: int | None) -> None:
    """Learned absolute positions end; rotary ones do not, but some change for the whole batch beyond a length."""
    refuse_changing_positions(config, name, max_length)
    if any("rope" in key or "rotary" in key for key in config) or config.get("model_type") in ROTARY:
        return
    positions = next((config[k] for k in ("max_position_embeddings", "n_positions") if k in config), None)
    if positions is not None and "roberta" in str(config.get("model_type")):
        positions -= config.get("pad_token_id", 1) + 1  # RoBERTa counts positions from pad_token_id + 1
    if positions is not None and (max_length is None or max_length > positions):
        raise UserError(f"data.max_length={max_length} is beyond the {positions} positions of {name}; lower it")


CHANGING = ("longrope", "dynamic")  # kinds of rotary embeddings whose frequencies depend on the longest row of a batch


def refuse_changing_positions(config: Mapping[str, Any], name: str, max_length: int | None) -> None:
    """UserError where a long row would change the rewards of the other rows of its batch."""
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    parts = [rope, *rope.values()] if isinstance(rope, Mapping) else []
    for part in (part for part in parts if isinstance(part, Mapping)):
        kind = part.get("rope_type", part.get("type"))
        original = part.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
        limit = original or config.get("max_position_embeddings")
        if kind in CHANGING and limit is not None and (max_length is None or max_length > limit):
            raise UserError(
                f"data.max_length={max_length} is beyond the {limit} tokens from which on the {kind} positions of "
                f"{name} change with the longest row of a batch, and rewards with their neighbours; lower it"
            )


def check_architecture(given: Mapping[str, Any]) -> None:
    """UserError for a key of `model.config` that the architecture does not know: transformers would ignore it.

    Not part of `ModelConfig.check`: only transformers knows, and importing it takes longer than the other checks.
    """
    from transformers import CONFIG_MAPPING

    if not given:
        return
    kind = given["model_type"]
    if not isinstance(kind, str):
        raise UserError(f"model.config.model_type is {kind!r}; it is the name of an architecture, such as qwen3")
    if kind not in CONFIG_MAPPING:
        raise UserError(f"model.config.model_type: no {kind!r}{did_you_mean(kind, CONFIG_MAPPING.keys())}")
    known = {"model_type", *CONFIG_MAPPING[kind]().to_dict(), *CONFIG_MAPPING[kind].attribute_map}
    for key in given:
        if key not in known:
            raise UserError(f"model.config: {kind} has no {key!r}{did_you_mean(key, known)}")
