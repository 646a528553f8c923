"""Never silently wrong: a model is left as it was, and what it cannot honour is refused."""

import copy

import pytest
import torch
from conftest import (
    assert_equal,
    flat_batch,
    forest,
    kwise_rows,
    make_model,
    model_for,
    rewards_and_gradients,
    trainer_for,
)
from transformers import AutoConfig, AutoModelForSequenceClassification, TrainerCallback

from rmlab import UserError
from rmlab.scoring.attention import NAME
from rmlab.scoring.batch import Padded
from rmlab.scoring.heads import score
from rmlab.scoring.proof import padded_tokens


def test_evaluation_in_16_bits_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="would round the rewards"):
        trainer_for(make_model(), tokenizer, tmp_path, bf16_full_eval=True)


def test_a_models_attention_is_its_own_again_after_a_flat_forward():
    """Also in its config, which others may hold, and after its attention is changed."""
    model = model_for("qwen3 sliding").eval()
    padded = Padded.of([[5, 70, 71, 72, 6], [5, 80, 6]], 0)
    rows = vars(padded)
    expected = score(model, padded)
    flat = flat_batch(forest(longest=20)).tokens
    score(model, flat)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(score(model, padded), expected)
    assert model.model(**rows).last_hidden_state.isfinite().all()
    other = AutoModelForSequenceClassification.from_config(model.config)
    assert other(**rows).logits.isfinite().all()
    model.set_attn_implementation("eager")
    assert torch.allclose(score(model, padded), expected, atol=1e-5)
    assert score(model, flat).isfinite().all()
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "bert"])
def test_a_padded_forward_between_a_flat_one_and_its_backward_changes_nothing(kind, reentrant):
    """Checkpointing computes the flat layers again when the padded ones have been computed."""
    model = model_for(kind)
    batch = flat_batch(forest(longest=20), "packed", causal=kind != "bert")
    expected = rewards_and_gradients(model, padded_tokens(batch, 0))  # by the model itself, nothing computed again
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    (rewards,) = score(model, batch.tokens).T
    weights = torch.linspace(-1, 1, len(rewards)) + 0.3
    with torch.no_grad():
        score(model, padded_tokens(batch, 0))
    (rewards * weights).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_equal((rewards.detach(), found), expected)


def test_nothing_of_ours_is_saved(tokenizer, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, kwise_rows(6), max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    assert NAME not in str(AutoConfig.from_pretrained(tmp_path / "saved").to_dict())
    twin = copy.deepcopy(trainer.model)
    assert twin.config._attn_implementation == trainer.model.config._attn_implementation == "sdpa"


class Waits(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the operations that make the host wait for a device: reading a value, and shapes that depend on values."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", ["packed", "auto"])  # padded: transformers looks into the mask to make its own
def test_no_training_step_waits_for_the_device(layout, tokenizer, tmp_path):
    """Between two logs, forward, loss, metrics, backward and optimizer read no value back."""
    waits, seen = Waits(), []

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            waits.found.clear()

        def on_step_end(self, args, state, control, **kwargs):
            seen.append(list(waits.found))

    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, kwise_rows(24), max_steps=6, logging_steps=100, layout=layout,
        gradient_accumulation_steps=2, callbacks=[Watch()], per_device_train_batch_size=2,
    )  # fmt: skip
    with waits:
        trainer.train()
    assert seen[2:] == [[]] * 4
