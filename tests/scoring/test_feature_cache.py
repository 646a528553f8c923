"""Frozen layers: what they compute is computed once, and the training on it is the same training."""

import json

import pytest
import torch
from conftest import kwise_rows, make_model, trainer_for
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

from rmlab.files import stamp

FROZEN = {
    "head": (0, None),
    "last layer": (1, None),
    "lora on the last layer": (1, {"r": 4, "target_modules": "all-linear", "init_lora_weights": False}),
}


@pytest.mark.parametrize("what", FROZEN)
@pytest.mark.parametrize(
    "kind",
    [
        *("qwen3", "gemma3_text", "bert", "modernbert mean"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gpt2", "opt", "roberta")),
    ],
)
def test_training_on_cached_features_is_the_same_training(kind, what, tokenizer, tmp_path, capsys):
    layers, lora = FROZEN[what]
    curves, evaluations = {}, {}
    for name, options in {
        "padded": {"layout": "padded"},
        "cached": {"cache_dir": str(tmp_path / "cache")},
        "again": {"cache_dir": str(tmp_path / "cache")},
    }.items():
        torch.manual_seed(0)
        trainer = trainer_for(
            make_model(kind), tokenizer, tmp_path, kwise_rows(12), kwise_rows(5, seed=3), train_last_layers=layers,
            max_steps=8, prompt_overlap="allow", logging_steps=1, learning_rate=1e-3, optim="sgd", seed=1,
            peft_config=LoraConfig(**lora) if lora else None, **options,
        )  # fmt: skip
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
        trainer.train()
        after = dict(trainer.model.named_parameters())
        assert before
        assert all(torch.equal(p, after[n]) for n, p in before.items())
        curves[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        evaluations[name] = trainer.evaluate()["eval_loss"]
        printed = capsys.readouterr().out
        assert ("frozen layers: computed once" in printed) == (name == "cached")
    assert curves["cached"] == pytest.approx(curves["padded"], abs=1e-5)
    assert evaluations["cached"] == pytest.approx(evaluations["padded"], abs=1e-5)
    assert curves["again"] == curves["cached"]
    assert max(curves["padded"]) != min(curves["padded"])


def test_cached_features_are_used_and_keyed_by_weights_and_tokens(tokenizer, tmp_path):
    def trained(model, rows):
        options = {"train_last_layers": 0, "cache_dir": str(tmp_path / "cache"), "max_steps": 2}
        trainer = trainer_for(model, tokenizer, tmp_path, rows, **options)
        calls, steps = [], TrainerCallback()
        trainer.model.model.register_forward_hook(lambda *a: calls.append(1))
        steps.on_train_begin = lambda *a, **k: calls.clear()  # before, the layout was proved and features computed
        trainer.add_callback(steps)
        trainer.train()
        return len(calls), len(list((tmp_path / "cache").glob("features-*.json")))

    assert trained(make_model(), kwise_rows(8))[1] == 1
    assert trained(make_model(), kwise_rows(8)) == (0, 1)  # nothing below the head runs
    assert trained(make_model(seed=1), kwise_rows(8))[1] == 2
    assert trained(make_model(), kwise_rows(8, seed=1))[1] == 3


def test_features_beyond_the_budget_or_of_unfit_models_are_not_kept(tokenizer, tmp_path, capsys):
    options = {"train_last_layers": 0, "cache_dir": str(tmp_path / "cache"), "max_steps": 2}
    trainer_for(make_model(), tokenizer, tmp_path, kwise_rows(8), feature_cache_gb=1e-6, **options).train()
    assert "more than feature_cache_gb=1e-06" in capsys.readouterr().out
    trainer_for(
        make_model("gpt2", resid_pdrop=0.1), tokenizer, tmp_path, kwise_rows(8), disable_dropout=False, **options
    ).train()
    trainer_for(make_model(), tokenizer, tmp_path, kwise_rows(8), **{**options, "train_last_layers": None}).train()
    assert not list((tmp_path / "cache").glob("features-*"))


def elsewhere(rows):
    """The same rows on prompts that training has not seen."""
    return rows.map(lambda row: {"prompt": f"other {row['prompt']}"})


@pytest.mark.parametrize("layers", [0, 1])
def test_features_follow_their_rows_into_any_order_and_subset(layers, tokenizer, tmp_path):
    found = {}
    for cache in (None, str(tmp_path / "cache")):
        options = {"train_last_layers": layers, "cache_dir": cache}
        rows = elsewhere(kwise_rows(6, seed=3))
        trainer = trainer_for(make_model(), tokenizer, tmp_path, kwise_rows(8), rows, **options)
        whole = trainer.eval_dataset
        orders = [range(6), [5, 4, 3, 2, 1, 0], [4, 2]]
        found[cache is None] = [trainer.evaluate(whole.select(order))["eval_loss"] for order in orders]
    assert found[False] == pytest.approx(found[True], abs=1e-5)


@pytest.mark.parametrize("lora", [False, True])
def test_features_train_under_reentrant_checkpointing(lora, tokenizer, tmp_path):
    """Whose functions compute gradients only where an input has one."""
    norms = {}
    for cache in (None, str(tmp_path / "cache")):
        torch.manual_seed(0)
        peft_config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False) if lora else None
        trainer = trainer_for(
            make_model("llama"), tokenizer, tmp_path, kwise_rows(8), train_last_layers=1, max_steps=3, optim="sgd",
            learning_rate=1e-3, gradient_checkpointing=True, peft_config=peft_config, cache_dir=cache, logging_steps=1,
            gradient_checkpointing_kwargs={"use_reentrant": True},
        )  # fmt: skip
        trainer.train()
        norms[cache is None] = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
        trained = [n for n, p in trainer.model.named_parameters() if p.requires_grad and ".layers.1." in n]
        assert trained
    assert norms[False] == pytest.approx(norms[True], rel=1e-4)
    assert len(norms[True]) == 3


def test_features_of_a_model_that_refuses_flat_rows_are_not_kept(tokenizer, tmp_path, capsys):
    options = {"train_last_layers": 1, "cache_dir": str(tmp_path / "cache"), "max_steps": 1}
    trainer_for(make_model("gpt_oss"), tokenizer, tmp_path, kwise_rows(4), **options).train()
    assert "layout padded: shared_prefix is not exact here: its attention takes s_aux" in capsys.readouterr().out
    assert not list((tmp_path / "cache").glob("features-*"))


def test_features_that_make_other_rewards_are_not_used(tokenizer, tmp_path, capsys):
    """Whole, and yet wrong."""

    def trained():
        options = {"train_last_layers": 1, "cache_dir": str(tmp_path / "cache"), "max_steps": 2}
        trainer = trainer_for(make_model(), tokenizer, tmp_path, kwise_rows(4), **options)
        return trainer.train().training_loss, capsys.readouterr().out

    loss, _ = trained()
    (file,) = (tmp_path / "cache").glob("features-*.bin")
    file.write_bytes(bytes(file.stat().st_size))
    about = json.loads(file.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps({**about, "stamp": stamp(file)}))
    again, printed = trained()
    assert "frozen layers: computed anew every time, because rewards differ from padded ones by" in printed
    assert again == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("harm", ["zeroed", "cut", "gone", "its description gone"])
def test_damaged_features_are_computed_anew(harm, tokenizer, tmp_path, capsys):
    def trained():
        options = {"train_last_layers": 1, "cache_dir": str(tmp_path / "cache"), "max_steps": 2}
        trainer = trainer_for(make_model(), tokenizer, tmp_path, kwise_rows(4), **options)
        return trainer.train().training_loss, capsys.readouterr().out

    loss, _ = trained()
    (file,) = (tmp_path / "cache").glob("features-*.bin")
    whole = file.read_bytes()
    if "gone" in harm:
        (file if harm == "gone" else file.with_suffix(".json")).unlink()
    else:
        file.write_bytes(bytes(len(whole)) if harm == "zeroed" else whole[: len(whole) // 2])
    again, printed = trained()
    assert again == loss
    assert "frozen layers: computed once for" in printed
    assert ("is damaged" in printed) == (harm != "its description gone")
    assert file.read_bytes() == whole


def test_features_that_cannot_be_written_are_done_without(tokenizer, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rmlab.scoring.feature_cache.sync", full)
    options = {"train_last_layers": 1, "cache_dir": str(tmp_path / "cache"), "max_steps": 2}
    trainer_for(make_model(), tokenizer, tmp_path, kwise_rows(4), **options).train()
    assert "No space left on device); computed anew every time" in capsys.readouterr().out
    assert not list((tmp_path / "cache").glob("features-*"))


def test_features_know_the_scale_of_a_frozen_adapter_buffers_and_changes_in_place(tokenizer, tmp_path):
    rows, cache = elsewhere(kwise_rows(5, seed=3)), str(tmp_path / "cache")

    def losses(model, change=lambda: None):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("score" in name)
        found = []
        for folder in (None, cache):
            trainer = trainer_for(model, tokenizer, tmp_path, kwise_rows(6), rows, cache_dir=folder)
            found.append(trainer.evaluate()["eval_loss"])
            if folder is not None:
                change()
                found.append(trainer.evaluate()["eval_loss"])
        return found

    adapted = []
    for alpha in (8, 64):
        torch.manual_seed(1)
        options = {"target_modules": "all-linear", "init_lora_weights": False, "task_type": "SEQ_CLS"}
        config = LoraConfig(r=4, lora_alpha=alpha, **options)
        adapted.append(losses(get_peft_model(make_model("llama"), config)))
    assert adapted[0][1] == pytest.approx(adapted[0][0], abs=1e-5)
    assert adapted[1][1] == pytest.approx(adapted[1][0], abs=1e-5)
    assert adapted[0][0] != pytest.approx(adapted[1][0], abs=1e-3)

    model = make_model("llama")
    weight = model.model.layers[0].mlp.up_proj.weight
    plain, cached, changed = losses(model, lambda: weight.detach().mul_(3))
    assert cached == pytest.approx(plain, abs=1e-5)
    assert changed != pytest.approx(plain, abs=1e-3)

    buffers = make_model("llama")
    layer = buffers.model.layers[0].mlp.up_proj
    tensor = layer.weight.detach() * 2
    del layer.weight
    layer.register_buffer("weight", tensor)
    assert losses(buffers)[1] != pytest.approx(plain, abs=1e-3)
