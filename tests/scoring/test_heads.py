"""Rewards of padded rows: read at the last token by mask, in fp32."""

import copy

import pytest
import torch
from conftest import DECODERS, make_model

from rmlab.scoring.batch import Padded
from rmlab.scoring.heads import prepare_for_scoring, score

TOLERANCE = 1e-5


@pytest.mark.parametrize("kind", DECODERS)
def test_rule_1_score_is_read_at_the_last_token_by_mask(kind):
    """Fails if forward_decoder searches `input_ids != pad_token_id`: with pad == eos it skips the last token."""
    model = make_model(kind, pad_token_id=2).eval()  # pad == eos == 2
    head, base = copy.deepcopy(model.score), getattr(model, model.base_model_prefix)
    prepare_for_scoring(model)
    sequences = [[1, 70, 71, 2], [1, 80, 2]]
    (got,) = score(model, Padded.of(sequences, pad_token_id=2)).T
    for sequence, reward in zip(sequences, got, strict=True):
        hidden = base(input_ids=torch.tensor([sequence])).last_hidden_state[0, -1]  # the EOS itself
        assert reward.item() == pytest.approx(head(hidden).item(), abs=TOLERANCE)


@pytest.mark.parametrize("kind", ["qwen3", "bert", "modernbert"])
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_rule_2_head_and_rewards_are_fp32_whatever_the_body(kind, how):
    """Fails if the head is left in bf16 (no .float()) or autocast is not switched off around it: rewards then fall on
    the bf16 grid."""
    model = make_model(kind, **({"pad_token_id": 0})).eval()
    if how == "weights":
        model = model.to(torch.bfloat16)
    prepare_for_scoring(model)
    batch = Padded.of([[1, 60 + n, 2] for n in range(32)], 0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        (rewards,) = score(model, batch).T
    assert rewards.dtype == torch.float32
    on_grid = rewards == rewards.to(torch.bfloat16).float()
    assert on_grid.float().mean() < 0.2


@pytest.mark.parametrize("kind", DECODERS)
def test_rule_6_scores_do_not_change_with_padding_side(kind):
    """Fails if position ids are not derived from the mask (learned positions), or the last token from its end."""
    model = make_model(kind).eval()
    prepare_for_scoring(model)
    right = Padded.of([[1, 70, 71, 72, 2], [1, 80, 2]], 0)
    left = Padded(right.input_ids.clone(), right.attention_mask.clone())
    left.input_ids[1] = torch.tensor([0, 0, 1, 80, 2])
    left.attention_mask[1] = torch.tensor([0, 0, 1, 1, 1])
    assert torch.allclose(score(model, right), score(model, left), atol=TOLERANCE)
