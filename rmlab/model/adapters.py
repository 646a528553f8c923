"""Adapters: made of a config, put on a model with its score head in them, merged and saved for others to load."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rmlab import upstream
from rmlab.messages import UserError, did_you_mean, first_line, say
from rmlab.model.head import base_of, head_modules
from rmlab.model.head_files import write_about
from rmlab.model.layers import layers_of

if TYPE_CHECKING:
    import peft


@dataclass(frozen=True)
class PeftConfig:
    """The `peft` node of a config: `{method: lora, quantization: {...}, **options of peft's config class}`."""

    method: str = "none"
    quantization: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> "PeftConfig":
        """From the node: all but `method` and `quantization` is an option of the method, and checked by `build`."""
        options = {str(k): v for k, v in node.items() if k not in ("method", "quantization")}
        return cls(str(node.get("method", cls.method)), dict(node.get("quantization") or {}), options)

    def build(self) -> "peft.PeftConfig | None":
        """The config of the `peft` library, or None for method none. UserError for an unknown method or option."""
        from peft import PeftType, get_peft_config

        if self.method == "none":
            return None
        known = {kind.value.lower(): kind.value for kind in PeftType}
        if self.method not in known:
            raise UserError(f"peft.method: no {self.method!r}{did_you_mean(self.method, known)}")
        try:
            return get_peft_config({"task_type": "SEQ_CLS", **self.options, "peft_type": known[self.method]})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"peft: {first_line(error)}") from error


def own_config(given: "peft.PeftConfig | Mapping[str, Any]") -> "peft.PeftConfig":
    """A copy of a config, or one of the options in a mapping: what is changed in it changes nothing of the user's.

    Raises UserError for options that make no config.
    """
    if not isinstance(given, Mapping):
        return copy.deepcopy(given)
    options = {k: v for k, v in given.items() if k != "peft_type"}
    built = PeftConfig.of({"method": str(given.get("peft_type", "lora")).lower(), **options}).build()
    if built is None:
        raise UserError("peft_config: peft_type none makes no adapter; leave peft_config out")
    return built


def apply_peft(
    model: "PreTrainedModel | peft.PeftModel",
    peft_config: "peft.PeftConfig",
    new_tokens: Sequence[int] = (),
) -> "peft.PeftModel":
    """The model with an adapter, its score head trained and saved with it. A wrong task type is corrected.

    new_tokens: ids whose embeddings nobody has trained yet; they are trained and saved with the adapter too. Raises
    UserError if `model` already carries an adapter.
    """
    from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training

    if isinstance(model, PeftModel):
        raise UserError("model already is a PeftModel; pass it without peft_config, or merge it first")
    if str(peft_config.task_type) not in ("SEQ_CLS", "TaskType.SEQ_CLS"):
        say(f"peft: task_type {peft_config.task_type} becomes SEQ_CLS; a reward model is a sequence classifier")
        peft_config.task_type = "SEQ_CLS"
    if hasattr(peft_config, "modules_to_save"):
        head = [*head_modules(model), *getattr(model, "rmlab_new_modules", [])]
        peft_config.modules_to_save = sorted({*(peft_config.modules_to_save or []), *head})
    if new_tokens:
        train_tokens(peft_config, new_tokens)
    if getattr(model, "is_quantized", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return fit_for_its_base(get_peft_model(model, peft_config))


def train_tokens(peft_config: "peft.PeftConfig", tokens: Sequence[int]) -> None:
    """Have an adapter train the embeddings of these tokens. UserError for a kind that cannot."""
    config: Any = peft_config
    if not hasattr(config, "trainable_token_indices"):
        raise UserError(
            f"the chat template brings {len(tokens)} new tokens, whose embeddings this peft method does not train; use "
            "lora, or a template of tokens that the model knows"
        )
    if not isinstance(config.trainable_token_indices, dict):  # which names the embeddings too, and is left alone
        config.trainable_token_indices = sorted({*(config.trainable_token_indices or []), *tokens})


def fit_for_its_base(model: "peft.PeftModel") -> "peft.PeftModel":
    """The same model, whose adapter is saved without embeddings, and with the kind of its head.

    peft would save all of them where there is one more, for a pad token that nothing is read from, and the adapter
    would not load on its base any more.
    """
    vars(model)["save_pretrained"] = partial(save_adapter, model)
    return model


def save_adapter(model: "peft.PeftModel", place: str, **options: Any) -> None:
    """`save_pretrained`, as `fit_for_its_base` says."""
    type(model).save_pretrained(model, place, **{**options, "save_embedding_layers": False})
    write_about(Path(place), model)


def adapt_last_layers(model: PreTrainedModel, peft_config: "peft.PeftConfig", count: int) -> None:
    """Keep an adapter out of all but the last `count` layers. UserError for one that cannot be told where to sit."""
    layers = layers_of(model)
    kind = str(getattr(peft_config.peft_type, "value", peft_config.peft_type)).lower()
    if not hasattr(peft_config, "exclude_modules") or isinstance(peft_config.exclude_modules, str):
        raise UserError(
            f"train_last_layers does not go with peft method {kind}, which cannot be kept to some layers; use lora"
        )
    if not 0 < count <= len(layers):
        raise UserError(
            f"train_last_layers={count} leaves an adapter nothing to sit on; give 1 to {len(layers)}, or peft=none"
        )
    adapted = {id(module) for layer in layers[-count:] for module in layer.modules()}
    others = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and id(m) not in adapted]
    peft_config.exclude_modules = sorted({*(peft_config.exclude_modules or []), *others})


def train_head_of(model: "peft.PeftModel") -> None:
    """Make sure that a PeftModel built elsewhere trains and saves its score head. UserError if LoRA sits on it."""
    from peft.utils import ModulesToSaveWrapper

    fit_for_its_base(model)
    for name, module in head_modules(base_of(model)).items():
        if isinstance(module, ModulesToSaveWrapper):
            continue
        if any("lora_" in part for part, _ in module.named_modules()):
            raise UserError(
                f"the adapter sits on the score head {name!r}, whose random base would not be saved; build it with "
                "task_type=SEQ_CLS"
            )
        config: Any = model.peft_config[model.active_adapter]
        config.modules_to_save = sorted({*(getattr(config, "modules_to_save", None) or []), name})
        config.task_type = "SEQ_CLS"
        upstream.train_and_save(model, name)
        say(f"peft: the score head {name!r} was frozen; it is now trained and saved with the adapter")
