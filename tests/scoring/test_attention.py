"""The attention of a flat row: for any forest what each response would compute alone."""

import itertools
import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmlab.model.layers import Refused
from rmlab.scoring import attention
from rmlab.scoring.attention import attend
from rmlab.scoring.plan import packed_plan, shared_plan

tokens = st.lists(st.integers(3, 5), min_size=1, max_size=9)  # three symbols: prefixes, branches, duplicates


forests = st.lists(st.lists(tokens, min_size=1, max_size=5), min_size=1, max_size=4)


def visible(sequences, window):
    """From the definition: in its own sequence, a token sees those before it and itself, less than `window` away."""
    return [
        [(i - j >= 0) and (window is None or i - j < window) for j in range(len(s))]
        for s in sequences
        for i in range(len(s))
    ]


def varlen(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa=False):
    """torch's CUDA kernel by FlashAttention's documentation: with n queries and m keys, query i sees the keys from
    i + m - n - window[0] to i + m - n + window[1]; -1 is no bound.
    """
    assert enable_gqa == (q.shape[1] != k.shape[1])
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    parts = []
    for (a, b), (c, d) in zip(itertools.pairwise(cu_q.tolist()), itertools.pairwise(cu_k.tolist()), strict=True):
        assert b - a <= max_q
        assert d - c <= max_k
        ahead = torch.arange(d - c)[None] - torch.arange(b - a)[:, None] - (d - c) + (b - a)
        seen = (ahead <= window_size[1]) | torch.tensor(window_size[1] < 0)
        seen &= (ahead >= -window_size[0]) | torch.tensor(window_size[0] < 0)
        scores = torch.einsum("ihd,jhd->hij", q[a:b], k[c:d]) * scale
        parts.append(torch.einsum("hij,jhd->ihd", scores.masked_fill(~seen, -math.inf).softmax(-1), v[c:d]))
    return torch.cat(parts)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    comparisons=forests,
    window=st.sampled_from([None, 1, 3]),
    repeats=st.sampled_from([1, 2]),
    path=st.sampled_from(["blocked", "group", "ragged"]),
)
def test_any_forest_spells_its_responses_and_attends_as_they_would_alone(comparisons, window, repeats, path):
    """Every response is spelled by its path, and attention over the row equals a softmax over each response alone."""
    ids, plan = shared_plan(comparisons)
    sequences = [s for comparison in comparisons for s in comparison]
    index, positions = plan.index(), plan.position_ids()[0]
    for row, sequence in zip(index, sequences, strict=True):
        places = row[row >= 0]
        assert [ids[p] for p in places] == sequence
        assert positions[places].tolist() == list(range(len(sequence)))
    # Nothing twice: as many tokens as different (comparison, prefix) pairs.
    assert len(ids) == len(
        {(c, tuple(s[: i + 1])) for c, ss in enumerate(comparisons) for s in ss for i in range(len(s))}
    )
    assert [plan.last()[r].item() for r in range(len(sequences))] == [row[row >= 0][-1].item() for row in index]

    torch.manual_seed(len(ids))
    leaves = [
        torch.randn(1, heads, len(ids), 4, dtype=torch.float64, requires_grad=True) for heads in (2 * repeats, 2, 2)
    ]
    if path == "blocked":
        module = torch.nn.Module()
        got, _ = attend(module, *leaves, None, plan=plan, sliding_window=window)
    elif path == "group":
        got = attention.by_group(*leaves, plan, 0.5, window, None, 0.0)
    else:
        with patch.object(attention, "varlen_attn", varlen):
            got = attention.ragged(*leaves, plan, 0.5, window)
    expected = []
    for row, sequence in zip(index, sequences, strict=True):
        q, k, v = (x[0][:, row[row >= 0]] for x in leaves)
        k, v = (x.repeat_interleave(repeats, dim=0) for x in (k, v))
        seen = torch.tensor(visible([sequence], window))
        weights = torch.softmax((q @ k.transpose(1, 2) / math.sqrt(4)).masked_fill(~seen, -math.inf), -1)
        expected.append((weights @ v).transpose(0, 1))
    flat = torch.cat([got[0][row[row >= 0]] for row in index])
    assert torch.allclose(flat, torch.cat(expected), atol=1e-12)
    weight = torch.randn_like(flat)
    ours = torch.autograd.grad((flat * weight).sum(), leaves)
    theirs = torch.autograd.grad((torch.cat(expected) * weight).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-11)


def test_blocks_of_long_groups_add_up():
    """Longer than two blocks of queries, where the property test's forests fit into one."""
    torch.manual_seed(0)
    responses = [torch.randint(3, 9, (n,)).tolist() for n in (300, 310)]
    prompt = torch.randint(3, 9, (280,)).tolist()
    _, plan = shared_plan([[prompt + r for r in responses]])
    leaves = [torch.randn(1, heads, plan.tokens, 8, requires_grad=True) for heads in (4, 2, 2)]
    for window in (None, 200):
        blocked, _ = attend(torch.nn.Module(), *leaves, None, plan=plan, sliding_window=window)
        grouped = attention.by_group(*leaves, plan, 8**-0.5, window, None, 0.0)
        assert torch.allclose(blocked, grouped, atol=1e-5)
        weight = torch.randn_like(blocked)
        for a, b in zip(*(torch.autograd.grad((x * weight).sum(), leaves) for x in (blocked, grouped)), strict=True):
            assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"position_bias": torch.zeros(1)}, "takes position_bias"),
        ({"s_aux": torch.zeros(1)}, "takes s_aux"),
        ({"dropout": 0.1}, "dropout"),
        ({"is_causal": False}, "do not agree"),
        ({"plan": None}, "without a plan"),
    ],
)
def test_what_attention_cannot_honour_is_refused(arguments, message):
    _, plan = shared_plan([[[3, 4, 5], [3, 4, 6]]])
    qkv = [torch.randn(1, 2, plan.tokens, 4) for _ in range(3)]
    with pytest.raises(Refused, match=message):
        attend(torch.nn.Module(), *qkv, None, **{"plan": plan, "position_ids": torch.zeros(1), **arguments})
    with pytest.raises(Refused, match="mask of its own"):
        attend(torch.nn.Module(), *qkv, torch.zeros(1), plan=plan)


def test_only_pairs_make_a_packed_plan_in_order():
    ids, plan = packed_plan([[[3, 4], [3, 5, 6]], [[7]]], causal=False)
    assert ids == [3, 4, 3, 5, 6, 7]
    assert plan.first().tolist() == [0, 2, 5]
    assert plan.groups == [(0, 2), (2, 5), (5, 6)]
