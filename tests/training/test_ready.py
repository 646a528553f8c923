"""A trainer that is ready: its layout proved, its sets compared, its loss given once."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from conftest import kwise_rows, make_model, make_pairs, trainer_for, tree_of

from rmlab import RewardConfig, UserError
from rmlab.losses import build_loss
from rmlab.scoring.collator import PreferenceCollator
from rmlab.scoring.layout import Choice
from rmlab.scoring.scorer import Scorer


def test_the_proof_sees_several_comparisons_also_under_a_token_budget(tokenizer, tmp_path, monkeypatch):
    """And the longest last, where a place in the flat row that is wrong would show."""
    seen = []
    monkeypatch.setattr(Scorer, "prove", lambda self, model, batch, *rest: seen.append(batch))
    trainer = trainer_for(make_model(), tokenizer, tmp_path, kwise_rows(12), tokens_per_batch=60)
    trainer.get_train_dataloader()
    (batch,) = seen
    assert len(batch) >= 2
    lengths = [max(c.lengths) for c in batch.comparisons]
    assert batch.comparisons[-1].index == int(np.argmax(trainer.train_dataset["length"])), lengths


def test_vectors_alone_are_not_proved_again():
    """The first batch of a sharded head-only probe has no tokens."""
    collator = PreferenceCollator(0, layout="shared_prefix")
    scorer = Scorer(Choice("shared_prefix", "for the test"), collator, strict=True)
    batch = collator.batch([replace(tree_of([[5, 6], [5, 7]]), response_vectors=torch.zeros(2, 4))])
    scorer.prove(make_model(), batch, tell=False)
    assert scorer.is_proved
    assert scorer.layout == "shared_prefix"


def test_a_prepared_set_is_compared_with_other_training_prompts(tokenizer, tmp_path):
    pairs = make_pairs(8)
    first = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8, seed=5), pairs, prompt_overlap="allow")
    with pytest.raises(UserError, match="are on prompts of the training set"):
        trainer_for(make_model(), tokenizer, tmp_path, pairs, first.eval_dataset)


def test_terms_and_a_centering_coefficient_are_not_both_taken(tokenizer, tmp_path):
    terms = build_loss({"bradley_terry": {"margin": 0.0}})
    with pytest.raises(UserError, match="not center_rewards_coefficient"):
        trainer_for(make_model(), tokenizer, tmp_path, loss=terms, center_rewards_coefficient=0.1)
    with pytest.raises(UserError, match="at least one"):
        trainer_for(make_model(), tokenizer, tmp_path, loss=[])


def test_a_subclass_of_the_config_has_its_own_post_init(tmp_path):
    @dataclass
    class Mine(RewardConfig):
        mine: int = 3

        def __post_init__(self):
            super().__post_init__()
            self.mine += 1

    assert Mine(output_dir=str(tmp_path), report_to="none", use_cpu=True).mine == 4
