"""The mean of weights: exact, of models of any form, refused where it would be no model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from rmlab import RewardModel, UserError, average_weights
from rmlab.commands import lab
from rmlab.data.tokenizer import build_tokenizer
from rmlab.model.config import ModelConfig
from rmlab.model.export import export
from rmlab.model.load import load_model

ROWS = [{"prompt": "tell me about rivers ", "responses": ["so , in short", "maybe bread"]}]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def members(tmp_path_factory, tokenizer):
    """Folders of three models that began as one, the second in several files."""
    folders = []
    for number in range(3):
        folder = tmp_path_factory.mktemp("member")
        moved(make_model(), number, 0.02).save_pretrained(folder, max_shard_size="40KB" if number == 1 else "1GB")
        tokenizer.save_pretrained(folder)
        folders.append(str(folder))
    return folders


def moved(model, seed, size):
    """A model whose weights have moved by so much in a direction of that seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def weights_of(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder).state_dict()


@pytest.mark.parametrize("copies", [2, 3])
def test_the_mean_of_a_model_and_itself_is_the_model(copies, members, tmp_path):
    average_weights(members[:1] * copies, tmp_path / "mean")
    (found,), (own,) = (
        [load_file(file) for file in sorted(folder.glob("*.safetensors"))]
        for folder in (tmp_path / "mean", Path(members[0]))
    )
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


def test_the_mean_is_that_of_all_weights_and_a_model_for_plain_transformers(members, tmp_path, capsys):
    lab.main(["average", *members, "-o", str(tmp_path / "mean")])
    each, found = [weights_of(folder) for folder in members], weights_of(tmp_path / "mean")
    for name, tensor in found.items():
        assert torch.allclose(tensor, torch.stack([one[name] for one in each]).mean(0), atol=1e-6), name
    assert "the mean of 3 models" in capsys.readouterr().out
    assert RewardModel(str(tmp_path / "mean")).score(ROWS).shape == (1, 2)
    assert [file.name for file in tmp_path.iterdir()] == ["mean"]


def test_adapters_are_merged_first(members, tokenizer, tmp_path):
    """Two adapters on one base: the mean of what each makes of it."""
    merged = []
    for number in (0, 1):
        base = AutoModelForSequenceClassification.from_pretrained(members[0])
        model = moved(get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS")), 5, 0.0)
        torch.manual_seed(number)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, 0, 0.02)
        model.save_pretrained(str(tmp_path / f"adapter{number}"), save_embedding_layers=False)
        tokenizer.save_pretrained(str(tmp_path / f"adapter{number}"))
        merged.append(model.merge_and_unload().state_dict())
    average_weights([tmp_path / "adapter0", tmp_path / "adapter1"], tmp_path / "mean")
    for name, tensor in weights_of(tmp_path / "mean").items():
        assert torch.allclose(tensor, (merged[0][name] + merged[1][name]) / 2, atol=1e-6), name


def test_heads_that_point_apart_are_told_unless_the_body_is_the_same(members, tokenizer, tmp_path, capsys):
    """On a frozen body the mean of heads is the mean of their rewards, wherever they began."""
    trained, frozen = moved(make_model(), 1, 0.02), AutoModelForSequenceClassification.from_pretrained(members[0])
    for name, model in {"trained": trained, "frozen": frozen}.items():
        model.score.weight.data = torch.randn(1, 32, generator=torch.Generator().manual_seed(9))
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        average_weights([members[0], tmp_path / name], tmp_path / f"mean_{name}")
        assert ("the heads of" in capsys.readouterr().out) == (name == "trained")
    both = [
        RewardModel(str(place)).score(ROWS) for place in (members[0], tmp_path / "frozen", tmp_path / "mean_frozen")
    ]
    assert both[2] == pytest.approx((both[0] + both[1]) / 2, abs=1e-5)


@pytest.mark.parametrize("kind", [{"bottleneck": {"latents": 3}}, {"mlp": {"width": 8}}], ids=["folds", "does not"])
def test_a_head_of_its_own_is_averaged_as_it_was_trained(kind, members, tokenizer, tmp_path):
    """And what plain transformers reads is that head's one layer, which no mean of such layers is."""
    for number in (0, 1):
        model = load_model(ModelConfig(members[0], head=kind), seed=0)
        export(moved(model, number, 0.1), tokenizer, tmp_path / str(number))
    average_weights([tmp_path / "0", tmp_path / "1"], tmp_path / "mean")
    heads = [load_file(tmp_path / name / "rmlab_head.weights") for name in ("0", "1", "mean")]
    for name, tensor in heads[2].items():
        assert torch.allclose(tensor, (heads[0][name] + heads[1][name]) / 2, atol=1e-6), name
    found = RewardModel(str(tmp_path / "mean")).score(ROWS)
    if "bottleneck" in kind:
        weight = heads[2]["last.weight"] @ heads[2]["weight"][:3]
        assert torch.allclose(weights_of(tmp_path / "mean")["score.weight"], weight, atol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("seed", r"did not grow from the same first weights as .* \(the cosine of their matrices is -?0.0"),
        ("llama", "has another architecture than"),
        ("tokenizer", "has another tokenizer than"),
        ("template", "has another chat template than"),
    ],
)
def test_what_makes_no_model_is_refused_and_leaves_nothing(other, message, members, tokenizer, tmp_path):
    folder, place = tmp_path / "other", tmp_path / "new" / "mean"
    make_model("llama" if other == "llama" else "qwen3", seed=int(other == "seed")).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if other == "tokenizer":
        (folder / "chat_template.jinja").write_text("{{ messages }}")
    if other == "template":  # as older models keep it
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": "{{ messages }}"}))
    with pytest.raises(UserError, match=message):
        average_weights([members[0], folder], place)
    assert not list(place.parent.iterdir())


def test_a_place_that_is_taken_and_a_single_model_are_refused(members, tmp_path):
    with pytest.raises(UserError, match="is there already"):
        average_weights(members, tmp_path)
    with pytest.raises(UserError, match="two models at least"):
        average_weights(members[:1], tmp_path / "mean")
