"""A model made ready to train: head, pad token, dropout, frozen layers, adapter; and its export for others to load."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from rmlab import model as models
from rmlab.messages import UserError, did_you_mean, say
from rmlab.model import first_line
from rmlab.reward_config import RewardConfig
from rmlab.scoring import base_of, frozen, head_modules, prepare_for_scoring
from rmlab.scoring.flat import layers_of


def prepare_model(model: Any, args: RewardConfig, tokenizer: Any, peft_config: Any) -> Any:
    """One label, no dropout, a pad token of its own, fp32 head, adapter with the head in it."""
    from peft import PeftModel

    base = base_of(model)
    if base.config.num_labels != 1:
        raise UserError(
            f"the model has num_labels={base.config.num_labels}, but reward models require `num_labels=1`; load it "
            "with AutoModelForSequenceClassification.from_pretrained(..., num_labels=1)"
        )
    models.name_the_output(base)
    if args.disable_dropout:
        models.disable_dropout(model)
    models.ensure_pad_token(base, tokenizer)
    prepare_for_scoring(base)
    if args.train_layers is not None and peft_config is not None:
        adapt_last_layers(base, peft_config, args.train_layers)
    elif args.train_layers is not None:
        frozen.freeze(base, args.train_layers)
    if peft_config is not None:
        model = apply_peft(model, peft_config)
    elif isinstance(model, PeftModel):
        train_head_of(model)
    models.warn_of_lost_updates(model)
    checkpointing = args.gradient_checkpointing or getattr(args, "activation_checkpointing", False)
    if isinstance(model, PeftModel) and checkpointing:
        model.enable_input_require_grads()
    return model


def build_peft(config: Mapping[str, Any]) -> Any:
    """The `peft` config class of `{method: lora, **its options}`, or None for method none."""
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    options = {k: v for k, v in config.items() if k not in ("method", "quantization")}
    method = str(config.get("method", "none"))
    if method == "none":
        return None
    known = {kind.value.lower(): PEFT_TYPE_TO_CONFIG_MAPPING[kind] for kind in PeftType}
    if method not in known:
        raise UserError(f"peft.method: no {method!r}{did_you_mean(method, known)}")
    try:
        return known[method](task_type="SEQ_CLS", **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"peft: {first_line(error)}") from error


def apply_peft(model: Any, peft_config: Any) -> Any:
    """The model with an adapter, its score head trained and saved with it. A wrong task type is corrected.

    Raises UserError if `model` already carries an adapter.
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
    if getattr(model, "is_quantized", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(model, peft_config)


def adapt_last_layers(model: Any, peft_config: Any, count: int) -> None:
    """Keep an adapter out of all but the last `count` layers. UserError for one that cannot be told where to sit."""
    layers = layers_of(model)
    kind = str(getattr(peft_config.peft_type, "value", peft_config.peft_type)).lower()
    if not hasattr(peft_config, "exclude_modules") or isinstance(peft_config.exclude_modules, str):
        raise UserError(
            f"train_layers does not go with peft method {kind}, which cannot be kept to some layers; use lora"
        )
    if not 0 < count <= len(layers):
        raise UserError(
            f"train_layers={count} leaves an adapter nothing to sit on; give 1 to {len(layers)}, or peft=none"
        )
    adapted = {id(module) for layer in layers[-count:] for module in layer.modules()}
    others = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and id(m) not in adapted]
    peft_config.exclude_modules = sorted({*(peft_config.exclude_modules or []), *others})


def train_head_of(model: Any) -> None:
    """Make sure that a PeftModel built elsewhere trains and saves its score head. UserError if LoRA sits on it."""
    from peft.utils.other import ModulesToSaveWrapper, _set_trainable

    base = model.get_base_model()
    for name, module in head_modules(base).items():
        if isinstance(module, ModulesToSaveWrapper):
            continue
        if any("lora_" in part for part, _ in module.named_modules()):
            raise UserError(
                f"the adapter sits on the score head {name!r}, whose random base would not be saved; build it with "
                "task_type=SEQ_CLS"
            )
        config = model.peft_config[model.active_adapter]
        config.modules_to_save = sorted({*(getattr(config, "modules_to_save", None) or []), name})
        config.task_type = "SEQ_CLS"
        _set_trainable(model, model.active_adapter, [name], inference_mode=False)
        say(f"peft: the score head {name!r} was frozen; it is now trained and saved with the adapter")


def export(model: Any, tokenizer: Any, place: Path) -> None:
    """Write the final reward model for plain transformers: merged where there is an adapter that can be.

    The adapter itself goes to `place`/../adapter. An adapter that cannot be merged (prompt tuning, a quantised body)
    is only written there, and a line says so.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        adapter = place.with_name("adapter")
        model.save_pretrained(str(adapter))
        tokenizer.save_pretrained(str(adapter))
        mergeable = hasattr(model.base_model, "merge_and_unload")
        if not mergeable or getattr(model.get_base_model(), "is_quantized", False):
            say(f"the adapter cannot be merged into its base model; it is in {adapter}")
            return
        model = model.merge_and_unload()
    model.save_pretrained(str(place))
    tokenizer.save_pretrained(str(place))
