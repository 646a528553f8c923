"""All that RewardTrainer needs before transformers' Trainer is constructed, from what users give it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, set_seed

from rmlab.data import Tokenizer
from rmlab.data.sets import Sets
from rmlab.losses import Term
from rmlab.scoring.scorer import Scorer
from rmlab.training.config import RewardConfig
from rmlab.training.prepare import (
    build_collator,
    check_arguments,
    choose_layout,
    load_if_named,
    prepare_loss,
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
        terms = prepare_loss(loss, args, sets.train)
        set_seed(args.seed)  # of an adapter's weights
        model = prepare_model(model, args, tokenizer, peft_config)
        refuse_foreign_optimizer(optimizer, model)
        sets = prepare_sets(sets, tokenizer, args)
        choice = choose_layout(model, args, own_collator=collator is not None)
        makes_batches = collator or build_collator(model, args, tokenizer, choice.layout)
        return cls(model, tokenizer, sets, terms, Scorer(choice, makes_batches, strict=args.layout != "auto"))
