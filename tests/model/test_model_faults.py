"""A model that is none, or not as it says, is refused in a sentence before anything is scored."""

import json
import re

import pytest
import torch
from conftest import ARCHITECTURES, make_model, make_pairs
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from rmlab import RewardModel, UserError
from rmlab.commands import score
from rmlab.model.config import ModelConfig
from rmlab.model.load import load_model


def about(place, **values):
    """Change config.json."""
    file = place / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def generator(place, tokenizer):
    config = AutoConfig.for_model("qwen3", **ARCHITECTURES["qwen3"])
    AutoModelForCausalLM.from_config(config).save_pretrained(place)


def without_head(place, tokenizer):
    make_model("qwen3").model.save_pretrained(place)


def without_pooler(place, tokenizer):
    """A head that was trained, on a pooler that is gone."""
    model = make_model("bert")
    kept = {name: tensor for name, tensor in model.state_dict().items() if "pooler" not in name}
    model.save_pretrained(place, state_dict=kept)


def three_labels(place, tokenizer):
    make_model("bert", num_labels=3).save_pretrained(place)


def adapter_without_head(place, tokenizer):
    """As `task_type=CAUSAL_LM` saves it."""
    base = place.with_name("base")
    without_head(base, tokenizer)
    model = load_model(ModelConfig(path=str(base)), seed=0)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="FEATURE_EXTRACTION"))
    adapted.save_pretrained(place)


def larger_tokenizer(place, tokenizer):
    make_model("qwen3", vocab_size=300).save_pretrained(place)


def without_weights(place, tokenizer):
    make_model("qwen3").save_pretrained(place)
    (place / "model.safetensors").unlink()


def without_config(place, tokenizer):
    place.mkdir()


def dated(place, tokenizer):
    make_model("qwen3").save_pretrained(place)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + tokenizer.chat_template


REFUSED = {
    generator: "is a Qwen3ForCausalLM, which writes text and has no head for rewards",
    without_head: "lacks score.weight, which would be random",
    without_pooler: "lacks bert.pooler.dense.bias, bert.pooler.dense.weight, which would be random",
    three_labels: "is a classifier with num_labels=3; a reward model has one output",
    adapter_without_head: "lacks score.weight, which would be random",
    larger_tokenizer: r"has tokens up to id \d+, and the model 300 embeddings; it is another model's",
    without_weights: "holds no weights, only its config",
    without_config: "holds no config.json; is it a saved model?",
    dated: "the chat template prints today's date",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_makes_rewards_meaningless_is_refused(make, tokenizer, tmp_path):
    make(tmp_path / "model", tokenizer)
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=REFUSED[make]) as refused:
        RewardModel(str(tmp_path / "model"))
    assert "\n" not in str(refused.value)


def test_the_command_ends_with_status_1_and_writes_nothing(tokenizer, tmp_path, capsys):
    without_head(tmp_path / "model", tokenizer)
    tokenizer.save_pretrained(tmp_path / "model")
    make_pairs(3).to_json(str(tmp_path / "rows.jsonl"))
    with pytest.raises(SystemExit) as stopped:
        score.main([str(tmp_path / "model"), str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "out.jsonl")])
    assert stopped.value.code == 1
    assert "lacks score.weight, which would be random" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


# ---- what servers do with it ----


def good(place, tokenizer):
    make_model("qwen3").save_pretrained(place)
    about(place, problem_type="regression")


def sigmoid(place, tokenizer):
    make_model("qwen3").save_pretrained(place)


def through_vllm(place, tokenizer):
    good(place, tokenizer)
    about(place, sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid"})


def padded_with_eos(place, tokenizer):
    good(place, tokenizer)
    tokenizer.pad_token = tokenizer.eos_token


def without_eos(place, tokenizer):
    good(place, tokenizer)
    about(place, pad_token_id=None)
    tokenizer.eos_token = None


def doubled_bos(place, tokenizer):
    good(place, tokenizer)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template


def larger_model(place, tokenizer):
    """Whose tokenizer may be that of a smaller one."""
    make_model("qwen3", vocab_size=3000).save_pretrained(place)
    about(place, problem_type="regression")


TOLD = {
    good: "",
    larger_model: r"has tokens up to id \d+, and the model 3000 embeddings: is it another model's\?",
    without_eos: "",
    sigmoid: "pipelines and servers return the sigmoid of the rewards of",
    through_vllm: "vLLM puts the rewards of .* through torch.nn.modules.activation.Sigmoid",
    padded_with_eos: r"pads with EOS \('<\|eos\|>'\), which also ends what is scored",
    doubled_bos: "writes BOS twice; rmlab reads one, servers read both",
}


@pytest.mark.parametrize("make", TOLD, ids=lambda make: make.__name__)
def test_what_servers_would_do_otherwise_is_told(make, tokenizer, tmp_path, capsys):
    """And the rewards are those of the model as it is."""
    make(tmp_path / "model", tokenizer)
    tokenizer.save_pretrained(tmp_path / "model")
    rewards = RewardModel(str(tmp_path / "model")).score(make_pairs(2))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(told) == bool(TOLD[make])
    if told:
        assert re.search(TOLD[make], told[0])
    if make is larger_model:
        return
    expected = RewardModel.of(make_model("qwen3"), tokenizer).score(make_pairs(2))
    assert rewards == pytest.approx(expected, abs=1e-6)


def test_a_pad_token_without_an_embedding_is_no_fault(tokenizer, tmp_path):
    """It is not read: an adapter that was trained with one is saved without it. bloom is scored in padded rows."""
    model = make_model("bloom")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(tmp_path)
    expected = RewardModel.of(model, tokenizer).score(make_pairs(4))
    tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    tokenizer.save_pretrained(tmp_path)
    assert RewardModel(str(tmp_path)).score(make_pairs(4)) == pytest.approx(expected, abs=1e-5)


def test_training_gives_a_model_its_head(tokenizer, tmp_path):
    without_head(tmp_path, tokenizer)
    assert torch.isfinite(load_model(ModelConfig(path=str(tmp_path)), seed=0).score.weight).all()
