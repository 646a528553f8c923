"""A head of rmlab on the disk: what plain transformers makes of it, and what rmlab restores."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ARCHITECTURES, ROOT, make_model, make_pairs, trainer_for
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification

from rmlab import RewardModel, RewardTrainer, UserError, whole_model
from rmlab.heads import HEADS
from rmlab.model.adapters import apply_peft
from rmlab.model.config import ModelConfig
from rmlab.model.export import export
from rmlab.model.head import head_of, last_linear, rewards_of
from rmlab.model.head_files import ABOUT, WEIGHTS, config_of
from rmlab.model.load import load_model
from rmlab.scoring.heads import prepare_for_scoring
from rmlab.training.checkpoints import last_whole_checkpoint

OURS = [name for name in HEADS.names() if HEADS[name].__module__.startswith("rmlab.")]
REFUSED = {"mlp", "ordinal", "preference"}
IDS = torch.tensor([[5, 6, 7, 2], [5, 9, 8, 2]])
ROWS = [{"prompt": "q ", "chosen": "yes indeed", "rejected": "no"}, {"prompt": "r ", "chosen": "a b", "rejected": "c"}]


def chosen(kind):
    (options,) = yaml.safe_load((ROOT / "conf" / "model" / "head" / f"{kind}.yaml").read_text()).values()
    return {kind: {**options, **{"mlp": {"width": 8}, "bottleneck": {"latents": 3}}.get(kind, {})}}


def config_for(head, architecture="qwen3"):
    config = {"model_type": architecture, **ARCHITECTURES[architecture], "pad_token_id": 0}
    return ModelConfig(config=config, head=head, head_init=0.5)


def outputs(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.float()


def rewards(model):
    return rewards_of(head_of(model), outputs(model), torch.tensor([0, 0]))


def restored(place, **options):
    return load_model(ModelConfig(str(place), head=None, **options), 0)


@pytest.mark.parametrize("architecture", ["qwen3", "roberta"])
@pytest.mark.parametrize("kind", OURS)
def test_plain_transformers_has_the_same_rewards_or_refuses_and_rmlab_the_whole_head(
    kind, architecture, tokenizer, tmp_path, capsys
):
    model = load_model(config_for(chosen(kind), architecture), 0)
    right, place = outputs(model), tmp_path / "model"
    export(model, tokenizer, place)
    assert torch.equal(outputs(model), right)  # what is in memory stays as it is
    assert (place / ABOUT).exists() == (kind != "linear")
    assert ("plain transformers refuses it" in capsys.readouterr().out) == (kind in REFUSED)
    assert ("Plain transformers refuses it" in (place / "README.md").read_text()) == (kind in REFUSED)
    assert json.loads((place / "config.json").read_text()).get("num_labels", 1) == 1
    if kind in REFUSED:
        with pytest.raises(RuntimeError, match="mismatch"):
            AutoModelForSequenceClassification.from_pretrained(place)
    else:
        plain = AutoModelForSequenceClassification.from_pretrained(place)
        assert torch.allclose(outputs(plain)[:, 0], rewards(model), atol=1e-6, rtol=0)
    again = restored(place)
    assert config_of(again) == chosen(kind)
    assert torch.allclose(outputs(again), right, atol=1e-6, rtol=0)


def test_the_linear_head_is_the_architectures_own_whose_first_weights_are_drawn_as_ever():
    """And nothing else is drawn."""
    model = load_model(config_for({"linear": {}}), 0)
    after = torch.rand(3)
    assert type(model.score) is torch.nn.Linear
    assert "save_pretrained" not in vars(model)
    without = load_model(replace(config_for(None)), 0)
    assert torch.equal(model.score.weight, without.score.weight)
    assert torch.equal(after, torch.rand(3))


def test_what_folds_goes_on_as_linear_and_another_head_begins_anew(tokenizer, tmp_path, capsys):
    model = load_model(config_for(chosen("attributes")), 0)
    export(model, tokenizer, tmp_path / "model")
    linear = load_model(ModelConfig(str(tmp_path / "model"), head={"linear": {}}), 0)
    assert torch.allclose(outputs(linear)[:, 0], rewards(model), atol=1e-6)
    assert type(linear.score) is torch.nn.Linear
    assert "the head `attributes` goes on as one linear layer with the same rewards" in capsys.readouterr().out
    other = load_model(ModelConfig(str(tmp_path / "model"), head=chosen("gaussian"), head_init="zero"), 0)
    assert not outputs(other).any()
    assert "the trained head `attributes` does not fit `gaussian`, which begins anew" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["ties", "bottleneck", "mlp"])
def test_an_adapter_trains_saves_restores_and_merges_a_head(kind, tokenizer, tmp_path):
    """As Trainer saves it, as its files are loaded again, and merged."""
    load_model(config_for({"linear": {}}), 0).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    trainer = trainer_for(
        load_model(ModelConfig(str(tmp_path / "base"), head=chosen(kind)), 0),
        tokenizer,
        tmp_path,
        make_pairs(8),
        learning_rate=1e-2,
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
    )
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if "modules_to_save" in n}
    trainer.train()
    now = dict(trainer.model.named_parameters())
    still = {name for name, weight in before.items() if torch.equal(now[name], weight)}
    assert all(name.endswith(("log_width", "last.bias")) for name in still)  # on which no gap depends
    assert len(before) == len(list(head_of(trainer.model).parameters()))
    right = outputs(trainer.model)
    trainer.save_model(str(tmp_path / "saved"))
    export(trainer.model, tokenizer, tmp_path / "model")
    for place in ("saved", "adapter", "model"):
        again = restored(tmp_path / place)
        assert config_of(again) == chosen(kind), place
        assert torch.allclose(outputs(again), right, atol=1e-5), place
    with pytest.raises(UserError, match=f"is another one; use model/head={kind}"):
        load_model(ModelConfig(str(tmp_path / "adapter")), 0)


@pytest.mark.parametrize("kind", ["two_head", "ordinal"])
def test_changes_hold_the_head_and_are_made_whole(kind, tokenizer, tmp_path):
    load_model(config_for({"linear": {}}), 0).save_pretrained(tmp_path / "base")
    model = load_model(ModelConfig(str(tmp_path / "base"), head=chosen(kind)), 0)
    model.model.requires_grad_(False)
    export(model, tokenizer, tmp_path / "model", changes=True)
    assert (tmp_path / "model" / "changes.safetensors").exists()
    assert torch.equal(outputs(restored(tmp_path / "model")), outputs(model))
    whole_model(str(tmp_path / "model"), str(tmp_path / "whole"))
    assert torch.allclose(outputs(restored(tmp_path / "whole")), outputs(model), atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_checkpoints_resume_with_the_head(frozen, tokenizer, tmp_path):
    """The head as it is trained, whole; and a folder that RewardModel loads, where all weights are in it."""
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 3, "learning_rate": 1e-2, "save_frozen": False}
    options |= {"train_last_layers": 0} if frozen else {}

    def trained(place, resume):
        model = load_model(config_for(chosen("mlp")), 0)
        trainer = trainer_for(model, tokenizer, place, make_pairs(12), **options)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = trained(tmp_path, None)
    checkpoint = last_whole_checkpoint(tmp_path)
    assert checkpoint.endswith("checkpoint-3")
    again = trained(tmp_path / "again", str(tmp_path / "checkpoint-2"))
    assert torch.equal(outputs(again.model), outputs(whole.model))
    if not frozen:
        assert torch.equal(outputs(restored(checkpoint)), outputs(whole.model))
        assert "Its head is as it is trained" in (Path(checkpoint) / "README.md").read_text()


def test_first_weights_of_a_new_head_are_drawn_as_asked(tmp_path):
    model = load_model(config_for(chosen("quantile"), "distilbert"), 0)
    name, layer = last_linear(model)
    assert name == "classifier"
    assert layer.weight.std().item() == pytest.approx(0.5, rel=0.15)
    assert type(model.pre_classifier) is torch.nn.Linear


@pytest.mark.parametrize("kind", ["mlp", "two_head", "bottleneck", "preference"])
def test_heads_are_of_float32_on_a_body_of_16_bits_and_under_autocast(kind, tokenizer, tmp_path):
    model = load_model(replace(config_for(chosen(kind)), dtype="bfloat16"), 0)
    prepare_for_scoring(model)
    hidden = torch.randn(3, 32)
    right = model.score.eval()(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.score(hidden), right)
    export(model, tokenizer, tmp_path)
    again = restored(tmp_path, dtype="bfloat16")
    assert torch.equal(again.score.eval()(hidden), right)
    assert again.model.norm.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda place: (place / WEIGHTS).unlink(), "holds no rmlab_head.weights, which are those of its head"),
        (
            lambda place: (place / ABOUT).write_text('{"kind": "theirs", "options": {}, "names": []}'),
            "has the head `theirs`, which nothing registers here; install the package that does",
        ),
        (lambda place: (place / ABOUT).write_text('{"kind": "ties"}'), "rmlab_head.json is not what was written"),
        (
            lambda place: (place / ABOUT).write_text('{"kind": "gaussian", "options": {}, "names": []}'),
            "rmlab_head.weights is not of this model's head",
        ),
    ],
)
def test_a_damaged_head_is_refused(harm, message, tokenizer, tmp_path):
    export(load_model(config_for(chosen("ties")), 0), tokenizer, tmp_path)
    harm(tmp_path)
    with pytest.raises(UserError, match=message):
        RewardModel(str(tmp_path))


def test_an_adapter_of_another_library_still_has_the_linear_head(tokenizer, tmp_path):
    base = load_model(config_for({"linear": {}}), 0)
    base.save_pretrained(tmp_path / "base")
    model = load_model(ModelConfig(str(tmp_path / "base")), 0)
    apply_peft(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(tmp_path / "adapter"))
    assert not (tmp_path / "adapter" / ABOUT).exists()
    assert config_of(restored(tmp_path / "adapter")) == {"linear": {}}


@pytest.mark.parametrize(
    "write",
    [RewardTrainer.save_model, lambda trainer, place: export(trainer.model, trainer.processing_class, Path(place))],
    ids=["saved", "exported"],
)
def test_a_plain_model_saved_over_another_head_is_not_read_with_it(tokenizer, tmp_path, write):
    """Its weights would be those of the head that was there before."""
    for head in ({"gaussian": {}}, {"linear": {}}):
        trainer = trainer_for(make_model(), tokenizer, tmp_path, make_pairs(4), head=head)
        write(trainer, str(tmp_path / "model"))
    assert RewardModel(str(tmp_path / "model")).names == ["reward"]
