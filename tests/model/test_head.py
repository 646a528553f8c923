"""The head: where it is, its first weights, its precision."""

import pytest
import torch
from conftest import make_model

from rmlab import UserError
from rmlab.model.head import head_modules, init_head, is_decoder, keep_in_fp32, name_the_output


def test_is_decoder_tells_the_two_kinds_apart():
    assert all(is_decoder(make_model(kind)) for kind in ("llama", "gpt2", "opt"))
    assert not any(is_decoder(make_model(kind)) for kind in ("bert", "distilbert", "modernbert"))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("llama", {"score"}),
        ("bert", {"classifier"}),
        ("distilbert", {"pre_classifier", "classifier"}),
        ("modernbert", {"head", "classifier"}),
    ],
)
def test_the_head_is_all_that_is_not_the_base(kind, names):
    assert head_modules(make_model(kind)).keys() == names


@pytest.mark.parametrize(
    ("how", "deviation"), [("1/sqrt(d+1)", 1025**-0.5), ("1/(d+1)", 1 / 1025), ("zero", 0.0), (0.25, 0.25)]
)
def test_a_new_head_is_drawn_as_asked(how, deviation):
    model = make_model("gpt2", n_embd=1024, n_layer=1)
    init_head(model, ["score.weight"], how)
    assert model.score.weight.std().item() == pytest.approx(deviation, rel=0.1)
    assert model.score.weight.mean().abs() <= deviation / 5


def test_of_a_head_of_several_layers_the_last_is_drawn_and_its_bias_is_nothing():
    model = make_model("distilbert")
    first = model.pre_classifier.weight.clone()
    model.classifier.bias.data.fill_(1.0)
    init_head(model, ["classifier.weight", "classifier.bias", "pre_classifier.weight"], "zero")
    assert torch.equal(model.pre_classifier.weight, first)
    assert not model.classifier.weight.any()
    assert not model.classifier.bias.any()


def test_a_head_that_was_trained_or_is_to_stay_is_left_alone():
    model = make_model()
    before = model.score.weight.clone()
    init_head(model, [], "zero")
    init_head(model, ["model.norm.weight"], "zero")
    init_head(model, ["score.weight"], "default")
    assert torch.equal(model.score.weight, before)
    with pytest.raises(UserError, match=r"model.head_init is 'ones'; use a number or one of"):
        init_head(model, ["score.weight"], "ones")


def test_the_output_is_a_reward_for_whatever_reads_the_config():
    model = make_model()
    name_the_output(model)
    assert (model.config.problem_type, model.config.num_labels) == ("regression", 1)
    assert model.config.sentence_transformers == {"activation_fn": "torch.nn.modules.linear.Identity"}
    assert model.config.id2label == {0: "reward"}


def test_a_head_in_fp32_leaves_autocast_as_it_found_it():
    """Also where the head raises; and a head cast to 16 bits afterwards still runs."""
    model = make_model().to(torch.bfloat16)
    keep_in_fp32(model)
    assert model.score.weight.dtype == torch.float32
    x = torch.randn(1, 32, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.score(x).dtype == torch.float32
        assert (x @ x.T).dtype == torch.bfloat16
        with pytest.raises(RuntimeError):
            model.score(x[:, :3])
        assert torch.is_autocast_enabled("cpu")
        assert torch.ones(1, 1).matmul(torch.ones(1, 1)).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    model.to(torch.bfloat16)
    assert model.score(x.float()).dtype == torch.bfloat16
