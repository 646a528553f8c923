"""RewardTrainer as scripts call it: TRL's arguments; and what is refused before training."""

import copy
import json

import pytest
import torch
from conftest import make_model, make_pairs, trainer_for
from datasets import Dataset
from scripts import arguments
from transformers import AutoModelForSequenceClassification, HfArgumentParser, TrainerCallback

import rmlab
from rmlab import RewardConfig, RewardTrainer, UserError
from rmlab.data.config import Options
from rmlab.data.prepare import tokenize
from rmlab.model.export import export
from rmlab.training.prepare import check_fits

# ---- TRL's names and places ----


class Seen(TrainerCallback):
    steps = 0

    def on_step_end(self, *_, **__):
        self.steps += 1


def test_arguments_by_position_are_those_of_trl(tokenizer, tmp_path):
    trl = pytest.importorskip("trl")
    import inspect

    ours, theirs = (list(inspect.signature(c.__init__).parameters) for c in (RewardTrainer, trl.RewardTrainer))
    assert ours[: len(theirs)] == theirs
    seen, asked = Seen(), []
    trainer = RewardTrainer(
        make_model(), arguments(tmp_path, max_steps=2), None, make_pairs(8), make_pairs(4, seed=3), tokenizer,
        lambda prediction: asked.append(prediction.predictions.shape) or {"mine": 1.0}, [seen],
    )  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_mine"] == 1.0
    assert (seen.steps, asked) == (2, [(4, 2)])


def test_the_config_of_trl_is_taken_for_ours(tokenizer, tmp_path):
    trl = pytest.importorskip("trl")
    theirs = trl.RewardConfig(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, max_length=77, center_rewards_coefficient=0.5,
        learning_rate=0.25, bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = RewardTrainer(make_model(), theirs, train_dataset=make_pairs(4), processing_class=tokenizer)
    assert isinstance(trainer.args, RewardConfig)
    assert (trainer.args.max_length, trainer.args.learning_rate) == (77, 0.25)
    assert [term.weight for term in trainer.loss_terms] == [1.0, 0.5]


def test_model_init_kwargs_may_come_as_json_from_the_command_line(tmp_path):
    (args,) = HfArgumentParser(RewardConfig).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--model_init_kwargs", '{"dtype": "bfloat16"}', "--head_init", "zero"]
    )
    assert (args.model_init_kwargs, args.head_init) == ({"dtype": "bfloat16"}, "zero")
    for wrong in ("dtype=bfloat16", "[1]"):
        with pytest.raises(UserError, match="model_init_kwargs is"):
            arguments(tmp_path, model_init_kwargs=wrong)


def test_the_first_weights_of_a_new_head_are_a_field(tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_config(make_model().config).save_pretrained(tmp_path / "base")

    def head(how):
        args = arguments(tmp_path, head_init=how, seed=3)
        return RewardTrainer(str(tmp_path / "base"), args, processing_class=copy.deepcopy(tokenizer)).model.score.weight

    assert not head("zero").any()
    assert head("1/(d+1)").std().item() == pytest.approx(1 / 33, rel=0.5)
    assert head("1/sqrt(d+1)").std().item() == pytest.approx(33**-0.5, rel=0.5)
    assert head("0.5").std().item() == pytest.approx(0.5, rel=0.5)
    for wrong in ("small", "-1", "nan"):
        with pytest.raises(UserError, match=f"head_init is '{wrong}'; use a number or one of"):
            arguments(tmp_path, head_init=wrong)


def test_a_head_is_a_field_for_models_by_name_and_in_memory(tokenizer, tmp_path):
    """It begins the same; what a loss reads of its outputs is there."""
    make_model().save_pretrained(tmp_path / "base")
    ties = {"ties": {"width": 2.0}}
    args = arguments(tmp_path, head=ties, seed=3)

    def trainer(model, args=args):
        return RewardTrainer(
            model, args, processing_class=copy.deepcopy(tokenizer), loss={"davidson": {"nu": "learned"}}
        )

    named, given = trainer(str(tmp_path / "base")), trainer(make_model())
    assert list(named.head.names) == list(given.head.names) == ["reward", "log_tie_width"]
    assert torch.equal(named.model.score.weight, given.model.score.weight)
    assert trainer(given.model).head is given.head
    with pytest.raises(UserError, match="the model has been made ready with another"):
        trainer(given.model, arguments(tmp_path, head={"gaussian": {}}))
    with pytest.raises(UserError, match=r"loss\.davidson"):
        trainer(make_model(), arguments(tmp_path))
    with pytest.raises(UserError, match=r"model\.head names one head, not ties, mlp"):
        arguments(tmp_path, head={**ties, "mlp": {}})


@pytest.mark.parametrize("name", ["margin", "eval_mean_reward", "eval_min_reward", "max_reward"])
def test_a_metric_by_trls_name_is_refused_with_ours(name, tmp_path):
    with pytest.raises(UserError, match=r"metric_for_best_model: TRL's .* is eval_(gap_mean|reward_mean|reward_m)"):
        arguments(tmp_path, metric_for_best_model=name)


def test_outputs_have_logits_in_trls_order(tokenizer, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(4))
    batch = next(iter(trainer.get_train_dataloader()))
    _, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert outputs.logits.shape == (8, 1)
    chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
    assert torch.equal(chosen, outputs["rewards"][batch.better])
    assert torch.equal(rejected, outputs.rewards[batch.worse])


@pytest.mark.parametrize("name", ["ScriptArguments", "ModelConfig", "get_peft_config"])
def test_what_is_trls_own_says_where_it_is(name):
    with pytest.raises(ImportError, match=f"from trl import {name}"):
        getattr(rmlab, name)


# ---- margins, where only some sets have them ----


@pytest.mark.parametrize("where", ["train", "eval", "late"])
def test_a_margin_counts_in_the_sets_whose_rows_have_one(where, tokenizer, tmp_path):
    """As in TRL, where a batch has a margin or has none."""
    plain, with_margin = make_pairs(6, seed=3), make_pairs(6, seed=3, margin=[2.0] * 6)
    train = make_pairs(8, margin=[0.5] * 8) if where == "train" else make_pairs(8)
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, train, plain if where != "eval" else with_margin, prompt_overlap="allow"
    )
    metrics = trainer.evaluate(with_margin) if where == "late" else trainer.evaluate()
    margin = 0.0 if where == "train" else 2.0
    gaps = torch.tensor([c.rewards[0] - c.rewards[1] for c in trainer.evaluations["eval"].comparisons])
    assert metrics["eval_loss"] == pytest.approx(-torch.nn.functional.logsigmoid(gaps - margin).mean().item(), abs=1e-5)


# ---- the order ----


def test_each_trainer_has_the_order_of_its_own_seed(tokenizer, tmp_path):
    def order(trainer):
        return [c.index for batch in trainer.get_train_dataloader() for c in batch.comparisons]

    both = [trainer_for(make_model(), tokenizer, tmp_path, make_pairs(16), seed=seed) for seed in (1, 2)]
    alone = [order(trainer_for(make_model(), tokenizer, tmp_path, make_pairs(16), seed=seed)) for seed in (1, 2)]
    assert [order(trainer) for trainer in both] == alone
    assert alone[0] != alone[1]


# ---- what would have no effect, or fail in the middle ----


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing_factor": 0.1},
        {"label_names": ["x"]},
        {"prediction_loss_only": True},
        {"include_for_metrics": ["inputs"]},
        {"eval_do_concat_batches": False},
        {"average_tokens_across_devices": False},
        {"eval_accumulation_steps": 2},
        {"eval_use_gather_object": True},
        {"length_column_name": "tokens"},
        {"bf16_full_eval": True},
        {"fp16_full_eval": True},
    ],
)
def test_an_option_without_effect_is_refused(options, tmp_path):
    with pytest.raises(UserError, match=next(iter(options))):
        arguments(tmp_path, **options)


@pytest.mark.parametrize("name", ["preprocess_logits_for_metrics", "compute_loss_func", "model_init"])
def test_a_function_that_would_not_be_called_is_refused(name, tokenizer, tmp_path):
    with pytest.raises(UserError, match=f"{name} is not called"):
        RewardTrainer(make_model(), arguments(tmp_path), processing_class=tokenizer, **{name: lambda *_: None})
    with pytest.raises(TypeError, match="unexpected keyword argument 'los'"):
        RewardTrainer(make_model(), arguments(tmp_path), processing_class=tokenizer, los={})


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_a_launcher_that_shards_the_model_does_not_go_with_tokens_per_batch(kind, tokenizer, tmp_path, monkeypatch):
    """Chosen by `accelerate launch`, so that the arguments do not tell."""
    args = arguments(tmp_path, tokens_per_batch=60)
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(UserError, match=f"(?i)tokens_per_batch does not work with {kind}"):
        RewardTrainer(make_model(), args, processing_class=tokenizer)


def test_token_ids_beyond_the_embedding_are_refused(tokenizer):
    trees = tokenize(make_pairs(4), tokenizer, Options())
    largest = max(max(row["prefix"] + row["suffixes"][0] + row["suffixes"][1]) for row in trees)
    check_fits(trees, make_model(vocab_size=largest + 1), None)
    with pytest.raises(UserError, match=f"token id {largest} is beyond the {largest} embeddings"):
        check_fits(trees, make_model(vocab_size=largest), None)


def test_rows_beyond_the_positions_are_refused(tokenizer, tmp_path):
    rows = Dataset.from_dict({"chosen_ids": [[5] * 33], "rejected_ids": [[5] * 4]})
    with pytest.raises(UserError, match="is beyond the 32 positions"):
        trainer_for(make_model("gpt2", n_positions=32), tokenizer, tmp_path, rows).train()
    trainer_for(make_model("qwen3", max_position_embeddings=32), tokenizer, tmp_path, rows, max_steps=1).train()
    for length in (None, 33):  # of a stream no more is known
        options = {"max_steps": 1, "max_length": length}
        with pytest.raises(UserError, match=f"max_length={length} is beyond the 32 positions"):
            trainer_for(
                make_model("gpt2", n_positions=32), tokenizer, tmp_path, rows.to_iterable_dataset(), **options
            ).train()


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_positions_that_change_with_the_longest_row_are_refused_beyond_their_length(kind, tokenizer, tmp_path):
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
        options = {"max_position_embeddings": 128, "original_max_position_embeddings": 32, "sliding_window": None}
    else:
        options = {"max_position_embeddings": 32}
    model = make_model("phi3" if kind == "longrope" else "qwen3", rope_parameters=rope, **options)
    rows = Dataset.from_dict({"chosen_ids": [[5] * 33], "rejected_ids": [[5] * 4]})
    with pytest.raises(UserError, match=f"is beyond the 32 tokens from which on the {kind} positions"):
        trainer_for(model, tokenizer, tmp_path, rows).train()
    rows = Dataset.from_dict({"chosen_ids": [[5] * 30], "rejected_ids": [[5] * 4]})
    trainer_for(model, tokenizer, tmp_path, rows, max_steps=1).train()


# ---- what is left behind ----


def test_a_checkpoint_has_a_card(tokenizer, tmp_path):
    trainer_for(
        make_model(), tokenizer, tmp_path, make_pairs(8), save_strategy="steps", save_steps=1, max_steps=1
    ).train()
    card = (tmp_path / "checkpoint-1" / "README.md").read_text()
    assert "reward-trainer" in card
    assert json.loads((tmp_path / "checkpoint-1" / "whole").read_text())["files"]["README.md"]


def test_a_16_bit_model_says_what_plain_loading_rounds(tokenizer, tmp_path, capsys):
    model = make_model().to(torch.bfloat16)
    trainer = trainer_for(model, tokenizer, tmp_path)
    export(trainer.model, tokenizer, tmp_path / "model")
    assert "is bfloat16 with a head of float32, which plain from_pretrained rounds" in capsys.readouterr().out
    exact = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert torch.equal(exact.score.weight, trainer.model.score.weight)
