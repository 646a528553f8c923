"""RewardConfig: TrainingArguments and what a reward model adds."""

import json
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments

from rmlab.data.config import Columns, DataConfig, Options, check_choices, check_length
from rmlab.messages import UserError, check_at_least, check_one_of, first_line
from rmlab.model.config import ModelConfig
from rmlab.model.head import deviation
from rmlab.model.positions import usable_length
from rmlab.scoring.config import LAYOUTS, ScoringConfig
from rmlab.secrets import is_secret


@dataclass
class RewardConfig(TrainingArguments):
    """TrainingArguments and what a reward model adds; the first block carries TRL's names and meanings.

    Defaults differ from TRL's in two places: gradient_checkpointing is off (it costs a third of the speed; turn it
    on for memory), and bf16 is chosen only where an accelerator supports it; from transformers' in one:
    logging_nan_inf_filter is off (it waits for the device in every step, to hide that training has diverged).
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Initial learning rate."})
    logging_steps: float = field(default=10, metadata={"help": "Log every this many steps, or this share of them."})
    bf16: bool | None = field(default=None, metadata={"help": "bf16 autocast; None: on if the accelerator has it."})  # type: ignore[assignment]
    model_init_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Arguments of from_pretrained where the model is given by name, or their JSON."},
    )
    head: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "The head as model.head, {kind: options}, or its JSON; None: the model's own."},
    )
    head_init: str = field(
        default=ModelConfig.head_init,
        metadata={"help": "First weights of `head`, or of a model given by name that has none: as model.head_init."},
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Allow code that comes with a checkpoint."})
    chat_template_path: str | None = field(default=None, metadata={"help": "A jinja file, or another tokenizer."})
    disable_dropout: bool = field(default=True, metadata={"help": "No dropout but a LoRA dropout that was asked for."})
    dataset_num_proc: int | None = field(default=None, metadata={"help": "Processes for tokenisation."})
    eos_token: str | None = field(default=None, metadata={"help": "Overrides the tokenizer's EOS token."})
    pad_token: str | None = field(default=None, metadata={"help": "Overrides the tokenizer's pad token."})
    max_length: int | str | None = field(
        default=DataConfig.max_length,
        metadata={"help": "Tokens per response, with its prompt; auto: 1024, or what the model takes if that is less."},
    )
    pad_to_multiple_of: int | str | None = field(default=None, metadata={"help": "Pad batches to a multiple of this."})
    center_rewards_coefficient: float | None = field(
        default=None, metadata={"help": "Adds this times (r_chosen + r_rejected)^2; 0.01 is usual."}
    )
    activation_offloading: bool = field(default=False, metadata={"help": "Keep activations in CPU memory."})

    overlong: str = field(
        default=DataConfig.overlong, metadata={"help": "Rows beyond max_length: drop, truncate or error."}
    )
    identical: str = field(
        default=DataConfig.identical, metadata={"help": "Rows of two equal responses: drop or error."}
    )
    duplicates: str = field(
        default=DataConfig.duplicates,
        metadata={"help": "Rows that say again what an earlier one says: keep, drop, error."},
    )
    empty: str = field(
        default=DataConfig.empty,
        metadata={"help": "Rows with a response of nothing but white space: keep, drop, error."},
    )
    prompt_overlap: str = field(
        default=DataConfig.prompt_overlap,
        metadata={"help": "Evaluation rows on training prompts: error, drop or allow."},
    )
    pair_weighting: str = field(
        default=DataConfig.pair_weighting,
        metadata={"help": "The mean is over pairs, or first within each prompt (InstructGPT)."},
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Where tokenised data and features of frozen layers are kept; None: nowhere."}
    )
    layout: str = field(
        default=ScoringConfig.layout,
        metadata={"help": "shared_prefix, packed, padded, or auto: the fastest that is exact, proved on a batch."},
    )
    tokens_per_batch: int | None = field(
        default=None, metadata={"help": "Cut batches into micro-batches of so many computed tokens; memory only."}
    )
    group_by_prompt: bool = field(
        default=DataConfig.group_by_prompt, metadata={"help": "Rows of one prompt become one comparison."}
    )
    train_last_layers: int | None = field(
        default=None, metadata={"help": "Train the head and this many last layers; 0: the head alone. None: all."}
    )
    save_frozen: bool = field(
        default=True, metadata={"help": "Checkpoints hold frozen weights too; without, they are only to resume from."}
    )
    feature_cache_gb: float = field(
        default=2.0, metadata={"help": "Disk for what frozen layers compute, in cache_dir; 0: computed every time."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a better metric_for_best_model; None: never."},
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "A resumed run goes on counting for early stopping where it was."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hide losses that are not numbers; waits for the device in every step."}
    )

    def __new__(cls, *arguments: Any, **options: Any) -> "RewardConfig":
        """Refuses an old name with the new one."""
        if "train_layers" in options:
            raise UserError("train_layers is now train_last_layers: how many of the last layers are trained")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if not torch.accelerator.is_available():
            self.use_cpu = True  # or accelerate would not let several processes of a CPU machine know each other
        if self.bf16 is None:
            gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
            self.bf16 = gpu and not self.fp16 and not self.use_cpu
        if self.pad_to_multiple_of == "auto":  # TRL's default: nothing, but on a device that rmlab does not know
            self.pad_to_multiple_of = None
        check_choices(self)
        check_one_of("layout", self.layout, LAYOUTS)
        deviation(self.head_init, 1)
        self.model_init_kwargs = options_of("model_init_kwargs", self.model_init_kwargs)
        self.head = options_of("head", self.head)
        ModelConfig(head=self.head).check_head()
        if isinstance(self.max_length, str) and self.max_length.isdigit():  # as a command line gives it
            self.max_length = int(self.max_length)
        check_length("max_length", self.max_length)
        self.model_takes: int | None = None  # tokens; RewardTrainer says it once it has the model
        self.reads: Columns = ()  # of the rows; RewardTrainer says it once it has the loss
        for key in ("tokens_per_batch", "dataset_num_proc", "early_stopping_patience"):
            check_at_least(key, getattr(self, key), 1)
        for key in ("train_last_layers", "feature_cache_gb"):
            check_at_least(key, getattr(self, key), 0)
        refuse_without_effect(self)
        if self.data_seed is None:
            self.data_seed = self.seed  # or the order would be that of whatever was seeded last
        self.remove_unused_columns = False  # our collator reads token trees, not the columns of model.forward
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        super().__post_init__()
        if self.early_stopping_patience is not None and "no" in (
            self.eval_strategy,
            self.metric_for_best_model or "no",
        ):
            raise UserError("early_stopping_patience needs eval_strategy (steps or epoch) and metric_for_best_model")
        # Copies from pinned memory need not wait for the device.
        self.accelerator_config.non_blocking |= self.dataloader_pin_memory  # type: ignore[union-attr]

    def __getstate__(self) -> dict[str, Any]:
        """Without secrets: Trainer pickles its arguments into every checkpoint."""
        return {key: None if is_secret(key) and isinstance(v, str) else v for key, v in vars(self).items()}

    @classmethod
    def of(cls, args: TrainingArguments) -> "RewardConfig":
        """Of the arguments of another trainer, such as trl.RewardConfig: its fields that rmlab has too."""
        known = {f.name for f in fields(cls) if f.init}
        given = {f.name: getattr(args, f.name) for f in fields(args) if f.init and f.name in known}
        return cls(**given)

    @property
    def options(self) -> Options:
        """How rows become tokens."""
        length = usable_length(self.max_length, self.model_takes)
        choices = self.overlong, self.identical, self.duplicates, self.empty
        return Options(length, *choices, columns=self.reads)


def options_of(name: str, given: dict[str, Any] | str | None) -> dict[str, Any] | None:
    """Options, or the text of a JSON object that a command line gives for them. UserError for another text."""
    if not isinstance(given, str):
        return given
    try:
        options = json.loads(given)
    except ValueError as error:
        raise UserError(f'{name} is no JSON: {first_line(error)}; write {name}=\'{{"dtype": "bfloat16"}}\'') from error
    if not isinstance(options, dict):
        raise UserError(f'{name} is {given!r}; write a JSON object, {{"option": value}}')
    return options


# Fields of TrainingArguments that would change nothing here, or not what they say: why they stay at their defaults.
WITHOUT_EFFECT: dict[str, str] = {
    "average_tokens_across_devices": "a step is the mean over the pairs of all devices",
    "bf16_full_eval": "it would round the rewards",
    "eval_accumulation_steps": "rewards are one number per response, and do not wait on the device",
    "eval_do_concat_batches": "rewards are kept per comparison, not per batch",
    "eval_use_gather_object": "comparisons are always gathered as objects",
    "fp16_full_eval": "it would round the rewards",
    "include_for_metrics": "compute_metrics is given the rewards alone",
    "label_names": "there are no class labels",
    "label_smoothing_factor": "there are no class labels; give the preferences a probability instead",
    "length_column_name": "token trees hold their length",
    "prediction_loss_only": "the metrics are computed from the rewards that the loss needs anyway",
}
TRL_METRICS = {
    "margin": "gap_mean", "mean_reward": "reward_mean", "min_reward": "reward_min", "max_reward": "reward_max",
}  # fmt: skip


def refuse_without_effect(args: TrainingArguments) -> None:
    """UserError for options that would be ignored: a sweep over one would compare identical arms.

    And for a metric_for_best_model by TRL's name, which is only looked for after the first evaluation.
    """
    for option in fields(args):
        default = option.default if option.default_factory is MISSING else option.default_factory()
        if option.name in WITHOUT_EFFECT and getattr(args, option.name) != default:
            raise UserError(f"{option.name}: {WITHOUT_EFFECT[option.name]}; leave it out")
    metric = str(args.metric_for_best_model or "").removeprefix("eval_")
    if metric in TRL_METRICS:
        raise UserError(f"metric_for_best_model: TRL's {metric} is eval_{TRL_METRICS[metric]} here")
