"""A model kept as its changes: as good as whole where its base is the same, and refused where it is not."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import make_model
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification

from rmlab import reward_function, whole_model
from rmlab.data.tokenizer import build_tokenizer
from rmlab.messages import UserError
from rmlab.model.adapters import apply_peft
from rmlab.model.config import ModelConfig
from rmlab.model.export import export
from rmlab.model.layers import freeze
from rmlab.model.load import load_model

WIDE = {"qwen3": {"intermediate_size": 512}, "bert": {"intermediate_size": 512}, "gpt2": {"n_inner": 512}}
TEXTS = (["Name a river. ", "What is bread? "], ["The Danube.", "Flour and water, baked."])


def make_base(place, kind="qwen3", seed=0):
    """The folder of a model without a head for rewards, and a tokenizer."""
    model = make_model(kind, seed=seed, **WIDE[kind])
    getattr(model, model.base_model_prefix).save_pretrained(place)
    build_tokenizer().save_pretrained(place)
    return str(place)


def trained(config, last_layers=0):
    """Loaded, frozen but for its head and last layers, and what is left moved as training would."""
    model = load_model(config, seed=1)
    freeze(model, last_layers)
    draw = torch.Generator().manual_seed(2)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data += torch.randn(parameter.shape, generator=draw).to(parameter.dtype) / 10
    return model


def export_both(model, place):
    """(the folder of its changes, that of it whole)."""
    folders = place / "changes" / "model", place / "whole" / "model"
    for folder in folders:
        export(model, build_tokenizer(), folder, changes=folder == folders[0])
    return folders


def size(folder):
    return sum(f.stat().st_size for f in folder.rglob("*") if f.suffix == ".safetensors")


def assert_same_weights(one, other):
    loaded = [load_model(ModelConfig(path=str(folder), dtype="auto"), seed=0).state_dict() for folder in (one, other)]
    assert loaded[0].keys() == loaded[1].keys()
    for name, tensor in loaded[0].items():
        assert torch.equal(tensor, loaded[1][name]), name


@pytest.mark.parametrize(("kind", "layers"), [("qwen3", 0), ("qwen3", 1), ("bert", 0), ("gpt2", 0)])
def test_changes_load_as_the_whole_model(kind, layers, tmp_path):
    """Of BERT the pooler is new as well."""
    config = ModelConfig(path=make_base(tmp_path / "base", kind))
    changes, whole = export_both(trained(config, layers), tmp_path)
    assert size(changes) < size(whole) / (2 if layers else 8)
    assert_same_weights(changes, whole)
    rewards = [reward_function(str(folder))(*TEXTS) for folder in (changes, whole)]
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-6)
    assert rewards[0][0] != pytest.approx(rewards[0][1], abs=1e-3)


def test_a_relative_base_is_found_from_another_folder(tmp_path, monkeypatch):
    make_base(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    changes, whole = export_both(trained(ModelConfig(path="base")), tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert_same_weights(changes, whole)


def test_a_base_of_the_hub_is_named(tmp_path, monkeypatch):
    """A repository as the hub's cache holds it."""
    cached = tmp_path / "hub" / "models--them--base"
    make_base(cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(huggingface_hub.constants, name, str(tmp_path / "hub"))
    changes, whole = export_both(trained(ModelConfig(path="them/base", revision="main")), tmp_path)
    about = json.loads((changes / "base.json").read_text())
    assert (about["path"], about["revision"]) == ("them/base", "main")
    assert_same_weights(changes, whole)


def test_a_head_of_fp32_on_a_body_of_16_bits_is_kept_exactly(tmp_path):
    """Which a whole model loaded in its one dtype is not."""
    model = trained(ModelConfig(path=make_base(tmp_path / "base"), dtype="bfloat16"))
    model.score.float()
    model.score.weight.data += 1e-4
    changes, _ = export_both(model, tmp_path)
    loaded = load_model(ModelConfig(path=str(changes), dtype="auto"), seed=0)
    assert torch.equal(loaded.score.weight, model.score.weight)
    assert loaded.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert load_model(ModelConfig(path=str(changes)), seed=0).dtype == torch.float32


def test_embeddings_that_have_grown_are_changes(tmp_path):
    model = trained(ModelConfig(path=make_base(tmp_path / "base")))
    model.resize_token_embeddings(800, mean_resizing=False)
    assert_same_weights(*export_both(model, tmp_path))


# ---- bases that are not what they were ----


def test_another_base_is_refused(tmp_path):
    changes, _ = export_both(trained(ModelConfig(path=make_base(tmp_path / "base"))), tmp_path)
    make_base(tmp_path / "base", seed=5)
    with pytest.raises(UserError, match=r"trained on the base model .*/base, whose weights are other ones now"):
        load_model(ModelConfig(path=str(changes)), seed=0)


def test_a_base_that_is_gone_is_named_before_anything_loads(tmp_path):
    changes, _ = export_both(trained(ModelConfig(path=make_base(tmp_path / "base"))), tmp_path)
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"/base, which is not there; put it there, or write its place into base.json"):
        ModelConfig(path=str(changes)).check(64)
    about = json.loads((changes / "base.json").read_text())
    (changes / "base.json").write_text(json.dumps({**about, "path": str(tmp_path / "moved")}))
    ModelConfig(path=str(changes)).check(64)
    load_model(ModelConfig(path=str(changes)), seed=0)


@pytest.mark.parametrize("harm", ["base.json", "changes.safetensors"])
def test_a_damaged_folder_is_one_sentence(harm, tmp_path):
    changes, _ = export_both(trained(ModelConfig(path=make_base(tmp_path / "base"))), tmp_path)
    if harm == "base.json":
        (changes / harm).write_text('{"path": "x"}')
    else:
        (changes / harm).write_bytes((changes / harm).read_bytes()[:-8])
    with pytest.raises(UserError, match="model"):
        load_model(ModelConfig(path=str(changes)), seed=0)


# ---- whole models ----


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda base: make_model(), "its weights are not those of a base model that could be named"),
        (lambda base: load_model(ModelConfig(path=base), 0), "100% of it was trained"),
    ],
)
def test_what_changes_would_not_save_is_whole_and_said_to_be(model, why, tmp_path, capsys):
    place = tmp_path / "out" / "model"
    export(model(make_base(tmp_path / "base")), build_tokenizer(), place, changes=True)
    assert f"is a whole model: {why}" in capsys.readouterr().out
    AutoModelForSequenceClassification.from_pretrained(place)


def test_plain_transformers_gets_a_whole_model_on_request_and_no_half_one(tmp_path):
    changes, whole = export_both(trained(ModelConfig(path=make_base(tmp_path / "base"))), tmp_path)
    with pytest.raises(OSError, match="no file named model"):
        AutoModelForSequenceClassification.from_pretrained(changes)
    assert "whole_model(" in (changes / "README.md").read_text()
    whole_model(str(changes), tmp_path / "made")
    assert {f.name for f in (tmp_path / "made").iterdir()} == {f.name for f in whole.iterdir()}
    made, known = (
        AutoModelForSequenceClassification.from_pretrained(f).state_dict() for f in (tmp_path / "made", whole)
    )
    assert all(torch.equal(made[name], known[name]) for name in known)
    shutil.rmtree(tmp_path / "base")
    assert reward_function(str(tmp_path / "made"))(*TEXTS) == pytest.approx(reward_function(str(whole))(*TEXTS))


def test_of_an_adapter_the_adapter_is_kept_and_can_be_made_whole(tmp_path):
    model = load_model(ModelConfig(path=make_base(tmp_path / "base")), seed=1)
    adapted = apply_peft(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    changes, whole = export_both(adapted, tmp_path)
    assert not changes.exists()
    whole_model(str(changes.with_name("adapter")), tmp_path / "made")
    made, known = (reward_function(str(f))(*TEXTS) for f in (tmp_path / "made", whole))
    assert made == pytest.approx(known, abs=1e-5)
    assert not (tmp_path / "adapter").exists()


def test_what_is_trained_on_from_changes_points_to_the_first_base(tmp_path):
    base = make_base(tmp_path / "base")
    first, _ = export_both(trained(ModelConfig(path=base), last_layers=1), tmp_path / "first")
    second, whole = export_both(trained(ModelConfig(path=str(first))), tmp_path / "second")
    shutil.rmtree(first)
    assert Path(json.loads((second / "base.json").read_text())["path"]) == Path(base)
    assert_same_weights(second, whole)


def test_an_arm_on_a_real_encoder_takes_a_fraction_of_the_disk(minilm, tmp_path):
    """22M parameters, a trained head: its 385 numbers instead of 90 MB."""
    changes, whole = export_both(trained(ModelConfig(path=minilm)), tmp_path)
    assert size(whole) > 80e6
    assert size(changes) < 2e3
    assert reward_function(str(changes))(*TEXTS) == pytest.approx(reward_function(str(whole))(*TEXTS), abs=1e-6)
