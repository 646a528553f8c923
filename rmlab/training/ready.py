"""All that RewardTrainer needs before transformers' Trainer is constructed, from what users give it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, set_seed

from rmlab.data import Tokenizer
from rmlab.data.sets import Sets
from rmlab.losses import Term, columns_read, reads_logps
from rmlab.messages import UserError
from rmlab.model.head import base_of, head_of, names_of
from rmlab.model.lm_head import keep_lm_head
from rmlab.model.positions import taken_by, tell_shorter
from rmlab.scoring.scorer import Scorer
from rmlab.training.config import RewardConfig
from rmlab.training.loss import prepare_loss
from rmlab.training.prepare import (
    build_collator,
    check_arguments,
    choose_layout,
    load_if_named,
    prepare_model,
    prepare_sets,
    prepare_tokenizer,
    refuse_foreign_optimizer,
)


@dataclass(frozen=True)
class Ready:
    """A model to train, its data, its loss, and how its rewards are computed."""

    model: PreTrainedModel | PeftModel
    tokenizer: Tokenizer
    sets: Sets
    loss: list[Term]
    set_losses: dict[str, list[Term]]  # by evaluation set: TRL's margin is there where a set's own rows have one
    scorer: Scorer

    @classmethod
    def of(
        cls,
        model: PreTrainedModel | PeftModel | str | None,
        args: RewardConfig,
        sets: Sets,
        tokenizer: Tokenizer | None,
        collator: Callable[[list[Any]], Any] | None,
        optimizer: Any,
        quantization: Any,
        peft_config: PeftConfig | Mapping[str, Any] | None,
        loss: Mapping[str, Any] | Sequence[Term] | None,
    ) -> "Ready":
        """From the arguments of RewardTrainer. UserError for what cannot be trained so."""
        check_arguments(args, sets.train)
        model = load_if_named(model, args, quantization)
        tokenizer = prepare_tokenizer(tokenizer, model, args)
        outputs = names_of(head_of(model))
        terms = prepare_loss(loss, args, sets.train, outputs)
        args.reads = tuple((column.name, column.kind) for column in columns_read(terms))
        of_sets = {name: prepare_loss(loss, args, dataset, outputs) for name, dataset in sets.eval.items()}
        set_seed(args.seed)  # of an adapter's weights
        model = prepare_model(model, args, tokenizer, peft_config)
        refuse_foreign_optimizer(optimizer, model)
        args.model_takes = taken_by(base_of(model).config.get_text_config().to_dict())
        tell_shorter(args.max_length, args.model_takes, "the model")
        sets = prepare_sets(sets, tokenizer, args)
        logps = reads_logps(terms)
        if logps and collator is not None and not getattr(collator, "logps", False):
            raise UserError(
                "the loss reads logps, which the data_collator does not ask for; leave it out, or make it a "
                "PreferenceCollator with logps=True"
            )
        if logps:
            keep_lm_head(model)
        choice = choose_layout(model, args, collator is not None, logps)
        makes_batches = collator or build_collator(model, args, tokenizer, choice.layout, terms)
        scorer = Scorer(choice, makes_batches, strict=args.layout != "auto")
        return cls(model, tokenizer, sets, terms, of_sets, scorer)
