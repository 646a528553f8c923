"""RewardTrainer: transformers.Trainer for reward models. It scores, reduces the loss and collects items; no more."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType, gather_object
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import AutoTokenizer, EvalPrediction, Trainer, set_seed
from transformers.trainer_utils import EvalLoopOutput

from rmlab import adapters
from rmlab import model as models
from rmlab.collator import PreferenceCollator, parts_of
from rmlab.data.prepare import Options, is_tokenized, numbered, tokenize
from rmlab.data.sets import merged_by_prompt, without_overlap
from rmlab.embedding import embedding_gradients_in_place
from rmlab.items import as_arrays, items_with_rewards, loss_terms, set_loss, to_preferences, weights
from rmlab.losses import build_loss
from rmlab.messages import UserError, say
from rmlab.metrics import evaluate, flatten
from rmlab.reward_config import RewardConfig
from rmlab.scoring import base_of, frozen, is_decoder
from rmlab.scoring.layout import choose
from rmlab.scoring.scorer import Scorer
from rmlab.window import TrainingWindow


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
            model = models.load_by_name(model, args, quantization_config)
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
        self.window = TrainingWindow(self.loss_terms)
        model = adapters.prepare_model(model, args, tokenizer, peft_config)
        if train_dataset is not None:
            train_dataset = self._tokenize(train_dataset, tokenizer, args, "train")
        eval_dataset = self._tokenize_eval(eval_dataset, train_dataset, tokenizer, args)
        sets = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
        if args.tokens_per_batch is not None and getattr(args, "deepspeed", None):
            raise UserError(
                "tokens_per_batch does not work with DeepSpeed, which takes a step per backward; leave it out"
            )
        if any(isinstance(d, IterableDataset) for d in [train_dataset, *sets]):
            # Batches hold text (the items' ids), which rank 0 cannot send to the others.
            args.accelerator_config.dispatch_batches = False  # type: ignore[union-attr]
        multiple = args.pad_to_multiple_of if isinstance(args.pad_to_multiple_of, int) else None
        layout, why = choose_layout(model, args, data_collator)
        collator = data_collator or PreferenceCollator(
            tokenizer.pad_token_id,
            multiple,
            args.pair_weighting,
            layout,
            is_decoder(base_of(model)),
            args.tokens_per_batch,
        )
        self.scorer = Scorer(layout, why, collator, strict=args.layout != "auto")
        self.features = frozen.Cache(args.cache_dir, args.feature_cache_gb)
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

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Trainer's, with embedding gradients summed in place where a step has several micro-batches."""
        several = self.args.tokens_per_batch is not None or self.args.gradient_accumulation_steps > 1
        alone = self.accelerator.distributed_type == DistributedType.NO and not self.args.torch_compile
        in_place = embedding_gradients_in_place(base_of(self.model)) if several and alone else contextlib.nullcontext()
        with in_place:
            return super().train(*arguments, **options)

    # ---- data ----

    def _tokenize(self, dataset: Any, tokenizer: Any, args: RewardConfig, name: str) -> Any:
        cache = None if args.cache_dir is None else Path(args.cache_dir)
        with args.main_process_first(desc="tokenise"):
            trees = tokenize(dataset, tokenizer, self.options, name, cache, args.dataset_num_proc)
        if args.group_by_prompt and isinstance(trees, IterableDataset):
            raise UserError(f"{name}: group_by_prompt needs all rows at once; a stream does not have them")
        if not args.group_by_prompt:
            return trees
        merged = merged_by_prompt(trees)
        if len(merged) < len(trees):
            say(f"{name}: {len(trees):,} comparisons share prompts and become {len(merged):,}; batches count those")
        return merged

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

    # ---- scoring ----

    @property
    def layout(self) -> str:
        """How tokens are laid out for the model: shared_prefix, packed or padded."""
        return self.scorer.layout

    def _rewards(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """(R,) rewards of a (micro-)batch, the first time after a proof that they are those of padded rows."""
        if not self.scorer.is_proved:
            sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
            whole = model if sharded else self.accelerator.unwrap_model(model)
            self.scorer.prove(whole, batch, tell=self.is_world_process_zero())
        return self.scorer(model, batch)

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        if self.layout != "padded" and is_tokenized(dataset) and not isinstance(dataset, IterableDataset):
            model = base_of(self.accelerator.unwrap_model(self.model))
            dataset = self.features.add_to(dataset, model, self.data_collator, self.accelerator)
        return super()._get_dataloader(dataset, *args, **kwargs)

    # ---- loss ----

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """(2,) weight of all pairs and of all responses in this optimizer step, over micro-batches and ranks.

        Divided by the number of ranks, whose gradients are averaged: a sum of losses over this is the exact mean.
        """
        self.window.steps += 1
        totals = torch.zeros(2, device=device)
        for batch in batch_samples:
            totals += sum(weights(part).to(device) for part in parts_of(batch))
        return self.accelerator.reduce(totals, "mean")

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Trainer's, once per part of a batch that `tokens_per_batch` has cut; ranks exchange gradients at the last."""
        parts, losses = parts_of(inputs), []
        for n, part in enumerate(parts, start=1):
            last = contextlib.nullcontext() if n == len(parts) else self.accelerator.no_sync(model)
            with last:
                losses.append(super().training_step(model, part, num_items_in_batch))
        return torch.stack(losses).sum()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return sum(super(RewardTrainer, self).floating_point_ops(part) for part in parts_of(inputs))

    def compute_loss(  # type: ignore[override]
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The share of this micro-batch in the mean loss of the optimizer step (all of it without `num_items`).

        With `return_outputs` also the rewards, in the order of `inputs`: read them by its `better` and `worse`.
        """
        with activations_on_cpu(self.args.activation_offloading):
            preferences = to_preferences(self._rewards(model, inputs), inputs)
        totals = weights(inputs) if num_items_in_batch is None else num_items_in_batch
        terms = loss_terms(self.loss_terms, preferences, inputs, totals)
        loss = torch.stack([term.weight * value for term, value in zip(self.loss_terms, terms, strict=True)]).sum()
        if model.training:
            self.window.add(preferences, terms)
        return (loss, {"rewards": preferences.rewards}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the training metrics of the window that ends here to Trainer's own (loss, grad_norm, learning_rate)."""
        if "loss" in logs:
            logs.update(self.window.read(self.accelerator))
        super().log(logs, start_time)

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
            for part in parts_of(inputs):
                with torch.no_grad(), self.compute_loss_context_manager():
                    rewards = self._rewards(model, self._prepare_inputs(part))
                found += items_with_rewards(part, rewards.cpu().numpy())
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


def choose_layout(model: Any, args: RewardConfig, data_collator: Any) -> tuple[str, str]:
    """(layout, why) for a model as it will be trained. Raises UserError for one that cannot be."""
    if data_collator is not None and args.layout not in ("auto", "padded"):
        raise UserError(f"scoring.layout={args.layout} does not go with a data_collator of your own; leave one out")
    if data_collator is not None:
        return "padded", "the data_collator that was given makes the batches"
    if args.torch_compile and args.layout == "auto":
        return "padded", "torch.compile wants shapes that repeat"
    if args.neftune_noise_alpha is not None:
        if args.layout not in ("auto", "padded"):
            raise UserError(f"scoring.layout={args.layout} does not go with NEFTune, whose noise is that of a row")
        return "padded", "NEFTune scales its noise by the length of a row"
    return choose(model, args.layout)


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
