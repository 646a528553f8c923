"""A reward model: any AutoModelForSequenceClassification with one output."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, set_seed
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import logging as hf_logging

from rmlab.messages import UserError, first_line, say
from rmlab.model.changes import CHANGES, Origin, put_changes
from rmlab.model.config import DTYPES, Base, ModelConfig, base_of_adapter, base_of_changes, hub_file
from rmlab.model.head import base_of, head_modules, init_head, last_linear, name_the_output
from rmlab.model.head_files import LINEAR, restore, same_head, saved_head, settle
from rmlab.model.tokenizer import tokenizer_of

if TYPE_CHECKING:
    from peft import PeftModel


def load_model(config: ModelConfig, seed: int, quantization: Any = None) -> "PreTrainedModel | PeftModel":
    """The model of a `model` config node, with one label and an initialised head. UserError if it cannot be loaded.

    Of the folder of an adapter: its base model with the adapter on it, to be trained on.

    `seed`: random weights are the same for the same seed. `quantization`: a quantization_config, or its options.
    `model.config.problem_type` is "regression", so that a text-classification pipeline on the saved model returns
    the reward and not its sigmoid.
    """
    set_seed(seed)
    if (base := base_of_adapter(config)) is not None:
        load = adapted if config.init_from is None else merged
        return load(config, base, seed, quantization)
    quantization = config.quantization or quantization or None
    try:
        with errors_only():  # the new head is meant to be missing from the checkpoint
            model, new = random_model(config) if config.path is None else pretrained(config, quantization)
    except UserError:
        raise
    except Exception as error:  # of any kind: architectures check their values in many ways, or not at all
        cause = error.__cause__ if isinstance(error, StrictDataclassError) else None  # which says what is wrong
        what = config.path or f"a {config.config.get('model_type')} of model.config"
        raise UserError(f"model: cannot load {what}: {first_line(cause or error)}") from error
    name_the_output(model)
    init_head(model, new, config.head_init)
    if config.head is not None:
        trained = f"{last_linear(model)[0]}.weight" not in new
        new = [*new, *settle(model, config.head or LINEAR, config.head_init, trained)]
    vars(model)["rmlab_new_weights"] = new  # see faults.py
    vars(model)["rmlab_new_modules"] = new_modules(model, new)
    return model


def adapted(config: ModelConfig, base: str, seed: int, quantization: Any) -> "PreTrainedModel | PeftModel":
    """The model of an adapter's folder on its base. UserError where its head is another than is wanted."""
    saved = saved_head(config)
    head = dict(LINEAR) if saved is None else saved.config
    model = with_adapter(load_model(replace(config, path=base, head=head), seed, quantization), str(config.path))
    if not same_head(model, config.head):
        raise UserError(
            f"model.path: the head of the adapter {config.path} is another one; use model/head={next(iter(head))}"
        )
    return model


def merged(config: ModelConfig, base: str, seed: int, quantization: Any) -> PreTrainedModel:
    """The same with the adapter merged into the base, to begin another run from. UserError where that cannot be."""
    given: Any = adapted(replace(config, head=None, init_from=None), base, seed, quantization)
    if getattr(base_of(given), "is_quantized", False) or not hasattr(given.base_model, "merge_and_unload"):
        raise UserError(f"model.init_from: the adapter {config.path} cannot be merged into its base model")
    model = cast(PreTrainedModel, given.merge_and_unload())
    vars(model).pop("rmlab_origin", None)  # its weights are others than would be loaded
    settle(model, config.head or LINEAR, config.head_init, trained=True)
    return model


def with_adapter(model: "PreTrainedModel | PeftModel", folder: str) -> "PeftModel":
    """The model with the adapter of a folder, which is trained on; with embeddings for the tokens that it adds.

    Its `rmlab_tokenizer` is where its tokenizer is: in that folder, where there is one, and not the base model's.
    """
    from peft import PeftConfig, PeftModel

    base = base_of(model)
    with errors_only():
        try:
            tokenizer = folder if get_tokenizer_config(folder) else str(base.config.name_or_path)
            if getattr(PeftConfig.from_pretrained(folder), "trainable_token_indices", None):
                rows = cast(nn.Embedding, base.get_input_embeddings()).weight.shape[0]
                base.resize_token_embeddings(max(rows, len(tokenizer_of(tokenizer))), mean_resizing=False)
            adapted = PeftModel.from_pretrained(cast(PreTrainedModel, model), folder, is_trainable=True)
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            raise UserError(f"model.path: the adapter {folder} does not fit its base: {first_line(error)}") from error
    vars(adapted)["rmlab_tokenizer"] = tokenizer
    return adapted


def random_model(config: ModelConfig) -> tuple[PreTrainedModel, list[str]]:
    """(model, names of its new parameters: all)."""
    built = dict(config.config)
    model_config = AutoConfig.for_model(built.pop("model_type"), num_labels=1, **built)
    options = {"attn_implementation": config.attn_implementation, **config.init_kwargs}
    model = AutoModelForSequenceClassification.from_config(model_config, dtype=dtype_of(config), **options)
    return model, [name for name, _ in model.named_parameters()]


def pretrained(config: ModelConfig, quantization: Any) -> tuple[PreTrainedModel, list[str]]:
    """(model, names of the parameters that the checkpoint lacks)."""
    if (base := base_of_changes(config)) is not None:
        return with_changes(config, base, quantization), []
    options = {"attn_implementation": config.attn_implementation, **config.init_kwargs}
    saved = saved_head(config)
    if "config" not in options:
        options["num_labels"] = 1
    if quantization is not None:
        options["quantization_config"] = dict(quantization) if isinstance(quantization, Mapping) else quantization
    model, report = AutoModelForSequenceClassification.from_pretrained(
        str(config.path),
        dtype=dtype_of(config),
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        output_loading_info=True,
        **{"ignore_mismatched_sizes": saved is not None, **options},
    )
    new = sorted(report["missing_keys"])
    if quantization is None:
        vars(model)["rmlab_origin"] = Origin.of(config, model, new)
    if saved is not None:
        refuse_misfits(model, config, report["mismatched_keys"], options)
        restore(model, config, saved)
    return model, new


def refuse_misfits(
    model: PreTrainedModel, config: ModelConfig, misfits: Iterable[Any], options: Mapping[str, Any]
) -> None:
    """UserError for weights of another size than the model's, but for those of the head, which has its own file."""
    head = last_linear(model)[0]
    names = sorted(str(name) for name, *_ in misfits if not str(name).startswith(f"{head}."))
    if names and not options.get("ignore_mismatched_sizes"):
        raise UserError(f"model.path: {config.path} holds weights of another size than its config says: {names[0]}")


def with_changes(config: ModelConfig, base: Base, quantization: Any) -> PreTrainedModel:
    """The model of a folder (or hub repository) of changes. UserError where its base is another than then."""
    if quantization is not None:
        raise UserError(f"model.path: {config.path} holds changes of a base model; make it whole to quantise it")
    own = AutoConfig.from_pretrained(
        str(config.path), revision=config.revision, trust_remote_code=config.trust_remote_code
    )
    options = {**config.init_kwargs, "config": own, "ignore_mismatched_sizes": True}  # of embeddings that have grown
    there = replace(config, path=base.path, revision=base.revision, dtype=base.dtype, init_kwargs=options)
    model, _ = pretrained(there, None)
    saved = saved_head(config)
    settle(model, LINEAR if saved is None else saved.config, "default", trained=False)
    folder = Path(str(config.path)).expanduser()
    file = folder / CHANGES if folder.is_dir() else hub_file(str(config.path), CHANGES, config.revision)
    if file is None or not file.exists():
        raise UserError(f"model.path: {config.path} holds no {CHANGES}")
    changed = put_changes(model, file, base)
    model.config.name_or_path = str(config.path)
    if config.dtype not in ("auto", base.dtype):
        cast(Any, model).to(dtype_of(config))
        del vars(model)["rmlab_origin"]  # its weights are others than would be loaded
    else:
        vars(model)["rmlab_origin"] = Origin.of(there, model, changed)
    return model


def dtype_of(config: ModelConfig) -> torch.dtype | str:
    """torch's dtype of that name, or "auto"."""
    dtype = "auto" if config.dtype == "auto" else getattr(torch, config.dtype, None)
    if dtype is None:
        raise UserError(f"model.dtype: torch has no dtype {config.dtype!r}; use one of {', '.join(DTYPES)}")
    return dtype


@contextlib.contextmanager
def errors_only() -> Iterator[None]:
    """No warnings of transformers inside."""
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)


def config_by_name(
    name: str,
    init_kwargs: Mapping[str, Any] | None,
    trust_remote_code: bool,
    head_init: str | float = ModelConfig.head_init,
) -> ModelConfig:
    """The config of a model given as TRL takes it: by name or folder, float32 unless `init_kwargs` says otherwise."""
    options = {k: v for k, v in (init_kwargs or {}).items() if k != "num_labels"}
    return ModelConfig(
        path=name,
        dtype=str(options.pop("dtype", options.pop("torch_dtype", ModelConfig.dtype))).removeprefix("torch."),
        attn_implementation=options.pop("attn_implementation", None),
        revision=options.pop("revision", None),
        trust_remote_code=options.pop("trust_remote_code", trust_remote_code),
        head_init=head_init,
        head=None,
        init_kwargs=options,
    )


def new_modules(model: PreTrainedModel, new: list[str]) -> list[str]:
    """Modules inside the base model that the checkpoint lacked (BERT's pooler): an adapter must train and save them."""
    if model.config.name_or_path == "":
        return []
    base = f"{model.base_model_prefix}."
    return sorted({name.removeprefix(base).split(".")[0] for name in new if name.startswith(base)})


def tag(model: nn.Module, tags: Iterable[str]) -> None:
    """Tags of the model card, for adapters those of the base model."""
    if add := getattr(model, "add_model_tags", None):
        add(list(tags))


def warn_of_lost_updates(model: nn.Module) -> None:
    """bf16 has 8 bits of precision: an update below 1/256 of a weight is rounded away."""
    head = set(head_modules(base_of(model)))
    low = {p.dtype for n, p in model.named_parameters() if p.requires_grad and not head & set(n.split("."))}
    if low & {torch.bfloat16, torch.float16}:
        say(
            "warning: weights of 16 bits are trained directly, so small updates are lost; load the model in float32 "
            "(bf16 autocast keeps the speed) or train an adapter"
        )
