"""A reward model: any AutoModelForSequenceClassification with one output, and its tokenizer."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as hf_logging

from rmlab.data.tokenizer import build_tokenizer
from rmlab.messages import UserError, say
from rmlab.scoring import head_modules


def load_tokenizer(config: Mapping[str, Any]) -> Any:
    """The tokenizer of a `model` config node: its own, the model's, or the embedded one (`tokenizer: embedded`)."""
    name = config["tokenizer"] or config["path"]
    if name == "embedded":
        tokenizer = build_tokenizer()
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                name, revision=config["revision"], trust_remote_code=config["trust_remote_code"]
            )
        except (OSError, ValueError) as error:
            raise UserError(f"model.tokenizer: cannot load {name!r}: {first_line(error)}") from error
    for key in ("pad_token", "eos_token"):
        if config[key] is not None:
            set_special_token(tokenizer, key, config[key])
    if config["chat_template"] is not None:
        tokenizer.chat_template = read_template(config["chat_template"])
    return tokenizer


def set_special_token(tokenizer: Any, key: str, token: str) -> None:
    """Set eos_token (it must be in the vocabulary) or pad_token (a new one is added)."""
    if token not in tokenizer.get_vocab():
        if key == "eos_token":
            raise UserError(f"eos_token {token!r} is not in the tokenizer's vocabulary; a new one would mean nothing")
        tokenizer.add_special_tokens({key: token})
    setattr(tokenizer, key, token)


def warn_of_lost_updates(model: Any) -> None:
    """bf16 has 8 bits of precision: an update below 1/256 of a weight is rounded away."""
    head = set(head_modules(model.get_base_model() if hasattr(model, "get_base_model") else model))
    low = {p.dtype for n, p in model.named_parameters() if p.requires_grad and not head & set(n.split("."))}
    if low & {torch.bfloat16, torch.float16}:
        say(
            "warning: weights of 16 bits are trained directly, so small updates are lost; load the model in float32 "
            "(bf16 autocast keeps the speed) or train an adapter"
        )


def read_template(path: str) -> str:
    """A chat template from a .jinja/.j2 file, or the one of another tokenizer (folder or hub name)."""
    if Path(path).is_file():
        return Path(path).read_text(encoding="utf-8")
    if path.endswith((".jinja", ".j2")):
        raise UserError(f"chat template file {path!r} does not exist")
    template = AutoTokenizer.from_pretrained(path).chat_template
    if template is None:
        raise UserError(f"tokenizer {path!r} has no chat template to take over")
    return str(template)


def load_model(config: Mapping[str, Any], quantization: Mapping[str, Any] | None = None) -> Any:
    """The model of a `model` config node, with one label and an initialised head. UserError if it cannot be loaded.

    `model.config.problem_type` is "regression", so that a text-classification pipeline on the saved model returns
    the reward and not its sigmoid.
    """
    options: dict[str, Any] = {"attn_implementation": config["attn_implementation"], **config["init_kwargs"]}
    dtype = getattr(torch, config["dtype"], None) if config["dtype"] != "auto" else "auto"
    if dtype is None:
        raise UserError(f"model.dtype: torch has no dtype {config['dtype']!r}; use float32, bfloat16 or float16")
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # the new head is meant to be missing from the checkpoint; said below instead
    try:
        if config["path"] is None:
            built = dict(config["config"])
            kind = built.pop("model_type")
            model_config = AutoConfig.for_model(kind, num_labels=1, **built)
            model = AutoModelForSequenceClassification.from_config(model_config, dtype=dtype, **options)
            new = [name for name, _ in model.named_parameters()]
        else:
            if quantization:
                options["quantization_config"] = dict(quantization)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                config["path"],
                num_labels=1,
                dtype=dtype,
                revision=config["revision"],
                trust_remote_code=config["trust_remote_code"],
                output_loading_info=True,
                **options,
            )
            new = sorted(report["missing_keys"])
    except (OSError, ValueError, ImportError, TypeError) as error:
        raise UserError(f"model: cannot load {config['path'] or config['config']}: {first_line(error)}") from error
    finally:
        hf_logging.set_verbosity(verbosity)
    name_the_output(model)
    init_head(model, new, config["head_init"])
    model.rmlab_new_modules = new_modules(model, new)
    return model


def load_by_name(name: str, args: Any, quantization_config: Any) -> Any:
    """A model by hub name or folder, as TRL takes it: float32 unless `model_init_kwargs` says otherwise."""
    options = dict(args.model_init_kwargs or {})
    config = {
        "path": name,
        "config": {},
        "dtype": str(options.pop("dtype", options.pop("torch_dtype", "float32"))).removeprefix("torch."),
        "attn_implementation": options.pop("attn_implementation", None),
        "revision": options.pop("revision", None),
        "trust_remote_code": options.pop("trust_remote_code", args.trust_remote_code),
        "head_init": "1/sqrt(d+1)",
        "init_kwargs": {k: v for k, v in options.items() if k != "num_labels"},
    }
    if quantization_config is not None:
        config["init_kwargs"]["quantization_config"] = quantization_config
    return load_model(config)


def tag(model: Any, tags: Iterable[str]) -> None:
    """Tags of the model card, for adapters those of the base model."""
    if hasattr(model, "add_model_tags"):
        model.add_model_tags(list(tags))


def name_the_output(model: Any) -> None:
    """Mark the single output as a reward for whatever reads the saved config."""
    model.config.problem_type = "regression"
    model.config.id2label, model.config.label2id = {0: "reward"}, {"reward": 0}


def init_head(model: Any, new: list[str], how: str | float) -> None:
    """Initialise the last linear layer of a head that the checkpoint did not have; a trained head is left alone.

    `how`: "1/sqrt(d+1)" (Stiennon et al. 2020), "1/(d+1)" (OpenRLHF), "zero", "default" (the architecture's own) or
    a number, the standard deviation of a normal distribution. Biases become 0.
    """
    linears = [
        (f"{name}.{part}" if part else name, module)
        for name, head in head_modules(model).items()
        for part, module in head.named_modules()
        if isinstance(module, nn.Linear)
    ]
    name, last = linears[-1]
    if f"{name}.weight" not in new or how == "default":
        return
    d = last.in_features
    deviations = {"1/sqrt(d+1)": (d + 1) ** -0.5, "1/(d+1)": 1 / (d + 1), "zero": 0.0}
    std = deviations.get(how) if isinstance(how, str) else how
    if std is None:
        raise UserError(f"model.head_init is {how!r}; use a number or one of {[*deviations, 'default']}")
    with torch.no_grad():
        last.weight.normal_(0.0, std) if std else last.weight.zero_()
        if last.bias is not None:
            last.bias.zero_()


def new_modules(model: Any, new: list[str]) -> list[str]:
    """Modules inside the base model that the checkpoint lacked (BERT's pooler): an adapter must train and save them."""
    if model.config.name_or_path == "":
        return []
    base = f"{model.base_model_prefix}."
    return sorted({name.removeprefix(base).split(".")[0] for name in new if name.startswith(base)})


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0: modules, functional attention dropout, LayerDrop. LoRA's own is kept."""
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for key, value in vars(module).items():
            if "drop" in key and type(value) is float:
                setattr(module, key, 0.0)
    config = getattr(model, "config", None)
    for key, value in vars(config).items() if config is not None else ():
        if "drop" in key and type(value) is float:
            setattr(config, key, 0.0)


def ensure_pad_token(model: Any, tokenizer: Any) -> None:
    """Give the tokenizer a pad token that is not EOS, and tell the model's config.

    Training reads scores by attention mask, but a server reads them at the last token that is not pad: with
    pad == eos it would score the token before EOS. An unk token serves where there is one, else a new token is added.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        why = "has no pad token" if tokenizer.pad_token_id is None else "pads with EOS"
        if tokenizer.unk_token_id not in (None, tokenizer.eos_token_id, tokenizer.bos_token_id):
            tokenizer.pad_token = tokenizer.unk_token
        else:
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        say(f"tokenizer {why}; servers would misread the last token, so the pad token is now {tokenizer.pad_token!r}")
    if tokenizer.pad_token_id >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for key in ("pad_token_id", "eos_token_id", "bos_token_id"):
        value = getattr(tokenizer, key)
        if (value is not None and key in vars(model.config.get_text_config())) or key == "pad_token_id":
            setattr(model.config.get_text_config(), key, value)
            setattr(model.config, key, value)


def first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
