"""Layouts: flat rows with shared prefixes give the rewards and gradients of padded ones, or are not used."""

import copy
import itertools
import math
from contextlib import nullcontext
from functools import partial
from unittest.mock import patch

import pytest
import torch
from conftest import (
    assert_equal,
    forest,
    gradients,
    kwise_rows,
    make_model,
    make_pairs,
    model_for,
    rewards_and_gradients,
    trainer_for,
    tree_of,
)
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, TrainerCallback

from rmlab import RewardConfig, RewardTrainer, UserError
from rmlab.data.sets import merge
from rmlab.model import load as models
from rmlab.scoring import Refused, attention, is_decoder, pad, prepare_for_scoring, score
from rmlab.scoring.attention import attend
from rmlab.scoring.collator import PreferenceCollator, parts_of
from rmlab.scoring.layout import choose, padded_batch, prove
from rmlab.scoring.plan import packed_plan, shared_plan
from rmlab.training.embedding_gradients import embedding_gradients_in_place

SHARED = [
    "llama", "qwen2", "qwen3", "qwen3 sliding", "mistral", "gemma2", "gemma2 sliding", "gemma3_text", "phi3", "olmo2",
    "mixtral", "gpt2", "gpt_neox", "opt",
]  # fmt: skip
PACKED = ["bert", "roberta", "distilbert", "modernbert", "modernbert mean"]


# ---- 1. equality with padded rows ----


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("lora", [False, True], ids=["", "lora"])
@pytest.mark.parametrize("kind", SHARED + PACKED)
def test_rewards_and_gradients_equal_padded_ones(kind, lora, checkpointing):
    model = model_for(kind, lora, checkpointing)
    layout, _ = choose(model, "auto")
    assert layout == ("packed" if kind in PACKED else "shared_prefix")
    batch = PreferenceCollator(0, layout=layout, causal=kind in SHARED)(forest())
    assert batch["input_ids"].shape[1] < sum(batch["plan"].lengths) or layout == "packed"
    expected = rewards_and_gradients(model, padded_batch(batch, 0))
    assert_equal(rewards_and_gradients(model, batch), expected)


@pytest.mark.parametrize("kind", SHARED + PACKED)
def test_responses_as_long_as_the_model_allows(kind):
    """All 512 positions; beside them responses of one token, and one that is the other's prefix."""
    model = model_for(kind)
    whole = torch.randint(3, 768, (512,), generator=torch.Generator().manual_seed(0)).tolist()
    trees = [tree_of([whole, whole[:-1]]), tree_of([[5], [6]]), tree_of([[*whole[:300], 7], whole[:300] + [8] * 212])]
    layout, causal = ("packed", False) if kind in PACKED else ("shared_prefix", True)
    batch = PreferenceCollator(0, layout=layout, causal=causal)(trees)
    assert max(batch["plan"].lengths) == 512
    assert_equal(rewards_and_gradients(model, batch), rewards_and_gradients(model, padded_batch(batch, 0)))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3 sliding", "gemma2 sliding"])
def test_decoders_can_be_packed_without_sharing(kind):
    model = model_for(kind)
    batch = PreferenceCollator(0, layout="packed")(forest())
    assert batch["input_ids"].shape[1] == sum(batch["plan"].lengths)
    assert_equal(rewards_and_gradients(model, batch), rewards_and_gradients(model, padded_batch(batch, 0)))


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_padded_batches_of_a_plan_are_the_collators_own(kind):
    trees = forest()
    flat = PreferenceCollator(0, layout="packed", causal=kind == "llama")(trees)
    padded = pad([ids for tree in trees for ids in ([*tree["prefix"], *s] for s in tree["suffixes"])], 0)
    rebuilt = padded_batch(flat, 0)
    assert torch.equal(rebuilt["input_ids"], padded["input_ids"])
    assert torch.equal(rebuilt["attention_mask"], padded["attention_mask"])


def test_a_real_encoder_is_packed_exactly(minilm):
    model = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=1)
    models.disable_dropout(model)
    prepare_for_scoring(model)
    batch = PreferenceCollator(0, layout="packed", causal=False)(forest())
    assert_equal(rewards_and_gradients(model, batch), rewards_and_gradients(model, padded_batch(batch, 0)))


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


def test_bf16_autocast_stays_within_its_rounding(tokenizer, tmp_path):
    """Flat and padded differ by no more than bf16 does from fp32."""
    rows, runs = kwise_rows(8), {}
    for layout, bf16 in itertools.product(("padded", "auto"), (False, True)):
        trainer = trainer_for(make_model(), tokenizer, tmp_path, layout=layout, bf16=bf16)
        runs[layout, bf16] = torch.tensor(trainer.predict(rows).predictions).nan_to_num()
    rounding = (runs["padded", True] - runs["padded", False]).abs().max()
    assert 0 < rounding < 0.1
    assert (runs["auto", True] - runs["auto", False]).abs().max() < 2 * rounding


# ---- 2. models that do not fit ----


@pytest.mark.parametrize(
    ("kind", "options", "layout", "reason"),
    [
        ("bloom", {}, "padded", "bloom has an attention of its own"),
        ("falcon", {}, "padded", "falcon has an attention of its own"),
        (
            "qwen3_next",
            {},
            "padded",
            "qwen3_next has an attention of its own|qwen3_next has layers of type",
        ),
        ("gpt_oss", {}, "padded", "shared_prefix is not exact here: its attention takes s_aux"),
        ("gpt2", {"attn_pdrop": 0.1}, "packed", "dropout is on"),
        ("llama", {"attention_dropout": 0.1}, "packed", "dropout is on"),
    ],
)
def test_models_that_do_not_fit_fall_back_with_a_line(kind, options, layout, reason, tokenizer, tmp_path, capsys):
    """And their rewards are those of each response alone."""
    rows = kwise_rows(6)
    model = make_model(kind, **options)
    alone = copy.deepcopy(model).eval()
    trainer = trainer_for(model, tokenizer, tmp_path, disable_dropout=False, prompt_overlap="allow")
    got = trainer.predict(rows).predictions
    printed = capsys.readouterr().out
    assert any(f"layout {layout}: {part}" in printed for part in reason.split("|")), printed
    prepare_for_scoring(alone)
    for tree, rewards in zip(trainer.get_test_dataloader(rows).dataset, got, strict=True):
        for suffix, reward in zip(tree["suffixes"], rewards, strict=False):
            assert score(alone, pad([tree["prefix"] + suffix], 0)).item() == pytest.approx(reward, abs=2e-5)


def test_dropout_drops_differently_in_every_copy_of_a_prompt(tokenizer, tmp_path):
    """Packed in training mode: with dropout on, two equal responses get different rewards (a shared one would not)."""
    trainer = trainer_for(make_model("gpt2", resid_pdrop=0.5), tokenizer, tmp_path, disable_dropout=False)
    batch = trainer.data_collator([tree_of([[5, 6, 7, 8], [5, 6, 7, 8]])])
    rewards = score(trainer.model.train(), batch)
    assert rewards[0] != rewards[1]
    assert torch.equal(*score(trainer.model.eval(), batch).split(1))


def test_asking_for_a_layout_that_is_not_exact_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="shared_prefix is not exact: bert is an encoder"):
        trainer_for(make_model("bert"), tokenizer, tmp_path, layout="shared_prefix")
    with pytest.raises(UserError, match="packed is not possible: bloom has an attention of its own"):
        trainer_for(make_model("bloom"), tokenizer, tmp_path, layout="packed")
    with pytest.raises(UserError, match="layout is 'diagonal'"):
        trainer_for(make_model("llama"), tokenizer, tmp_path, layout="diagonal")
    trainer = trainer_for(make_model("gpt_oss"), tokenizer, tmp_path, layout="packed")
    with pytest.raises(UserError, match="packed is not exact for this model: its attention takes s_aux"):
        trainer.predict(kwise_rows(2))


def test_a_model_that_computes_something_else_flat_is_found_on_the_first_batch(
    tokenizer, tmp_path, capsys, monkeypatch
):
    """Positions off by one from the second response on: no error anywhere, only other rewards."""
    from rmlab.scoring import plan

    right = plan.Plan.position_ids
    monkeypatch.setattr(plan.Plan, "position_ids", lambda self: right(self) + (torch.arange(self.tokens) > 40).long())
    rows = kwise_rows(6)
    trainer = trainer_for(make_model("gpt2"), tokenizer, tmp_path)
    got = trainer.predict(rows).predictions
    assert (
        "layout padded: shared_prefix is not exact here: rewards differ from padded ones by" in capsys.readouterr().out
    )
    monkeypatch.undo()
    expected = trainer_for(make_model("gpt2"), tokenizer, tmp_path, layout="padded").predict(rows).predictions
    assert torch.allclose(torch.tensor(got), torch.tensor(expected), atol=1e-5, equal_nan=True)


def test_the_proof_is_not_fooled_by_a_head_of_zeros(monkeypatch):
    from rmlab.scoring import plan

    model = model_for("gpt2")
    model.score.weight.data.zero_()
    right = plan.Plan.position_ids
    monkeypatch.setattr(plan.Plan, "position_ids", lambda self: right(self) * 0)
    batch = PreferenceCollator(0, layout="shared_prefix")(forest(longest=20))
    _, wrong = prove(model, batch, 0)
    assert "rewards differ" in wrong
    assert not model.score.weight.any()


def test_a_layer_that_does_not_call_the_attention_function_is_noticed():
    model = model_for("llama")
    batch = PreferenceCollator(0, layout="shared_prefix")(forest(longest=20))
    layer = model.model.layers[0].self_attn
    layer.forward = lambda hidden_states, **kwargs: (hidden_states, None)
    with pytest.raises(Refused, match="1 of its 2 layers call the attention function"):
        score(model, batch)


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


def test_calls_without_a_plan_are_the_models_own(tokenizer, tmp_path):
    """After flat training the same object scores padded rows, also on its own and as a copy."""
    trainer = trainer_for(make_model("qwen3 sliding"), tokenizer, tmp_path, kwise_rows(8), max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    rows = pad([[1, 70, 71, 72, 2], [1, 80, 2]], tokenizer.pad_token_id)
    expected = saved(**rows).logits
    twin = copy.deepcopy(trainer.model)
    assert torch.allclose(trainer.model.eval()(**rows).logits, expected, atol=1e-5)
    for parameter in trainer.model.parameters():
        parameter.data.zero_()
    assert torch.allclose(twin.eval()(**rows).logits, expected, atol=1e-5)
    batch = PreferenceCollator(0, layout="shared_prefix")(forest(longest=20))
    assert score(twin, batch).abs().max() > 0.1  # nothing of the copy runs on the original's weights


# ---- 3. training ----


@pytest.mark.parametrize("kind", ["qwen3", "bert"])
def test_two_hundred_steps_padded_and_flat_stay_together(kind, tokenizer, tmp_path):
    curves = {}
    for layout in ("padded", "auto"):
        options = {"max_steps": 200, "logging_steps": 1, "learning_rate": 1e-4, "layout": layout}
        trainer = trainer_for(make_model(kind), tokenizer, tmp_path, kwise_rows(60), **options)
        trainer.train()
        curves[layout] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(curves["auto"]) == 200
    assert curves["auto"] == pytest.approx(curves["padded"], abs=1e-4)
    assert sum(curves["auto"][-15:]) < sum(curves["auto"][:15])


@pytest.mark.parametrize("layout", ["padded", "auto"])
@pytest.mark.parametrize("budget", [1, 60, 200, 10**6])
def test_a_token_budget_changes_memory_and_nothing_else(budget, layout, tokenizer, tmp_path):
    rows = kwise_rows(9)
    options = {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 9, "layout": layout}
    whole = trainer_for(make_model(), tokenizer, tmp_path, rows, **options)
    cut = trainer_for(make_model(), tokenizer, tmp_path, rows, tokens_per_batch=budget, **options)
    (whole_loss, whole_grads), (cut_loss, cut_grads) = gradients(whole), gradients(cut)
    assert cut_loss.item() == pytest.approx(whole_loss.item(), rel=1e-5)
    scale = max(g.abs().max().item() for g in whole_grads.values())
    for name, gradient in whole_grads.items():
        assert torch.allclose(gradient, cut_grads[name], atol=2e-6 * scale, rtol=0), name
    parts = parts_of(next(iter(cut.get_train_dataloader())))
    assert sum(len(part["items"]) for part in parts) == 9
    for part in parts:
        assert part["input_ids"].numel() <= budget or len(part["items"]) == 1
    assert len(parts) == {1: 9, 10**6: 1}.get(budget, len(parts))
    assert cut.evaluate(rows.map(lambda r: {"prompt": f"other {r['prompt']}"}))["eval_comparisons"] == 9


def test_a_resumed_run_under_a_budget_takes_the_same_steps(tokenizer, tmp_path):
    options = {"max_steps": 6, "logging_steps": 1, "tokens_per_batch": 60, "learning_rate": 1e-3}
    whole = trainer_for(make_model(), tokenizer, tmp_path / "a", kwise_rows(12), **options)
    whole.train()
    saving = {**options, "save_strategy": "steps", "save_steps": 3}
    trainer_for(make_model(), tokenizer, tmp_path / "b", kwise_rows(12), **saving).train()
    again = trainer_for(make_model(), tokenizer, tmp_path / "b", kwise_rows(12), **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-3"))
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (whole, again)]
    assert losses[0] == losses[1]


def test_budgets_that_cannot_be_kept_are_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="tokens_per_batch is 0"):
        trainer_for(make_model(), tokenizer, tmp_path, tokens_per_batch=0)
    args = RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, tokens_per_batch=9)
    args.deepspeed = {"zero_optimization": {"stage": 2}}  # set afterwards: the constructor wants DeepSpeed installed
    with pytest.raises(UserError, match="tokens_per_batch does not work with DeepSpeed"):
        RewardTrainer(model=make_model(), args=args, processing_class=tokenizer)


def test_a_collator_of_ones_own_is_padded_or_refused(tokenizer, tmp_path):
    for layout, refused in (("auto", False), ("packed", True)):
        args = RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, layout=layout)
        build = partial(
            RewardTrainer, make_model(), args, data_collator=PreferenceCollator(0), processing_class=tokenizer
        )
        if refused:
            with pytest.raises(UserError, match="layout=packed does not go with a data_collator"):
                build()
        else:
            assert build().layout == "padded"


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


# ---- rows that share a prompt ----


def test_rows_of_one_prompt_become_one_comparison_with_the_same_loss(tokenizer, tmp_path, capsys):
    """Three rows over four responses of one prompt: scored four times instead of six, same loss, same gradients."""
    answers = [f"answer {'word ' * n}{n}" for n in range(4)]
    rows = Dataset.from_list(
        [{"prompt": "question ", "chosen": answers[a], "rejected": answers[b]} for a, b in [(0, 1), (0, 2), (3, 1)]]
        + [{"prompt": "another ", "chosen": "yes", "rejected": "no"}]
    )
    options = {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 4}
    apart = trainer_for(make_model(), tokenizer, tmp_path, rows, **options)
    merged = trainer_for(make_model(), tokenizer, tmp_path, rows, group_by_prompt=True, **options)
    assert "train: 4 comparisons share prompts and become 2; batches count those" in capsys.readouterr().out
    assert [len(tree["suffixes"]) for tree in merged.train_dataset] == [4, 2]
    assert merged.train_dataset[0]["better"] == [0, 0, 3]
    assert merged.train_dataset[0]["worse"] == [1, 2, 1]
    (loss, grads), (merged_loss, merged_grads) = gradients(apart), gradients(merged)
    assert merged_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    largest = max(g.abs().max().item() for g in grads.values())
    for name, gradient in grads.items():
        assert torch.allclose(gradient, merged_grads[name], atol=1e-5 * largest), name


def test_merged_rows_keep_gold_rewards_only_where_all_have_them():
    """Half a list of gold rewards could not be matched with its responses."""
    one, other = tree_of([[5, 6], [5, 7]]), tree_of([[5, 6], [5, 8]])
    whole = {"lengths": [1, 1], "gold": [0.5, 1.5]}
    merged = merge([{**one, **whole}, {**other, "lengths": [1, 1], "gold": [0.5, -1.0]}])
    assert merged["gold"] == [0.5, 1.5, -1.0]
    assert merge([{**one, **whole}, {**other, "lengths": [1, 1], "gold": []}])["gold"] == []
    assert merge([{**other, "lengths": [1, 1], "gold": []}, {**one, **whole}])["gold"] == []


def test_best_of_n_prompts_are_scored_once_per_response(tokenizer, tmp_path):
    """Sixteen answers to one prompt: rewards as padded, the prompt's tokens computed once."""
    rows = Dataset.from_list(
        [{"prompt": "a long question " * 9, "responses": [f"answer {n}" for n in range(16)], "scores": list(range(16))}]
    )
    flat, padded = (trainer_for(make_model(), tokenizer, tmp_path, layout=x) for x in ("auto", "padded"))
    got, expected = flat.predict(rows).predictions, padded.predict(rows).predictions
    assert torch.allclose(torch.tensor(got), torch.tensor(expected), atol=1e-5)
    computed = [next(iter(t.get_test_dataloader(rows)))["input_ids"].numel() for t in (flat, padded)]
    assert computed[0] < computed[1] / 5


# ---- embeddings ----


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


def test_only_pairs_make_a_packed_plan_in_order():
    ids, plan = packed_plan([[[3, 4], [3, 5, 6]], [[7]]], causal=False)
    assert ids == [3, 4, 3, 5, 6, 7]
    assert plan.first().tolist() == [0, 2, 5]
    assert plan.groups == [(0, 2), (2, 5), (5, 6)]


def test_is_decoder_tells_the_two_kinds_apart():
    assert all(is_decoder(make_model(kind)) for kind in ("llama", "gpt2", "opt"))
    assert not any(is_decoder(make_model(kind)) for kind in ("bert", "distilbert", "modernbert"))


def test_long_pairs_of_text_train_under_the_default_layout(tokenizer, tmp_path, capsys):
    trainer_for(make_model(), tokenizer, tmp_path, make_pairs(12), max_steps=2).train()
    printed = capsys.readouterr().out
    assert printed.count("layout ") == 1
    assert "layout shared_prefix: qwen3 is causal and has no dropout" in printed
