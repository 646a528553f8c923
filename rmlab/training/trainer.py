"""RewardTrainer: transformers.Trainer for reward models. It scores, reduces the loss and collects rewards; no more."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from accelerate.utils import DistributedType
from datasets import IterableDataset
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from rmlab.data import Tokenizer
from rmlab.data.sets import Sets
from rmlab.data.trees import Trees
from rmlab.losses import Term
from rmlab.losses.reduce import term_means, weighted_sum
from rmlab.metrics.running import RunningMetrics
from rmlab.metrics.scored import ScoredComparison
from rmlab.metrics.set_loss import set_loss
from rmlab.model.head import base_of, head_of, names_of
from rmlab.model.load import tag
from rmlab.scoring.batch import parts_of
from rmlab.scoring.feature_cache import FeatureCache
from rmlab.training import prepare
from rmlab.training.checkpoints import callbacks_of, checkpoint_to_resume
from rmlab.training.config import RewardConfig
from rmlab.training.contexts import activations_on_cpu, every_comparison_once, with_attributes
from rmlab.training.embedding_gradients import embedding_gradients_in_place
from rmlab.training.evaluation import Evaluation, RewardOutput, refuse_divergence
from rmlab.training.loss import prepare_loss
from rmlab.training.prepare import AnyDataset
from rmlab.training.ready import Ready
from rmlab.training.reference import References
from rmlab.training.sampling import seeded
from rmlab.training.scoring import ScoringTrainer
from rmlab.training.whole_step import with_shares


class RewardTrainer(ScoringTrainer):
    """Drop-in for TRL's RewardTrainer, old and new API; see docs/data.md for the row formats.

    Args:
        model: a sequence-classification model with num_labels=1, or a name or folder to load one from.
        args: a RewardConfig.
        train_dataset, eval_dataset: rows in any accepted format, or token trees; eval_dataset may be a dict of sets.
        processing_class: the tokenizer (`tokenizer=` in older scripts); by default the model's own.
        peft_config: any `peft` config; the score head is trained and saved without being asked for.
        loss: `{term: {weight, **options}}` as in conf/loss, or terms that `build_loss` made; by default Bradley-Terry
            with the rows' `margin` column if they have one, as in TRL.

    `evaluations[NAME]` is the last evaluation of each set. Raises UserError for unusable models, rows and options.
    """

    _tag_names = ("rmlab", "reward-trainer")
    loss_is_scaled_for_ga = True  # compute_loss divides by the pairs of the whole optimizer step itself

    def __init__(
        self,
        model: PreTrainedModel | PeftModel | str | None = None,
        args: RewardConfig | TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: AnyDataset | None = None,
        eval_dataset: AnyDataset | dict[str, AnyDataset] | None = None,
        processing_class: Tokenizer | None = None,
        compute_metrics: Callable[..., dict[str, Any]] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[..., Any] | None = None,
        quantization_config: Any = None,
        peft_config: PeftConfig | Mapping[str, Any] | None = None,
        *,
        tokenizer: Tokenizer | None = None,
        loss: Mapping[str, Any] | Sequence[Term] | None = None,
        max_length: int | None = None,
        **trainer_options: Any,
    ) -> None:
        prepare.refuse_uncalled(preprocess_logits_for_metrics=preprocess_logits_for_metrics, **trainer_options)
        args = prepare.as_reward_config(args, max_length)
        self._loss, tokenizer = loss, processing_class if processing_class is not None else tokenizer
        sets, optimizer = Sets(train_dataset, prepare.named_sets(eval_dataset)), optimizers[0]
        ready = Ready.of(model, args, sets, tokenizer, data_collator, optimizer, quantization_config, peft_config, loss)
        self.loss_terms, self.set_losses, self.scorer = ready.loss, ready.set_losses, ready.scorer
        self.head = head_of(ready.model)
        self.features = FeatureCache(args.cache_dir, args.feature_cache_gb)
        self.references = References()
        self.running = RunningMetrics(self.loss_terms)
        self.evaluations: dict[str, Evaluation] = {}
        self._scored: list[ScoredComparison] = []  # of the evaluation that is under way, on this rank
        self.resumed_from: str | bool | None = None
        super().__init__(
            model=ready.model,
            args=args,
            data_collator=ready.scorer.collator,
            train_dataset=ready.sets.train,
            eval_dataset=ready.sets.eval if isinstance(eval_dataset, dict) else ready.sets.eval.get("eval"),
            processing_class=cast(PreTrainedTokenizerBase, ready.tokenizer),
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            **trainer_options,
        )
        self.model_accepts_loss_kwargs = True  # what older versions ask before they divide the loss by micro-batches
        tag(self.model, self._tag_names)
        for callback in callbacks_of(self):
            self.add_callback(callback)

    # ---- training ----

    def train(self, resume_from_checkpoint: str | bool | None = None, *arguments: Any, **options: Any) -> TrainOutput:
        """Trainer's, resumed only from a whole checkpoint, for True the last of those.

        Embedding gradients are summed in place where a step has several micro-batches.
        """
        self.resumed_from = checkpoint_to_resume(self, resume_from_checkpoint)
        if self._reads("reference_logps"):  # computed while the weights are those of before training
            evaluated = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"eval": self.eval_dataset}
            for dataset in (self.train_dataset, *evaluated.values()):
                self._ready(dataset)
        several = self.args.tokens_per_batch is not None or self.args.gradient_accumulation_steps > 1
        alone = self.accelerator.distributed_type == DistributedType.NO and not self.args.torch_compile
        in_place = embedding_gradients_in_place(base_of(self.model)) if several and alone else contextlib.nullcontext()
        with in_place:
            return super().train(self.resumed_from, *arguments, **options)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Trainer's, of comparisons with what frozen layers make of them; a stream is read again when it ends.

        It is one pass for Trainer then, whose steps all have their batches, and a resumed run finds its place.
        """
        ready = self._ready(self.train_dataset)
        with with_attributes(self, train_dataset=ready.repeat(None) if isinstance(ready, IterableDataset) else ready):
            return super().get_train_dataloader()

    def _get_train_sampler(self, *arguments: Any) -> Any:
        """Trainer's, its order decided by the seed and the epoch."""
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return seeded(super()._get_train_sampler(*arguments), seed)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The batches of an optimizer step, and the (3,) weight of all that is in them, over all ranks, see Weights.

        Divided by the number of ranks, whose gradients are averaged: a sum of losses over this is the exact mean.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.running.steps += bool(batches)  # there are none at the end of somebody's own data loader
        totals = torch.zeros(3, device=device)
        for inputs in batches:
            totals += sum(part.weights.totals().to(device) for part in parts_of(inputs))
        batches = with_shares(batches, self.loss_terms, self._preferences, self.head, self.accelerator)
        return batches, self.accelerator.reduce(totals, "mean")

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Trainer's, once per part of a batch that `tokens_per_batch` has cut; ranks exchange gradients at the last."""
        parts, losses = parts_of(inputs), []
        for n, part in enumerate(parts, start=1):
            last = contextlib.nullcontext() if n == len(parts) else self.accelerator.no_sync(model)
            with last:
                losses.append(super().training_step(model, cast(Any, part), num_items_in_batch))
        return torch.stack(losses).sum()

    def floating_point_ops(self, inputs: Any) -> int:
        """Trainer's, summed over the micro-batches."""
        whole = super().floating_point_ops
        return sum(whole(cast(Any, part)) for part in parts_of(inputs))

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor | tuple[Tensor, RewardOutput]:
        """The share of this micro-batch in the mean loss of the optimizer step (all of it without `num_items`).

        With `return_outputs` also its rewards, see RewardOutput.
        """
        (batch,) = parts_of(inputs)
        with activations_on_cpu(self.args.activation_offloading):
            preferences = self._preferences(batch, model)
        totals = batch.weights.totals() if num_items_in_batch is None else num_items_in_batch
        means = term_means(self.loss_terms, preferences, batch.weights, totals, batch.shares)
        if model.training:
            self.running.add(preferences, means)
        loss = weighted_sum(self.loss_terms, means)
        return (loss, RewardOutput.of(preferences)) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the training metrics since the last log to Trainer's own (loss, grad_norm, learning_rate).

        UserError where training has diverged: no later step would bring it back.
        """
        if "loss" in logs:
            refuse_divergence(logs["loss"], self.state.global_step)
            logs.update(self.running.read(self.accelerator))
        super().log(logs, start_time)

    # ---- evaluation ----

    def get_eval_dataloader(self, eval_dataset: AnyDataset | str | None = None) -> DataLoader[Any]:
        """Trainer's, of every comparison once. Rows given here are tokenised, and refused on training prompts."""
        if isinstance(eval_dataset, str):
            sets = cast(dict[str, Trees], self.eval_dataset)
            ready = self._ready(sets[eval_dataset])
            with (
                with_attributes(self, eval_dataset={**sets, eval_dataset: ready}),
                every_comparison_once(self.args, ready),
            ):
                return super().get_eval_dataloader(eval_dataset)
        if eval_dataset is not None:
            if not prepare.is_prepared(eval_dataset):
                self.set_losses["eval"] = prepare_loss(self._loss, self.args, eval_dataset, names_of(self.head))
            trees = prepare.prepare_eval(eval_dataset, self.train_dataset, self._tokenizer, self.args, "eval")
            return self.get_test_dataloader(trees)  # as Trainer's, but never one that it has kept of another set
        ready = self._ready(self.eval_dataset)
        with every_comparison_once(self.args, ready):
            return super().get_eval_dataloader(ready)

    def get_test_dataloader(self, test_dataset: AnyDataset) -> DataLoader[Any]:
        """Trainer's, of every comparison once; rows in any accepted format."""
        ready = self._ready(prepare.prepare_set(test_dataset, self._tokenizer, self.args, "test", complete=False))
        with every_comparison_once(self.args, ready):
            return super().get_test_dataloader(cast(Any, ready))

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, None, None]:
        """Keep the comparisons of a batch with their rewards; Trainer's loop has nothing to gather."""
        for part in parts_of(self._prepare_inputs(inputs)):
            with torch.no_grad(), self.compute_loss_context_manager():
                self._scored += self._scored_part(model, part)
        return None, None, None

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Score every comparison once, and measure them; see `Evaluation.output` for what is returned."""
        self._scored = []
        super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        name = metric_key_prefix.removeprefix("eval").removeprefix("_") or "eval"
        evaluation = self.evaluations[name] = Evaluation.of(self._scored, metric_key_prefix)
        terms = self.set_losses.get(name, self.loss_terms)
        loss = set_loss(terms, evaluation.comparisons, self.args.pair_weighting)
        last = {"compute_result": True} if self.args.batch_eval_metrics else {}
        return evaluation.output(loss, metric_key_prefix, self.compute_metrics, **last)
