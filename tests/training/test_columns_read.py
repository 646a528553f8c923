"""Columns of rows on their way to the loss: ratings of several outputs, what rows do not know, sets that lack them."""

import math

import pytest
from conftest import make_model, make_pairs, trainer_for
from datasets import Dataset

from rmlab.data.sets import Rows, Source
from rmlab.messages import UserError
from rmlab.model.config import ModelConfig
from rmlab.model.load import load_model
from rmlab.runner.check import check_outputs
from rmlab.training.prepare import prepare_set

RATINGS = [[[1.0, 2.0], [3.0, None]], None, [[0.5, 0.0], [1.0, 1.5]], [[2.0, 2.0], [0.0, 4.0]]]
LOSS = {"regression": {}}


def rated(ratings=RATINGS):
    return Dataset.from_list([{**row, "ratings": r} for row, r in zip(make_pairs(len(ratings)), ratings, strict=True)])


@pytest.fixture
def model(tmp_path, tokenizer):
    """With an output for each of two attributes."""
    make_model().save_pretrained(tmp_path / "base")
    head = {"attributes": {"names": ["helpful", "brief"], "weights": [1.0, 0.5]}}
    return load_model(ModelConfig(path=str(tmp_path / "base"), head=head), seed=0)


def test_known_ratings_count_and_others_do_not(model, tokenizer, tmp_path):
    """Of 2 x 4 responses with 2 numbers each: the squares of what is known, by 16. Of a set that has none, NaN."""
    trainer = trainer_for(
        model, tokenizer, tmp_path, rated(), {"rated": rated(), "bare": make_pairs(3, seed=4)}, loss=LOSS,
        per_device_train_batch_size=4, max_steps=1, learning_rate=0.0, logging_steps=1, prompt_overlap="allow",
    )  # fmt: skip
    metrics = {}
    for name in ("rated", "bare"):
        metrics |= trainer.evaluate(trainer.eval_dataset[name], metric_key_prefix=f"eval_{name}")
    outputs = {c.index: c.outputs for c in trainer.evaluations["rated"].comparisons}
    expected = sum(
        (outputs[n][k][a] - RATINGS[n][k][a]) ** 2
        for n in (0, 2, 3)
        for k in range(2)
        for a in range(2)
        if RATINGS[n][k][a] is not None
    )
    assert metrics["eval_rated_loss"] == pytest.approx(expected / 16, rel=1e-4)
    assert math.isnan(metrics["eval_bare_loss"])
    assert 0 <= metrics["eval_bare_accuracy"] <= 1
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected / 16, rel=1e-4)
    one = trainer.evaluations["rated"].comparisons[0]
    assert one.rewards == pytest.approx([q + 0.5 * b for q, b in one.outputs], abs=1e-5)


def test_a_training_set_that_lacks_them_is_refused(model, tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"train row 0 .*: the loss reads the column 'ratings'"):
        trainer_for(model, tokenizer, tmp_path, make_pairs(4), loss=LOSS)


def test_what_is_predicted_needs_no_column_of_the_loss_and_trees_of_another_loss_are_refused(
    model, tokenizer, tmp_path
):
    """A column is known by its name: that both have one is not enough."""
    trainer = trainer_for(model, tokenizer, tmp_path, rated([*RATINGS]), loss=LOSS)
    assert trainer.predict(make_pairs(3)).predictions.shape == (3, 2)
    trainer.args.reads = (("cost", "output"),)
    for trees in (trainer.train_dataset, trainer.train_dataset.remove_columns("index")):
        with pytest.raises(UserError, match="train: the loss reads cost, which its token trees were made without"):
            prepare_set(trees, tokenizer, trainer.args, "train")


def test_ratings_that_the_head_has_no_output_for_are_refused_before_a_model_loads():
    rows = Rows([Source("mine", rated([None, *RATINGS]), 1.0)], [])
    check_outputs(rows, (("ratings", "output"),), ModelConfig(head={"gaussian": {}}))
    with pytest.raises(UserError, match=r"mine row 1 .*: ratings holds 2 numbers per response, but model.head has 1 "):
        check_outputs(rows, (("ratings", "output"),), ModelConfig())


@pytest.mark.parametrize("part", ["train", "eval"])
def test_every_set_has_as_many_ratings_as_the_head_has_outputs(part):
    three = Source("other", rated([[[1.0, 2.0, 3.0]] * 2]))
    rows = Rows([Source("mine", rated())], [])
    getattr(rows, part).append(three)
    with pytest.raises(UserError, match=r"other row 0 .*: ratings holds 3 numbers per response, but model.head has 2 "):
        check_outputs(rows, (("ratings", "output"),), ModelConfig(head={"gaussian": {}}))


def test_a_value_that_a_term_refuses_is_named_before_training(tokenizer, tmp_path):
    """Of an evaluation set too, whose loss is computed at the end."""
    grades, rows = [0, 1, 2], make_pairs(3, ratings=[[1.0, 2.0], [0.0, 2.0], [3.0, 1.0]])
    with pytest.raises(
        UserError, match=r"eval row 2 .*: loss\.ordinal_ce: a rating lies outside the grades from 0 to 2"
    ):
        trainer_for(
            make_model(), tokenizer, tmp_path, rows.select([0, 1]), rows, loss={"ordinal_ce": {"grades": grades}},
            head={"ordinal": {"grades": grades}}, prompt_overlap="allow",
        )  # fmt: skip
