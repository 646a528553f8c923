"""RewardTrainer: transformers.Trainer for reward models. It scores, reduces the loss and collects items; no more."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import AutoTokenizer, EvalPrediction, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import EvalLoopOutput

from rmlab import model as models
from rmlab.data.collator import PreferenceCollator
from rmlab.data.prepare import Options, numbered, tokenize
from rmlab.data.sets import without_overlap
from rmlab.losses import Preferences, Term, build_loss
from rmlab.messages import UserError
from rmlab.metrics import TIE, evaluate, flatten
from rmlab.scoring import prepare_for_scoring, score


@dataclass
class RewardConfig(TrainingArguments):
    """TrainingArguments and what a reward model adds; the first block carries TRL's names and meanings.

    Defaults differ from TRL's in two places: gradient_checkpointing is off (it costs a third of the speed; turn it
    on for memory), and bf16 is chosen only where an accelerator supports it.
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Initial learning rate."})
    logging_steps: float = field(default=10, metadata={"help": "Log every this many steps, or this share of them."})
    bf16: bool | None = field(default=None, metadata={"help": "bf16 autocast; None: on if the accelerator has it."})  # type: ignore[assignment]
    model_init_kwargs: dict[str, Any] | None = field(
        default=None, metadata={"help": "Arguments of from_pretrained, where the model is given by name."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Allow code that comes with a checkpoint."})
    chat_template_path: str | None = field(default=None, metadata={"help": "A jinja file, or another tokenizer."})
    disable_dropout: bool = field(default=True, metadata={"help": "No dropout but a LoRA dropout that was asked for."})
    dataset_num_proc: int | None = field(default=None, metadata={"help": "Processes for tokenisation."})
    eos_token: str | None = field(default=None, metadata={"help": "Overrides the tokenizer's EOS token."})
    pad_token: str | None = field(default=None, metadata={"help": "Overrides the tokenizer's pad token."})
    max_length: int | None = field(default=1024, metadata={"help": "Tokens per response, with its prompt."})
    pad_to_multiple_of: int | str | None = field(default=None, metadata={"help": "Pad batches to a multiple of this."})
    center_rewards_coefficient: float | None = field(
        default=None, metadata={"help": "Adds this times (r_chosen + r_rejected)^2; 0.01 is usual."}
    )
    activation_offloading: bool = field(default=False, metadata={"help": "Keep activations in CPU memory."})

    overlong: str = field(default="drop", metadata={"help": "Rows beyond max_length: drop, truncate or error."})
    identical: str = field(default="drop", metadata={"help": "Rows of two equal responses: drop or error."})
    prompt_overlap: str = field(
        default="error", metadata={"help": "Evaluation rows on training prompts: error, drop or allow."}
    )
    pair_weighting: str = field(
        default="pair", metadata={"help": "The mean is over pairs, or first within each prompt (InstructGPT)."}
    )
    cache_dir: str | None = field(default=None, metadata={"help": "Where tokenised data is kept; None: nowhere."})

    def __post_init__(self) -> None:
        if self.bf16 is None:
            gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
            self.bf16 = gpu and not self.fp16 and not self.use_cpu
        if self.pad_to_multiple_of == "auto":  # TRL's default: nothing, but on a device that rmlab does not know
            self.pad_to_multiple_of = None
        choices = {
            "overlong": ("drop", "truncate", "error"),
            "identical": ("drop", "error"),
            "prompt_overlap": ("error", "drop", "allow"),
            "pair_weighting": ("pair", "prompt"),
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise UserError(f"{key} is {getattr(self, key)!r}; use one of {', '.join(allowed)}")
        self.remove_unused_columns = False  # our collator reads token trees, not the columns of model.forward
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        super().__post_init__()


class RewardTrainer(Trainer):
    """Drop-in for TRL's RewardTrainer, old and new API; see the README for the row formats.

    Args:
        model: a sequence-classification model with num_labels=1, or a name or folder to load one from.
        args: a RewardConfig.
        train_dataset, eval_dataset: rows in any accepted format, or token trees; eval_dataset may be a dict of sets.
        processing_class: the tokenizer (`tokenizer=` in older scripts); by default the model's own.
        peft_config: any `peft` config; the score head is trained and saved without being asked for.
        loss: `{term: {weight, **options}}` as in conf/loss; by default Bradley-Terry with the rows' `margin`
            column if they have one, as in TRL.

    `scores[NAME]` holds the items of the last evaluation of each set, with the rewards of their responses.
    Raises UserError for unusable models, rows and options.
    """

    args: RewardConfig
    _tag_names = ("rmlab", "reward-trainer")
    loss_is_scaled_for_ga = True  # compute_loss divides by the pairs of the whole optimizer step itself

    def __init__(
        self,
        model: Any = None,
        args: RewardConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        tokenizer: Any = None,
        peft_config: Any = None,
        quantization_config: Any = None,
        loss: Mapping[str, Any] | None = None,
        max_length: int | None = None,
        **trainer_options: Any,
    ) -> None:
        args = args or RewardConfig(output_dir="reward-model")
        if not isinstance(args, RewardConfig):
            raise UserError(f"args must be a rmlab.RewardConfig, not a {type(args).__name__}; it takes the same fields")
        if model is None:
            raise UserError("model is missing: pass a model, a folder or a hub name (model_init is not supported)")
        if train_dataset is not None and not isinstance(train_dataset, Dataset | IterableDataset):
            raise UserError(f"train_dataset must be one datasets.Dataset, not a {type(train_dataset).__name__}")
        if args.n_gpu > 1:
            raise UserError(
                f"{args.n_gpu} GPUs in one process; start with `accelerate launch`, DataParallel is not exact"
            )
        if max_length is not None:
            args.max_length = max_length
        set_seed(args.seed)  # before loading, so that a random head is the same for the same seed
        tokenizer = processing_class if processing_class is not None else tokenizer
        if isinstance(model, str):
            model = load_by_name(model, args, quantization_config)
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(model.config.name_or_path)
        for key in ("eos_token", "pad_token"):
            if getattr(args, key) is not None:
                models.set_special_token(tokenizer, key, getattr(args, key))
        if args.chat_template_path is not None:
            tokenizer.chat_template = models.read_template(args.chat_template_path)

        self.options = Options(args.max_length, args.overlong, args.identical)
        self.loss_terms = build_loss(complete_loss(loss, args, train_dataset))
        self.scores: dict[str, list[dict[str, Any]]] = {}
        self._window: Tensor | None = None  # sums of the training metrics since the last log, on the device
        self._window_steps = 0
        model = prepare_model(model, args, tokenizer, peft_config)
        if train_dataset is not None:
            train_dataset = self._tokenize(train_dataset, tokenizer, args, "train")
        eval_dataset = self._tokenize_eval(eval_dataset, train_dataset, tokenizer, args)
        sets = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
        if any(isinstance(d, IterableDataset) for d in [train_dataset, *sets]):
            # Batches hold text (the items' ids), which rank 0 cannot send to the others.
            args.accelerator_config.dispatch_batches = False  # type: ignore[union-attr]
        multiple = args.pad_to_multiple_of if isinstance(args.pad_to_multiple_of, int) else None
        collator = data_collator or PreferenceCollator(tokenizer.pad_token_id, multiple, args.pair_weighting)
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            **trainer_options,
        )
        self.model_accepts_loss_kwargs = True  # what older versions ask before they divide the loss by micro-batches
        models.tag(self.model, self._tag_names)

    # ---- data ----

    def _tokenize(self, dataset: Any, tokenizer: Any, args: RewardConfig, name: str) -> Any:
        cache = None if args.cache_dir is None else Path(args.cache_dir)
        with args.main_process_first(desc="tokenise"):
            return tokenize(dataset, tokenizer, self.options, name, cache, args.dataset_num_proc)

    def _tokenize_eval(self, dataset: Any, train: Any, tokenizer: Any, args: RewardConfig) -> Any:
        """Token trees of an evaluation set or of a dict of them, each without training prompts."""
        if dataset is None:
            return None
        if isinstance(dataset, dict):
            return {n: self._tokenize_one(d, train, tokenizer, args, n) for n, d in dataset.items()}
        return self._tokenize_one(dataset, train, tokenizer, args, "eval")

    def _tokenize_one(self, dataset: Any, train: Any, tokenizer: Any, args: RewardConfig, name: str) -> Any:
        trees = self._tokenize(dataset, tokenizer, args, name)
        if isinstance(train, Dataset) and isinstance(trees, Dataset):
            trees = without_overlap(train, trees, name, args.prompt_overlap)
        return numbered(trees)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            train = self.train_dataset
            eval_dataset = self._tokenize_one(eval_dataset, train, self.processing_class, self.args, "eval")
        with self._every_item_once(eval_dataset):
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        trees = self._tokenize_one(test_dataset, None, self.processing_class, self.args, "test")
        with self._every_item_once(trees):
            return super().get_test_dataloader(trees)

    @contextlib.contextmanager
    def _every_item_once(self, dataset: Any) -> Iterator[None]:
        """Evaluation drops no last batch, and one worker reads a stream, so that its items are numbered once."""
        sets: Any = self.eval_dataset
        dataset = sets if dataset is None else sets[dataset] if isinstance(dataset, str) else dataset
        kept = self.args.dataloader_drop_last, self.args.dataloader_num_workers
        self.args.dataloader_drop_last = False
        if isinstance(dataset, IterableDataset):
            self.args.dataloader_num_workers = 0
        try:
            yield
        finally:
            self.args.dataloader_drop_last, self.args.dataloader_num_workers = kept

    # ---- loss ----

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """(2,) weight of all pairs and of all responses in this optimizer step, over micro-batches and ranks.

        Divided by the number of ranks, whose gradients are averaged: a sum of losses over this is the exact mean.
        """
        self._window_steps += 1
        totals = torch.zeros(2, device=device)
        for batch in batch_samples:
            totals += weights(batch).to(device)
        return self.accelerator.reduce(totals, "mean")

    def compute_loss(  # type: ignore[override]
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The share of this micro-batch in the mean loss of the optimizer step (all of it without `num_items`)."""
        with activations_on_cpu(self.args.activation_offloading):
            preferences = to_preferences(score(model, inputs), inputs)
        totals = weights(inputs) if num_items_in_batch is None else num_items_in_batch
        terms = loss_terms(self.loss_terms, preferences, inputs, totals)
        loss = torch.stack([term.weight * value for term, value in zip(self.loss_terms, terms, strict=True)]).sum()
        if model.training:
            self._collect(preferences, terms)
        return (loss, {"rewards": preferences.rewards}) if return_outputs else loss

    # ---- training metrics: sums on the device, over items, until they are logged ----

    @torch.no_grad()
    def _collect(self, preferences: Preferences, terms: list[Tensor]) -> None:
        gap, rewards = preferences.gap, preferences.rewards
        decided = preferences.probability != 0.5
        side = torch.where(preferences.probability > 0.5, gap, -gap)
        tied = decided & (side.abs() <= TIE)
        sums = torch.stack(
            [
                decided.sum(),
                (decided & (side > TIE)).sum() + 0.5 * tied.sum(),
                tied.sum(),
                torch.tensor(len(gap), device=gap.device),
                gap.sum(),
                rewards[preferences.better].sum(),
                rewards[preferences.worse].sum(),
                torch.tensor(len(rewards), device=gap.device),
                rewards.sum(),
                rewards.square().sum(),
                *(term.detach() for term in terms),
            ]
        ).double()
        self._window = sums if self._window is None else self._window + sums

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._window is not None:
            logs.update(self._read_window())
        super().log(logs, start_time)

    def _read_window(self) -> dict[str, float]:
        """Metrics over all items since the last log, of all ranks; the window starts anew."""
        assert self._window is not None
        sums = self.accelerator.reduce(self._window, "sum").tolist()
        self._window = None
        decided, right, tied, pairs, gap, better, worse, responses, total, squares, *terms = sums
        mean = total / responses
        metrics = {
            "gap_mean": gap / pairs,
            "chosen_mean": better / pairs,
            "rejected_mean": worse / pairs,
            "reward_mean": mean,
            "reward_std": math.sqrt(max(squares / responses - mean**2, 0.0)),
        }
        if decided:
            metrics = {"accuracy": right / decided, "ties": tied / decided, **metrics}
        if len(self.loss_terms) > 1:  # of one term it is the loss itself
            count = self._window_steps * self.accelerator.num_processes
            metrics.update({f"loss_{t.name}": v / count for t, v in zip(self.loss_terms, terms, strict=True)})
        self._window_steps = 0
        return metrics

    # ---- evaluation ----

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Score every item once, gather across ranks, drop the duplicates that even batches add, then measure.

        predictions: (N, K) rewards in the order of the set, NaN where an item has fewer responses; for pairs the
        columns are chosen and rejected. label_ids: (N,) the index of the most preferred response.
        """
        model = self._eval_model()
        found: list[dict[str, Any]] = []
        for inputs in dataloader:
            with torch.no_grad(), self.compute_loss_context_manager():
                rewards = score(model, self._prepare_inputs(inputs))
            found += items_with_rewards(inputs, rewards.cpu().numpy())
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        items = list({item["index"]: item for item in gather_object(found)}.values())
        items.sort(key=lambda item: item["index"])
        if not items:
            raise UserError(f"{metric_key_prefix}: the evaluation set is empty")
        lost = sum(not np.isfinite(item["rewards"]).all() for item in items)
        if lost:
            raise UserError(
                f"{metric_key_prefix}: the rewards of {lost} of {len(items)} comparisons are not finite: training has "
                "diverged; lower trainer.learning_rate or trainer.max_grad_norm"
            )
        name = metric_key_prefix.removeprefix("eval").removeprefix("_") or "eval"
        self.scores[name] = items
        predictions, best = as_arrays(items)
        metrics = {"loss": set_loss(self.loss_terms, items, self.args.pair_weighting), **flatten(evaluate(items))}
        if self.compute_metrics is not None:
            metrics.update(self.compute_metrics(EvalPrediction(predictions=predictions, label_ids=best)))
        metrics = {
            k if k.startswith(f"{metric_key_prefix}_") else f"{metric_key_prefix}_{k}": v for k, v in metrics.items()
        }
        return EvalLoopOutput(predictions=predictions, label_ids=best, metrics=metrics, num_samples=len(items))

    def _eval_model(self: Any) -> Any:
        """The model ready to score: prepared as Trainer's own loop does it when nothing was trained before."""
        if self.is_deepspeed_enabled and self.deepspeed is None:
            from transformers.integrations.deepspeed import deepspeed_init

            deepspeed_init(self, num_training_steps=0, inference=True)
        model = self._wrap_model(self.model, training=False)
        if len(self.accelerator._models) == 0 and model is self.model:
            sharded = self.is_deepspeed_enabled or (self.is_fsdp_enabled and not self.args.torch_compile)
            prepare = self.accelerator.prepare if sharded else self.accelerator.prepare_model
            model = prepare(model) if sharded else prepare(model, evaluation_mode=True)
            if self.is_fsdp_enabled:
                self.model = model
            if model is not self.model:
                self.model_wrapped = model
            if self.is_deepspeed_enabled:
                self.deepspeed = self.model_wrapped
        model.eval()
        return model


def activations_on_cpu(wanted: bool) -> Any:
    """A context that keeps activations in CPU memory between forward and backward."""
    if not wanted:
        return contextlib.nullcontext()
    return torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available())


def load_by_name(name: str, args: RewardConfig, quantization_config: Any) -> Any:
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
    return models.load_model(config)


def complete_loss(loss: Mapping[str, Any] | None, args: RewardConfig, train_dataset: Any) -> dict[str, Any]:
    """The loss given, or TRL's: a margin where rows have a `margin` column; centering where its coefficient is set."""
    columns = getattr(train_dataset, "column_names", None)
    if columns is None and isinstance(train_dataset, IterableDataset):
        columns = next(iter(train_dataset), {}).keys()  # a generator's columns are only known from its rows
    has_margin = "margin" in (columns or ())
    complete = dict(loss) if loss else {"bradley_terry": {"margin": 1.0 if has_margin else 0.0}}
    if args.center_rewards_coefficient is not None:
        complete.setdefault("center", {"weight": args.center_rewards_coefficient})
    return complete


def prepare_model(model: Any, args: RewardConfig, tokenizer: Any, peft_config: Any) -> Any:
    """One label, no dropout, a pad token of its own, fp32 head, adapter with the head in it."""
    from peft import PeftModel

    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
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
    if peft_config is not None:
        model = models.apply_peft(model, peft_config)
    elif isinstance(model, PeftModel):
        models.train_head_of(model)
    models.warn_of_lost_updates(model)
    checkpointing = args.gradient_checkpointing or getattr(args, "activation_checkpointing", False)
    if isinstance(model, PeftModel) and checkpointing:
        model.enable_input_require_grads()
    return model


def weights(batch: Mapping[str, Any]) -> Tensor:
    """(2,) summed weight of the pairs and of the responses of a batch."""
    return torch.stack([batch["pair_weight"].sum(), batch["response_weight"].sum()])


def to_preferences(rewards: Tensor, batch: Mapping[str, Any]) -> Preferences:
    return Preferences(rewards, *(batch[k] for k in ("better", "worse", "strength", "probability", "prompt")))


def loss_terms(terms: list[Term], preferences: Preferences, batch: Mapping[str, Any], totals: Tensor) -> list[Tensor]:
    """Each term's weighted sum over this batch, divided by the step's total weight of what it is defined on."""
    weight = {"pair": batch["pair_weight"], "response": batch["response_weight"]}
    total = dict(zip(weight, totals, strict=True))
    return [(term.function(preferences) * weight[term.per]).sum() / total[term.per] for term in terms]


def items_with_rewards(batch: Mapping[str, Any], rewards: np.ndarray) -> list[dict[str, Any]]:
    """The items of a batch, each with the rewards of its responses in their own order."""
    prompt = batch["prompt"].cpu().numpy()
    return [{**item, "rewards": rewards[prompt == c].tolist()} for c, item in enumerate(batch["items"])]


def as_arrays(items: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) rewards padded with NaN, and (N,) the response that wins most preferences."""
    most = max(len(item["rewards"]) for item in items)
    rewards = np.full((len(items), most), np.nan, dtype=np.float32)
    best = np.zeros(len(items), dtype=np.int64)
    for n, item in enumerate(items):
        rewards[n, : len(item["rewards"])] = item["rewards"]
        wins = np.zeros(most)
        np.add.at(wins, item["better"], item["probability"])
        np.add.at(wins, item["worse"], 1 - np.array(item["probability"]))
        best[n] = wins.argmax()
    return rewards, best


def set_loss(terms: list[Term], items: list[dict[str, Any]], pair_weighting: str) -> float:
    """The training loss over a whole evaluation set at once, from its items."""
    counts = [len(item["rewards"]) for item in items]
    start = np.cumsum([0, *counts[:-1]])
    pairs = [len(item["better"]) for item in items]
    by_prompt = pair_weighting == "prompt"

    def joined(column: str, offset: Any = None) -> Tensor:
        parts = [np.asarray(item[column]) + (0 if offset is None else offset[n]) for n, item in enumerate(items)]
        return torch.from_numpy(np.concatenate(parts))

    batch = {
        "better": joined("better", start),
        "worse": joined("worse", start),
        "strength": joined("strength").float(),
        "probability": joined("probability").float(),
        "prompt": torch.from_numpy(np.repeat(np.arange(len(items)), counts)),
        "pair_weight": torch.from_numpy(np.repeat([1 / p if by_prompt else 1.0 for p in pairs], pairs)),
        "response_weight": torch.from_numpy(np.repeat([1 / c if by_prompt else 1.0 for c in counts], counts)),
    }
    values = loss_terms(terms, to_preferences(joined("rewards").float(), batch), batch, weights(batch))
    return sum(term.weight * value.item() for term, value in zip(terms, values, strict=True))
