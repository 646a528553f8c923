"""What is made ready before training, for both front doors, `rmlab` and RewardTrainer: data, model, layout, loss."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import pyarrow.compute as pc
from datasets import Dataset, IterableDataset
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel, TrainingArguments, set_seed

from rmlab.data import Tokenizer
from rmlab.data.counts import tables
from rmlab.data.excerpts import with_texts
from rmlab.data.merge import merged_by_prompt
from rmlab.data.prepare import numbered, refuse_other_columns, tokenize
from rmlab.data.sets import Sets, without_overlap
from rmlab.data.trees import Trees
from rmlab.losses import Term, columns_read, reads_logps
from rmlab.messages import UserError, processes, say
from rmlab.model import adapters
from rmlab.model.dropout import disable_dropout
from rmlab.model.head import base_of, head_of, is_decoder, name_the_output, names_of
from rmlab.model.head_files import LINEAR, same_head, settle
from rmlab.model.layers import freeze
from rmlab.model.load import config_by_name, load_model, warn_of_lost_updates
from rmlab.model.positions import check_positions
from rmlab.model.tokenizer import complete_tokenizer, ensure_pad_token, tokenizer_of
from rmlab.scoring.collator import PreferenceCollator
from rmlab.scoring.heads import is_ready, prepare_for_scoring
from rmlab.scoring.layout import Choice, choose
from rmlab.training.config import RewardConfig

AnyDataset: TypeAlias = Dataset | IterableDataset  # in any accepted format, or token trees already

# ---- data ----


def prepare_sets(sets: Sets, tokenizer: Tokenizer, args: RewardConfig) -> Sets:
    """Training and evaluation sets as numbered token trees, the latter without training prompts."""
    train = None if sets.train is None else prepare_set(sets.train, tokenizer, args, "train")
    return Sets(train, {name: prepare_eval(s, train, tokenizer, args, name) for name, s in sets.eval.items()})


def prepare_set(
    dataset: AnyDataset, tokenizer: Tokenizer, args: RewardConfig, name: str, complete: bool = True
) -> Trees:
    """Numbered token trees. What is numbered has been here before, maybe for another loss. complete: as in Options."""
    if is_prepared(dataset):
        refuse_other_columns(dataset, name, args.options)
        return dataset
    return numbered(trees_of(dataset, tokenizer, args, name, complete))


def prepare_eval(
    dataset: AnyDataset, train: Trees | None, tokenizer: Tokenizer, args: RewardConfig, name: str
) -> Trees:
    """The same of an evaluation set, without the prompts of the training set."""
    if is_prepared(dataset):
        refuse_other_columns(dataset, name, args.options)
    trees = dataset if is_prepared(dataset) else trees_of(dataset, tokenizer, args, name, complete=False, texts=True)
    return numbered(without_overlap(train, trees, name, args.prompt_overlap))


def trees_of(
    dataset: AnyDataset, tokenizer: Tokenizer, args: RewardConfig, name: str, complete: bool, texts: bool = False
) -> Trees:
    """Token trees, grouped by prompt if `args` says so. texts: with what is known of their texts."""
    cache = None if args.cache_dir is None else Path(args.cache_dir)
    options = replace(args.options, complete=complete)  # what an evaluation set does not know is left out of its loss
    with args.main_process_first(desc="tokenise"):
        trees = tokenize(dataset, tokenizer, options, name, cache, args.dataset_num_proc)
        trees = with_texts(trees, dataset, name) if texts else trees
    if not args.group_by_prompt:
        return trees
    if isinstance(trees, IterableDataset):
        raise UserError(f"{name}: group_by_prompt needs all rows at once; a stream does not have them")
    merged = merged_by_prompt(trees, args.reads)
    if len(merged) < len(trees):
        say(f"{name}: {len(trees):,} comparisons share prompts and become {len(merged):,}; batches count those")
    return merged


def is_prepared(dataset: AnyDataset) -> bool:
    """Whether these are numbered token trees, with nothing left to do."""
    return {"suffixes", "index"} <= set(getattr(dataset, "column_names", None) or [])


def named_sets(dataset: AnyDataset | dict[str, AnyDataset] | None) -> dict[str, AnyDataset]:
    """Evaluation sets by name; that of one alone is `eval`."""
    if isinstance(dataset, dict):
        return dict(dataset)
    return {} if dataset is None else {"eval": dataset}


# ---- model ----


def load_if_named(
    model: PreTrainedModel | PeftModel | str | None, args: RewardConfig, quantization: Any
) -> PreTrainedModel | PeftModel:
    """The model that was given, or the one of that name or folder, with the head that `args` asks for."""
    if model is None:
        raise UserError("model is missing: pass a model, a folder or a hub name (model_init is not supported)")
    head, options = (cast(dict[str, Any] | None, told) for told in (args.head, args.model_init_kwargs))  # JSON no more
    if isinstance(model, str):
        config = config_by_name(model, options, args.trust_remote_code, args.head_init)
        return load_model(replace(config, head=head), args.seed, quantization)
    if not same_head(model, head):
        if isinstance(model, PeftModel) or is_ready(model):
            raise UserError("head: the model has been made ready with another; pass it as it was loaded, or its name")
        set_seed(args.seed)
        settle(model, head or LINEAR, args.head_init, trained=True)
    return model


def prepare_tokenizer(tokenizer: Tokenizer | None, model: PreTrainedModel | PeftModel, args: RewardConfig) -> Tokenizer:
    """The tokenizer that was given, or the model's own, with the special tokens and the chat template of `args`."""
    if tokenizer is None:
        tokenizer = tokenizer_of(str(getattr(model, "rmlab_tokenizer", model.config.name_or_path)))
    complete_tokenizer(tokenizer, args.pad_token, args.eos_token, args.chat_template_path)
    return tokenizer


def prepare_model(
    model: PreTrainedModel | PeftModel,
    args: RewardConfig,
    tokenizer: Tokenizer,
    peft_config: PeftConfig | Mapping[str, Any] | None,
) -> PreTrainedModel | PeftModel:
    """One label, no dropout, a pad token of its own, fp32 head, adapter with the head in it."""
    base = base_of(model)
    if base.config.num_labels != 1:
        raise UserError(
            f"the model has num_labels={base.config.num_labels}, but reward models require `num_labels=1`; load it "
            "with AutoModelForSequenceClassification.from_pretrained(..., num_labels=1)"
        )
    name_the_output(base)
    if args.disable_dropout:
        disable_dropout(model)
    ensure_pad_token(base, tokenizer)
    prepare_for_scoring(base)
    if peft_config is not None:
        config = adapters.own_config(peft_config)
        if args.train_last_layers is not None:
            adapters.adapt_last_layers(base, config, args.train_last_layers)
        model = adapters.apply_peft(model, config, getattr(tokenizer, "rmlab_new_tokens", ()))
    elif args.train_last_layers is not None:
        freeze(base, args.train_last_layers)
    if isinstance(model, PeftModel) and peft_config is None:
        adapters.train_head_of(model)
    warn_of_lost_updates(model)
    checkpointing = args.gradient_checkpointing or getattr(args, "activation_checkpointing", False)
    if isinstance(model, PeftModel) and checkpointing:
        model.enable_input_require_grads()
    return model


# ---- layout ----


def choose_layout(model: nn.Module, args: RewardConfig, own_collator: bool, logps: bool = False) -> Choice:
    """The layout of a model as it will be trained. Raises UserError for one that cannot be.

    logps: whether the loss reads log-probabilities of the responses' tokens.
    """
    if logps and args.layout not in ("auto", "padded"):
        raise UserError(f"scoring.layout={args.layout} does not go with a loss that reads logps; leave it out")
    if logps:
        return Choice("padded", "the loss reads the log-probability of every token")
    if own_collator and args.layout not in ("auto", "padded"):
        raise UserError(f"scoring.layout={args.layout} does not go with a data_collator of your own; leave one out")
    if own_collator:
        return Choice("padded", "the data_collator that was given makes the batches")
    if args.torch_compile and args.layout == "auto":
        return Choice("padded", "torch.compile wants shapes that repeat")
    if args.neftune_noise_alpha is not None:
        if args.layout not in ("auto", "padded"):
            raise UserError(f"scoring.layout={args.layout} does not go with NEFTune, whose noise is that of a row")
        return Choice("padded", "NEFTune scales its noise by the length of a row")
    return choose(model, args.layout)


def build_collator(
    model: nn.Module, args: RewardConfig, tokenizer: Tokenizer, layout: str, terms: Sequence[Term]
) -> PreferenceCollator:
    """Read at the last token for decoders, at the first for encoders; all else as `args` says."""
    return PreferenceCollator(
        pad_token_id=cast(int, tokenizer.pad_token_id),
        pad_to_multiple_of=args.pad_to_multiple_of if isinstance(args.pad_to_multiple_of, int) else None,
        pair_weighting=args.pair_weighting,
        layout=layout,
        causal=is_decoder(base_of(model)),
        tokens_per_batch=args.tokens_per_batch,
        columns=columns_read(terms),
        outputs=len(names_of(head_of(base_of(model)))),
        logps=layout == "padded" and reads_logps(terms),
    )


# ---- optimizers ----


def refuse_foreign_optimizer(optimizer: Any, model: nn.Module) -> None:
    """UserError for an optimizer that was built of parameters which the model as it is trained does not have."""
    if optimizer is None:
        return
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    foreign = sum(p not in trained for p in held)
    if foreign and not trained <= {*held}:  # all that is trained, and what is frozen beside it, harms nothing
        raise UserError(
            f"optimizers: {foreign} of its {len(held)} parameters are not trained, and some that are it lacks: "
            "peft_config changed the model after it was built; give optimizer_cls_and_kwargs, or build it of a model "
            "that is ready (get_peft_model)"
        )


def check_fits(dataset: Trees | None, model: PreTrainedModel, max_length: int | None) -> None:
    """UserError for token ids that the model has no embedding for, and for rows beyond its positions.

    A stream is only known to be cut at `max_length`; its ids are those of its tokenizer.
    """
    config = model.config.get_text_config().to_dict()
    if isinstance(dataset, IterableDataset):
        check_positions(config, "the model", max_length)
    if not isinstance(dataset, Dataset) or not len(dataset):
        return
    largest = longest = 0
    for table in tables(dataset.select_columns(["prefix", "suffixes", "length"])):
        ids = [pc.list_flatten(table["prefix"]), pc.list_flatten(pc.list_flatten(table["suffixes"]))]
        largest = max(largest, *(pc.max(part).as_py() for part in ids if len(part)))
        longest = max(longest, pc.max(table["length"]).as_py())
    rows = cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]
    if largest >= rows:
        raise UserError(f"token id {largest} is beyond the {rows} embeddings of the model; is the tokenizer another's?")
    check_positions(config, "the model", longest)


# ---- arguments ----


def as_reward_config(args: TrainingArguments | None, max_length: int | None) -> RewardConfig:
    """The arguments as rmlab's, those of TRL turned into them; the defaults for None. max_length: of older scripts."""
    if args is None:
        args = RewardConfig(output_dir="reward-model")
    if not isinstance(args, RewardConfig):
        if type(args).__name__ != "RewardConfig":
            raise UserError(f"args must be a rmlab.RewardConfig, not a {type(args).__name__}; it takes the same fields")
        args = RewardConfig.of(args)
    # Batches hold text (the comparisons' ids), which rank 0 cannot send to the others.
    args.accelerator_config.dispatch_batches = False  # type: ignore[union-attr]
    if max_length is not None:
        args.max_length = max_length
    return args


def refuse_uncalled(**functions: Any) -> None:
    """UserError for functions that RewardTrainer would take and never call, and for names that it does not know."""
    instead = {
        "preprocess_logits_for_metrics": "metrics are given the rewards; do it in compute_metrics",
        "compute_loss_func": "give loss= terms, of your own too (docs/extending.md)",
        "model_init": "pass the model, or its name",
    }
    for name, function in functions.items():
        if name not in instead:
            raise TypeError(f"RewardTrainer got an unexpected keyword argument {name!r}")
        if function is not None:
            raise UserError(f"{name} is not called: {instead[name]}")


def check_arguments(args: RewardConfig, train_dataset: Any) -> None:
    """UserError for what RewardTrainer cannot do."""
    if train_dataset is not None and not isinstance(train_dataset, Dataset | IterableDataset):
        raise UserError(f"train_dataset must be one datasets.Dataset, not a {type(train_dataset).__name__}")
    if processes() != args.world_size:
        raise UserError(
            f"{processes()} processes were launched, but each would train alone: start them with torchrun or "
            "`accelerate launch`, which tell them of each other"
        )
    if args.n_gpu > 1:
        raise UserError(f"{args.n_gpu} GPUs in one process; start with `accelerate launch`, DataParallel is not exact")
    if args.tokens_per_batch is not None and (args.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true"):
        raise UserError("tokens_per_batch does not work with FSDP, whose ranks gather weights in step; leave it out")
    deepspeed = getattr(args, "deepspeed", None) or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    if args.tokens_per_batch is not None and deepspeed:
        raise UserError("tokens_per_batch does not work with DeepSpeed, which takes a step per backward; leave it out")
    if args.tokens_per_batch is not None and args.include_num_input_tokens_seen not in ("no", False):
        raise UserError(
            "include_num_input_tokens_seen does not count the parts that tokens_per_batch makes; leave it out"
        )
