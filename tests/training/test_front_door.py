"""RewardTrainer as scripts call it: TRL's arguments, adapters, optimizers; and what is refused before training."""

import copy
import json

import pytest
import torch
from conftest import make_model, make_pairs, rewards_of, trainer_for
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForSequenceClassification, HfArgumentParser, TrainerCallback

import rmlab
from rmlab import RewardConfig, RewardTrainer, UserError
from rmlab.data.tokenizer import build_tokenizer
from rmlab.model.export import export

LORA = {"r": 4, "target_modules": "all-linear"}


def arguments(tmp_path, **options):
    return RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, save_strategy="no", **options)


@pytest.fixture
def saved(tokenizer, tmp_path):
    """A base model on disk, and an adapter trained on it: (folder of the base, of the adapter, its rewards)."""
    base, adapter = tmp_path / "base", tmp_path / "out" / "adapter"
    make_model().save_pretrained(base)
    tokenizer.save_pretrained(base)
    trainer = RewardTrainer(
        str(base), arguments(tmp_path, learning_rate=0.01, max_steps=3), train_dataset=make_pairs(12),
        processing_class=tokenizer, peft_config=LoraConfig(**LORA),
    )  # fmt: skip
    trainer.train()
    rewards = rewards_of(trainer, make_pairs(5, seed=3))
    export(trainer.model, tokenizer, tmp_path / "out" / "model")
    return base, adapter, rewards


# ---- adapters and optimizers ----


def test_the_folder_of_an_adapter_is_trained_on(saved, tokenizer, tmp_path):
    _, adapter, rewards = saved
    trainer = RewardTrainer(
        str(adapter), arguments(tmp_path, learning_rate=0.01, max_steps=2), train_dataset=make_pairs(12),
        processing_class=tokenizer,
    )  # fmt: skip
    assert isinstance(trainer.model, PeftModel)
    assert torch.allclose(rewards_of(trainer, make_pairs(5, seed=3)), rewards, atol=1e-5)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert any("lora_" in name for name in before)
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert all(not torch.equal(p, after[n]) for n, p in before.items() if "lora_B" in n or "score" in n)


@pytest.mark.parametrize("options", [{"peft_config": LoraConfig(**LORA)}, {"train_last_layers": 1}])
def test_an_optimizer_of_what_is_no_longer_trained_is_refused(options, tokenizer, tmp_path):
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(UserError, match=r"optimizers: \d+ of its \d+ parameters are not trained"):
        trainer_for(model, tokenizer, tmp_path, make_pairs(8), optimizers=(optimizer, None), **options)


def test_an_optimizer_of_what_is_trained_trains(tokenizer, tmp_path):
    model = make_model()
    optimizer = torch.optim.SGD(model.score.parameters(), lr=0.1)
    trainer = trainer_for(model, tokenizer, tmp_path, make_pairs(8), optimizers=(optimizer, None), max_steps=1)
    before = model.score.weight.detach().clone()
    trainer.train()
    assert not torch.equal(model.score.weight, before)


def test_a_pad_token_that_was_added_leaves_the_adapter_fit_for_its_base(tmp_path):
    """A vocabulary without a token to spare: a new one is one beyond the embedding."""
    tokenizer = build_tokenizer()
    base = make_model(vocab_size=len(tokenizer))
    base.save_pretrained(tmp_path / "base")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    trainer = RewardTrainer(
        str(tmp_path / "base"), arguments(tmp_path, learning_rate=0.01, max_steps=3, pad_token="<|one more|>"),
        train_dataset=make_pairs(12), processing_class=tokenizer, peft_config=LoraConfig(**LORA),
    )  # fmt: skip
    assert trainer.model.get_input_embeddings().weight.shape[0] == len(tokenizer) > plain.config.vocab_size
    trainer.train()
    export(trainer.model, tokenizer, tmp_path / "out" / "model")
    loaded = PeftModel.from_pretrained(plain, str(tmp_path / "out" / "adapter")).eval()
    ids = torch.tensor([[5, 6, 7, 2]])
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "model").eval()
    assert loaded(input_ids=ids).logits.item() == pytest.approx(merged(input_ids=ids).logits.item(), abs=1e-5)


def test_a_peft_config_may_be_a_dict(tokenizer, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), peft_config={"peft_type": "LORA", **LORA})
    assert trainer.model.peft_config["default"].r == 4
    with pytest.raises(UserError, match="peft: "):
        trainer_for(make_model(), tokenizer, tmp_path, make_pairs(8), peft_config={"rank": 4})


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


def test_the_first_weights_of_a_new_head_are_a_field(tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_config(make_model().config).save_pretrained(tmp_path / "base")

    def head(how):
        args = arguments(tmp_path, head_init=how, seed=3)
        return RewardTrainer(str(tmp_path / "base"), args, processing_class=copy.deepcopy(tokenizer)).model.score.weight

    assert not head("zero").any()
    assert head("1/(d+1)").std().item() == pytest.approx(1 / 33, rel=0.5)
    assert head("1/sqrt(d+1)").std().item() == pytest.approx(33**-0.5, rel=0.5)


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
    ],
)
def test_an_option_without_effect_is_refused(options, tmp_path):
    with pytest.raises(UserError, match=next(iter(options))):
        arguments(tmp_path, **options)


def test_a_function_that_would_not_be_called_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="preprocess_logits_for_metrics"):
        RewardTrainer(
            make_model(), arguments(tmp_path), processing_class=tokenizer, preprocess_logits_for_metrics=lambda *_: None
        )


def test_token_ids_beyond_the_embedding_are_refused(tokenizer, tmp_path):
    rows = Dataset.from_dict({"chosen_ids": [[5, 767]], "rejected_ids": [[5, 768]]})
    trainer = trainer_for(make_model(), tokenizer, tmp_path, rows)
    with pytest.raises(UserError, match="token id 768 is beyond the 768 embeddings"):
        trainer.train()


def test_rows_beyond_the_positions_are_refused(tokenizer, tmp_path):
    rows = Dataset.from_dict({"chosen_ids": [[5] * 33], "rejected_ids": [[5] * 4]})
    with pytest.raises(UserError, match="is beyond the 32 positions"):
        trainer_for(make_model("gpt2", n_positions=32), tokenizer, tmp_path, rows).train()
    trainer_for(make_model("qwen3", max_position_embeddings=32), tokenizer, tmp_path, rows, max_steps=1).train()


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


# ---- templates ----


def test_a_template_of_another_tokenizer_brings_its_tokens_and_its_eos(tmp_path):
    other = build_tokenizer()
    other.add_special_tokens({"additional_special_tokens": ["<|turn|>"], "eos_token": "<|end|>"})
    other.chat_template = "{% for m in messages %}<|turn|>{{ m['content'] }}<|end|>{% endfor %}"
    other.save_pretrained(tmp_path / "other")
    tokenizer, model = build_tokenizer(), make_model(vocab_size=620)
    rows = Dataset.from_list(
        [{s: [{"role": "user", "content": "q"}, {"role": "assistant", "content": s}] for s in ("chosen", "rejected")}]
        * 4
    )
    trainer = RewardTrainer(
        model, arguments(tmp_path, chat_template_path=str(tmp_path / "other"), max_steps=1), train_dataset=rows,
        processing_class=tokenizer,
    )  # fmt: skip
    assert tokenizer.eos_token == "<|end|>"
    assert model.config.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    tree = trainer.train_dataset[0]
    ids = tree["prefix"] + tree["suffixes"][0]
    assert ids.count(tokenizer.convert_tokens_to_ids("<|turn|>")) == 2
    assert ids[-1] == tokenizer.eos_token_id
    trainer.train()


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


@pytest.mark.parametrize("chat", [False, True])
def test_the_reward_function_gives_what_the_trainer_scored(chat, saved, tokenizer, tmp_path):
    _, adapter, _ = saved
    rows = make_pairs(5, seed=3)
    if chat:

        def said(role, text):
            return [{"role": role, "content": text}]

        rows = Dataset.from_list(
            [
                {"prompt": said("user", r["prompt"]), **{s: said("assistant", r[s]) for s in ("chosen", "rejected")}}
                for r in rows
            ]
        )
    for folder in (tmp_path / "out" / "model", adapter):
        trainer = RewardTrainer(str(folder), arguments(tmp_path), processing_class=copy.deepcopy(tokenizer))
        expected = rewards_of(trainer, rows)
        rewards = rmlab.reward_function(str(folder), batch_size=2)
        for column, side in enumerate(("chosen", "rejected")):
            got = rewards(prompts=rows["prompt"], completions=rows[side], trainer_state=None)
            assert got == pytest.approx(expected[:, column].tolist(), abs=1e-5)
