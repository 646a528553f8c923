"""What the model room is told, checked, with its defaults. No torch: a mistake is named before it loads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rmlab.messages import UserError, check_all, check_at_least, check_one_of, did_you_mean, first_line
from rmlab.model.positions import check_positions
from rmlab.model.templates import check_template_name, refuse_new_eos

ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
HEAD_INITS = ("1/sqrt(d+1)", "1/(d+1)", "zero", "default")
DTYPES = ("float32", "bfloat16", "float16", "auto")


@dataclass
class ModelConfig:
    """The `model` node of a config: a checkpoint or random weights, and how it is made a reward model."""

    path: str | None = None
    init_from: str | None = None  # a run directory, see runner/begin.py; its adapter is merged
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    dtype: str = "float32"
    attn_implementation: str | None = "sdpa"
    head: dict[str, Any] | None = field(default_factory=dict)  # {}: linear; None: the checkpoint's own
    head_init: Any = "1/sqrt(d+1)"
    train_last_layers: int | None = None
    pad_token: str | None = None
    eos_token: str | None = None
    chat_template: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    quantization: dict[str, Any] = field(default_factory=dict)
    init_kwargs: dict[str, Any] = field(default_factory=dict)

    def check(self, max_length: int | str | None) -> None:
        """UserError naming the key of each mistake, from the config and from what files of the checkpoint tell.

        Those are its labels, its positions (for rows of `max_length` tokens) and its special tokens.
        """
        check_all(
            lambda: check_at_least("model.train_last_layers", self.train_last_layers, 0),
            lambda: check_one_of("model.dtype", self.dtype, DTYPES),
            self.check_attention,
            self.check_head,
            self.check_head_init,
            self.check_labels,
            lambda: check_template_name(self.chat_template),
            lambda: self.check_weights(max_length),
        )

    def check_attention(self) -> None:
        """UserError for an unknown word, unless it is a kernel of the hub."""
        if self.attn_implementation is not None and "/" not in self.attn_implementation:
            check_one_of("model.attn_implementation", self.attn_implementation, ATTENTIONS)

    def check_labels(self) -> None:
        """UserError for more outputs than one."""
        given = {**self.config, **self.init_kwargs}
        if given.get("num_labels", 1) != 1:
            raise UserError(f"model: num_labels={given['num_labels']}, but a reward model has one output; leave it out")

    def check_weights(self, max_length: int | str | None) -> None:
        """UserError where neither a checkpoint nor an architecture is named, and for what either cannot do."""
        if self.path is not None:
            self.check_checkpoint(max_length)
        elif "model_type" not in self.config:
            raise UserError("model needs model.path (a checkpoint) or model.config.model_type (random weights)")
        else:
            check_positions(self.config, "model.config", max_length)

    def check_head(self) -> None:
        """UserError for anything but one head with its options. Its name and they are checked when it is built."""
        if not self.head:
            return
        if len(self.head) != 1:
            raise UserError(f"model.head names one head, not {', '.join(self.head)}; choose it with model/head=NAME")
        ((kind, options),) = self.head.items()
        if not isinstance(options, Mapping):
            raise UserError(
                f"model.head.{kind} must be a mapping of options, not {options!r}; for no options write {{}}"
            )

    def check_head_init(self) -> None:
        """UserError for a first weight of the head that is neither a known word nor a deviation."""
        if isinstance(self.head_init, str):
            check_one_of("model.head_init", self.head_init, HEAD_INITS)
        elif isinstance(self.head_init, bool) or not isinstance(self.head_init, int | float):
            raise UserError(f"model.head_init is {self.head_init!r}; use a number or one of {', '.join(HEAD_INITS)}")
        else:
            check_at_least("model.head_init", self.head_init, 0)

    def check_checkpoint(self, max_length: int | str | None) -> None:
        """UserError for a checkpoint with several labels, too few positions for `max_length`, or no pad token.

        And for an EOS token that its tokenizer does not know.
        """
        base_of_changes(self)
        base = self.of_base()
        config = base.checkpoint_file("config.json")
        check_all(
            lambda: base.check_classifier(config),
            lambda: check_positions(config, str(base.path), max_length),
            base.check_pad_token,
            base.check_eos_token,
        )

    def of_base(self) -> "ModelConfig":
        """Where the path is an adapter's, its base model with the adapter's tokenizer; else itself."""
        base = base_of_adapter(self)
        return self if base is None else replace(self, path=base, tokenizer=self.tokenizer or self.path)

    def check_classifier(self, config: Mapping[str, Any]) -> None:
        """UserError for a classifier (its config.json) of several labels."""
        classifier = any("ForSequenceClassification" in name for name in config.get("architectures") or [])
        labels = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 1 + classifier)
        if classifier and labels != 1:
            raise UserError(
                f"model.path: {self.path} is a classifier with num_labels={labels}; a reward model has one output. Use "
                "a base model or a checkpoint with num_labels=1"
            )

    def check_pad_token(self) -> None:
        """UserError for a tokenizer of the checkpoint that has none, where none is given."""
        if self.tokenizer is not None or self.pad_token is not None:
            return
        tokenizer = self.checkpoint_file("tokenizer_config.json")
        special = {} if "pad_token" in tokenizer else self.checkpoint_file("special_tokens_map.json")
        if tokenizer and not (tokenizer.get("pad_token") or special.get("pad_token")):
            raise UserError(
                f"model.path: the tokenizer of {self.path} has no pad token; set model.pad_token to one of its tokens "
                "that text never holds, or to a new one: model.pad_token='<|pad|>'"
            )

    def check_eos_token(self) -> None:
        """UserError for one that is not in the vocabulary, where a tokenizer.json lists it."""
        if self.eos_token is None or self.tokenizer is not None:
            return
        told, about = self.checkpoint_file("tokenizer.json"), self.checkpoint_file("tokenizer_config.json")
        vocabulary = told.get("model", {}).get("vocab")
        if isinstance(vocabulary, dict):
            named = [*told.get("added_tokens", []), *about.get("added_tokens_decoder", {}).values(), *about.values()]
            added = [token.get("content") if isinstance(token, dict) else token for token in named]
            refuse_new_eos(self.eos_token, {*vocabulary, *(token for token in added if isinstance(token, str))})

    def has_chat_template(self) -> bool:
        """Whether the tokenizer will have one; True also where its files cannot tell."""
        name = self.tokenizer or self.path
        if self.chat_template is not None or name in (None, "embedded"):
            return True
        own = replace(self, path=name)
        files = ("chat_template.jinja", "chat_template.json", "additional_chat_templates", "tekken.json")
        try:
            told = own.checkpoint_file("tokenizer_config.json").get("chat_template") is not None
            elsewhere = base_of_adapter(own) is not None  # an adapter's may be its base's
            return told or elsewhere or any(own.place_of(file) is not None for file in files)
        except UserError:  # the hub cannot be asked; rendering the first row will tell
            return True

    def place_of(self, name: str) -> Path | None:
        """Where a file of a local checkpoint is, or of one on the hub (downloaded once); None if it has none."""
        path = str(self.path)
        folder = Path(path).expanduser()
        if folder.is_dir():
            return folder / name if (folder / name).exists() else None
        if path.startswith((".", "/", "~")) or path.count("/") > 1:
            raise UserError(f"model.path: no folder {path!r}")
        return hub_file(path, name, self.revision)

    def checkpoint_file(self, name: str) -> dict[str, Any]:
        """A JSON file of a checkpoint; {} if it has none."""
        file = self.place_of(name)
        if file is None:
            if name == "config.json" and Path(str(self.path)).expanduser().is_dir():
                raise UserError(f"model.path: {self.path} holds no config.json; is it a saved model?")
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


def check_architecture(given: Mapping[str, Any]) -> dict[str, Any]:
    """`model.config` with the architecture's own values for all else; {} if it is empty.

    UserError for a key that the architecture does not know: transformers would ignore it.

    Not part of `ModelConfig.check`: only transformers knows, and importing it takes longer than the other checks.
    """
    from transformers import CONFIG_MAPPING

    if not given:
        return {}
    kind = given["model_type"]
    if not isinstance(kind, str):
        raise UserError(f"model.config.model_type is {kind!r}; it is the name of an architecture, such as qwen3")
    if kind not in CONFIG_MAPPING:
        raise UserError(f"model.config.model_type: no {kind!r}{did_you_mean(kind, CONFIG_MAPPING.keys())}")
    own = CONFIG_MAPPING[kind]().to_dict()
    known = {"model_type", *own, *CONFIG_MAPPING[kind].attribute_map}
    for key in given:
        if key not in known:
            raise UserError(f"model.config: {kind} has no {key!r}{did_you_mean(key, known)}")
    return {**own, **given}
