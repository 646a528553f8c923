"""Embedding gradients summed in place are autograd's."""

from contextlib import nullcontext

import pytest
import torch
from conftest import kwise_rows, make_model, trainer_for
from transformers import TrainerCallback

from rmlab.training.embedding_gradients import embedding_gradients_in_place


@pytest.mark.parametrize("autocast", [False, True])
def test_embedding_gradients_summed_in_place_are_autograds(autocast):
    """Three micro-batches, a repeated token, the padding token (which is not trained)."""
    grads = []
    for in_place in (False, True):
        model = make_model("llama")
        with embedding_gradients_in_place(model) if in_place else nullcontext():
            assert ("forward" in vars(model.model.embed_tokens)) == in_place
            for ids in ([[5, 6, 5, 0]], [[5, 9]], [[700, 0, 6]]):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    model.model(input_ids=torch.tensor(ids)).last_hidden_state.float().square().sum().backward()
        assert "forward" not in vars(model.model.embed_tokens)
        grads.append(model.model.embed_tokens.weight.grad)
    assert torch.allclose(*grads, atol=1e-6 * grads[0].abs().max().item())
    assert not grads[1][0].any()
    assert grads[1][5].any()


def test_embeddings_are_summed_in_place_where_there_are_several_micro_batches(tokenizer, tmp_path):
    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            patched.append("forward" in vars(model.get_input_embeddings()))

    patched = []
    for kind, budget in (("qwen3", None), ("qwen3", 50), ("gemma3_text", 50)):  # Gemma's scales what it finds
        options = {"max_steps": 1, "callbacks": [Watch()], "tokens_per_batch": budget}
        trainer_for(make_model(kind), tokenizer, tmp_path, kwise_rows(4), **options).train()
    assert patched == [False, True, False]
