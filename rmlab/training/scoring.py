"""What of a trainer gives rewards: batches scored in the layout of the run, and data sets ready to be batched."""

from typing import cast

from datasets import Dataset, IterableDataset
from torch import Tensor, nn

from rmlab.data import Tokenizer
from rmlab.data.trees import TokenTree, Trees
from rmlab.heads import Head
from rmlab.losses import Preferences, Term, reads_logps
from rmlab.messages import UserError
from rmlab.metrics.scored import ScoredComparison
from rmlab.model.head import base_of
from rmlab.scoring.batch import Batch, parts_of
from rmlab.scoring.collator import PreferenceCollator
from rmlab.scoring.contexts import evaluating
from rmlab.scoring.feature_cache import FeatureCache
from rmlab.scoring.proof import rows_to_prove
from rmlab.scoring.scorer import Scorer
from rmlab.training import prepare
from rmlab.training.checkpoints import SavingTrainer
from rmlab.training.reference import References


class ScoringTrainer(SavingTrainer):
    """Trainer with a scorer, and what its loss reads besides rewards."""

    scorer: Scorer
    head: Head | None
    loss_terms: list[Term]
    features: FeatureCache
    references: References

    @property
    def layout(self) -> str:
        """How tokens are laid out for the model: shared_prefix, packed or padded."""
        return self.scorer.layout

    def _preferences(self, batch: Batch, model: nn.Module | None = None) -> Preferences:
        """A (micro-)batch as losses see it; None: scored by the model that is trained, as training computes."""
        if model is not None:
            outputs, columns = self._outputs(model, batch)
            return batch.preferences(outputs, self.head, **columns)
        self.model_wrapped.train()  # as Trainer says only before the step itself: dropout, and the noise of a head
        if callable(train := getattr(self.optimizer, "train", None)):  # of weights that are others in evaluation
            train()
        with self.compute_loss_context_manager():
            return self._preferences(batch, self.model_wrapped)

    def _outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(R, D) what the head returns for a (micro-)batch; and `logps` (R,) by name where the loss reads them."""
        if not self.scorer.is_proved:  # a sharded model, which only runs wrapped, or somebody's own data loader
            sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
            self._prove(model if sharded else self.accelerator.unwrap_model(model), batch)
        outputs = self.scorer(model, batch)
        if not reads_logps(self.loss_terms):
            return outputs, {}
        return outputs[:, :-1], {"logps": outputs[:, -1]}

    def _scored_part(self, model: nn.Module, part: Batch) -> list[ScoredComparison]:
        """Its comparisons with their rewards."""
        outputs, columns = self._outputs(model, part)
        return part.scored(outputs, self.head, **columns)

    def _reads(self, name: str) -> bool:
        """Whether a term of the loss reads what a run supplies by that name."""
        return any(name in term.built_in for term in self.loss_terms)

    def _prove_layout(self, dataset: Trees | None) -> None:
        """Once, before accelerate wraps the model.

        Sharded models are proved on the first batch: before they are wrapped, no rank holds a model that runs.
        """
        if self.scorer.is_proved or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return
        rows = [] if dataset is None else rows_to_prove(dataset, self.args.per_device_train_batch_size)
        if not rows and isinstance(dataset, IterableDataset):
            raise UserError("the stream holds no comparison; its rows were all dropped, or it has none")
        if rows:
            collator = self.scorer.collator
            batch = collator.to_prove(rows) if isinstance(collator, PreferenceCollator) else parts_of(collator(rows))[0]
            self._prove(self.model, batch.to(self.args.device))

    def _prove(self, model: nn.Module, batch: Batch) -> None:
        autocast = self.accelerator.autocast if self.accelerator.mixed_precision != "no" else None
        self.scorer.prove(model, batch, self.is_world_process_zero(), autocast)

    @property
    def _tokenizer(self) -> Tokenizer:
        return cast(Tokenizer, self.processing_class)

    def _ready(self, dataset: Trees | None) -> Trees | None:
        """The set to make batches of: its layout proved, and with what frozen layers make of it, where some are."""
        model = base_of(self.accelerator.unwrap_model(self.model))
        prepare.check_fits(dataset, model, self.args.options.max_length)
        self._prove_layout(dataset)
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if self._reads("reference_logps") and dataset is not None:
            return self._with_reference(dataset, sharded)
        if sharded or self.layout == "padded" or not isinstance(dataset, Dataset) or not len(dataset):
            return dataset
        return self.features.add_to(dataset, model, self.scorer.collator, self.accelerator)

    def _with_reference(self, dataset: Trees, sharded: bool) -> Trees:
        """The set with the log-probabilities of before training; without, where it first comes when that is past."""
        if self.state.global_step and not self.references.know(dataset):
            return dataset
        if sharded:
            raise UserError("the loss reads reference_logps, which a sharded model has none of before it is wrapped")

        def scored(trees: list[TokenTree]) -> list[ScoredComparison]:
            return self._scored_part(self.model, self.scorer.collator.batch(trees).to(self.args.device))

        with evaluating(self.model), self.compute_loss_context_manager():
            return self.references.add_to(dataset, scored)
