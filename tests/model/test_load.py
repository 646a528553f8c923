"""Models by name, and models that others load."""

import pytest
import torch
from conftest import ARCHITECTURES, make_model, trainer_for

from rmlab import UserError
from rmlab.model.config import ModelConfig
from rmlab.model.load import config_by_name, load_model, new_modules

TINY = {"model_type": "llama", **ARCHITECTURES["llama"], "pad_token_id": 0}


def test_a_model_given_by_name_and_its_random_head_follow_the_seed(tokenizer, tmp_path):
    make_model().model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    heads = [
        trainer_for(str(tmp_path / "base"), None, tmp_path, seed=seed).model.score.weight.detach() for seed in (0, 0, 1)
    ]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_two_labels_are_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="reward models require `num_labels=1`"):
        trainer_for(make_model(num_labels=2), tokenizer, tmp_path)


def test_training_16_bit_weights_directly_is_warned_of(tokenizer, tmp_path, capsys):
    trainer_for(make_model().to(torch.bfloat16), tokenizer, tmp_path)
    assert "weights of 16 bits are trained directly" in capsys.readouterr().out


def test_random_weights_follow_the_seed():
    one, same, other = (load_model(ModelConfig(config=TINY), seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.score.weight, other.score.weight)
    assert (one.config.num_labels, one.config.problem_type, one.rmlab_new_modules) == (1, "regression", [])
    assert one.config._attn_implementation == "sdpa"


def test_a_checkpoint_of_a_base_gets_a_head_and_one_of_a_reward_model_keeps_its_own(tmp_path):
    saved = make_model()
    saved.save_pretrained(tmp_path / "reward")
    saved.model.save_pretrained(tmp_path / "base")
    reward = load_model(ModelConfig(path=str(tmp_path / "reward"), head_init="zero"), 0)
    assert torch.equal(reward.score.weight, saved.score.weight)
    base = load_model(ModelConfig(path=str(tmp_path / "base"), head_init="zero", dtype="bfloat16"), 0)
    assert not base.score.weight.any()
    assert base.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16


def test_what_a_checkpoint_lacks_inside_its_base_is_known(tmp_path):
    """BERT's pooler: an adapter must train and save it."""
    model = make_model("bert")
    new = ["classifier.weight", "bert.pooler.dense.weight", "bert.pooler.dense.bias"]
    assert new_modules(model, new) == []  # random weights: all is new
    model.config.name_or_path = "somewhere"
    assert new_modules(model, new) == ["pooler"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "/nowhere/at/all"}, "model: cannot load /nowhere/at/all: "),
        ({"config": TINY, "dtype": "float33"}, "model.dtype: torch has no dtype 'float33'; use one of float32, "),
        ({"config": TINY, "head_init": "ones"}, "model.head_init is 'ones'"),
        ({"config": {**TINY, "num_attention_heads": 3}}, "cannot load .* not a multiple of the number of attention"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_named_in_one_sentence(options, message):
    with pytest.raises(UserError, match=message) as error:
        load_model(ModelConfig(**options), 0)
    assert "\n" not in str(error.value)


def test_a_model_by_name_takes_what_trl_takes():
    config = config_by_name(
        "m", {"dtype": torch.bfloat16, "num_labels": 1, "revision": "r", "device_map": "cpu"}, False
    )
    assert (config.path, config.dtype, config.revision) == ("m", "bfloat16", "r")
    assert config.init_kwargs == {"device_map": "cpu"}
    assert config_by_name("m", {"torch_dtype": "float16"}, False).dtype == "float16"
    plain = config_by_name("m", None, True)
    assert (plain.dtype, plain.trust_remote_code, plain.attn_implementation) == ("float32", True, None)
