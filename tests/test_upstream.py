"""One canary per function of rmlab/upstream.py: which assumption about a library's inside fell in an upgrade."""

import copy
import logging
import sys
from pathlib import Path

import hydra
import pytest
import torch
from conftest import make_model, make_pairs, trainer_for
from datasets import Dataset
from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.launcher import Launcher
from peft import LoraConfig, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import AutoConfig, Trainer, TrainerCallback
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rmlab import upstream
from rmlab.data.tokenizer import build_tokenizer

IDS = torch.tensor([[5, 6, 7, 8]])


# ---- datasets ----


def test_a_fingerprint_is_of_the_content_and_of_what_was_done_to_it(tmp_path):
    def rows(last):
        return Dataset.from_dict({"a": [1, 2, last]})

    found = upstream.fingerprint(rows(3))
    assert isinstance(found, str)
    assert upstream.fingerprint(rows(3)) == found
    changed = [rows(4), rows(3).map(lambda row: {"a": row["a"] + 1}), rows(3).select([0, 2]), rows(3).shuffle(seed=1)]
    changed += [rows(3).add_column("b", [1, 2, 3]), rows(3).rename_column("a", "b")]
    assert len({found, *map(upstream.fingerprint, changed)}) == 1 + len(changed)
    assert upstream.fingerprint(rows(3).map(lambda row: row, new_fingerprint="mine")) == "mine"
    rows(3).save_to_disk(str(tmp_path / "saved"))
    assert len({upstream.fingerprint(Dataset.load_from_disk(str(tmp_path / "saved"))) for _ in range(2)}) == 1
    assert upstream.fingerprint([1, 2, 3]) is None


# ---- torch ----


def test_a_tensor_counts_its_changes_in_place():
    parameter = nn.Parameter(torch.ones(2, 2))
    before = upstream.version_of(parameter)
    parameter.sum().backward()
    assert upstream.version_of(parameter) == before
    changes = [lambda: parameter.detach().mul_(3), lambda: parameter[0].detach().zero_()]
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    for change in [*changes, optimizer.step]:
        change()
        assert upstream.version_of(parameter) > before
        before = upstream.version_of(parameter)


def test_what_is_replaced_in_one_module_is_what_calling_it_runs_and_then_as_before():
    one, other, x = nn.Linear(2, 2), nn.Linear(2, 2), torch.ones(1, 2)
    right = one(x)
    with upstream.replaced(one, "forward", lambda x: x - 1):
        assert not one(x).any()
        assert other(x).any()
        with upstream.replaced(one, "forward", lambda x: x + 1):
            assert one(x).tolist() == [[2, 2]]
        assert not one(x).any()
    assert torch.equal(one(x), right)
    assert "forward" not in vars(one)


def test_a_replaced_forward_is_called_with_its_module_and_survives_mixed_precision(tokenizer, tmp_path):
    """accelerate takes `forward.__func__` of a bound method, and calls it with the module."""

    def doubled(self, x):
        dtypes.append((self, (x @ x).dtype))
        return 2 * x

    dtypes, module = [], nn.Linear(2, 2)
    upstream.replace_forward(module, doubled)
    assert module(torch.eye(2)).tolist() == [[2, 0], [0, 2]]
    prepared = accelerator_in_bf16(tokenizer, tmp_path).prepare_model(module, evaluation_mode=True)
    assert prepared(torch.eye(2)).tolist() == [[2, 0], [0, 2]]
    assert dtypes == [(module, torch.float32), (prepared, torch.bfloat16)]


def test_a_copy_of_a_wrapped_module_runs_on_its_own_weights():
    module, x = nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2)
    right = module(x)
    upstream.wrap_forward(module[0], lambda forward, x: forward(x) + 1)
    assert torch.equal(module(x), right + 1)
    twin = copy.deepcopy(module)
    for parameter in module.parameters():
        parameter.data.zero_()
    assert torch.equal(twin(x), right + 1)
    assert module(x).tolist() == [[1, 1]]


# ---- transformers ----


@pytest.fixture
def spied():
    """Calls of an attention registered as `spy`."""
    calls = []

    def spy(module, *args, **kwargs):
        calls.append(module)
        return sdpa_attention_forward(module, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS["spy"], ALL_MASK_ATTENTION_FUNCTIONS["spy"] = spy, sdpa_mask
    yield calls
    ALL_ATTENTION_FUNCTIONS.pop("spy")
    ALL_MASK_ATTENTION_FUNCTIONS.pop("spy")


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "bert", "modernbert"])
def test_the_attention_named_inside_is_what_the_next_forward_calls(kind, spied):
    model = make_model(kind).eval()
    right = model(input_ids=IDS).logits
    with upstream.attention_named(model.config, "spy"):
        assert torch.allclose(model(input_ids=IDS).logits, right, atol=1e-5)
        assert len(spied) == 2  # layers
    assert torch.equal(model(input_ids=IDS).logits, right)
    assert len(spied) == 2
    assert model.config._attn_implementation == "sdpa"


def test_the_attention_of_each_part_of_a_config_is_its_own_again():
    config = AutoConfig.for_model("gemma3")
    config._attn_implementation = {"": "sdpa", "text_config": "eager", "vision_config": "sdpa"}
    with upstream.attention_named(config, "spy"):
        parts = config, config.text_config, config.vision_config
        assert [part._attn_implementation for part in parts] == ["spy"] * 3
    assert [part._attn_implementation for part in parts] == ["sdpa", "eager", "sdpa"]


def test_a_trainer_loads_the_weights_of_a_checkpoint_and_takes_no_step(tokenizer, tmp_path):
    def build(seed):
        return trainer_for(
            make_model(seed=seed), tokenizer, tmp_path, make_pairs(8), make_pairs(12).select(range(8, 12)),
            max_steps=3, save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1, learning_rate=0.05,
            load_best_model_at_end=True, metric_for_best_model="eval_nll", greater_is_better=True,
        )  # fmt: skip

    first = build(0)
    first.train()
    weights = {n: torch_weights(tmp_path / f"checkpoint-{n}") for n in (1, 2, 3)}
    best = int(Path(first.state.best_model_checkpoint).name.split("-")[1])
    other = 3 if best != 3 else 1
    assert not torch.equal(weights[best], weights[other])
    again = build(1)
    upstream.load_trained(again, str(tmp_path / f"checkpoint-{other}"), best=False)
    assert torch.equal(again.model.score.weight, weights[other])
    again.state = first.state
    upstream.load_trained(again, str(tmp_path / f"checkpoint-{other}"), best=True)
    assert torch.equal(again.model.score.weight, weights[best])
    assert again.optimizer is None


def torch_weights(checkpoint):
    from safetensors.torch import load_file

    return load_file(checkpoint / "model.safetensors")["score.weight"]


def test_the_loss_since_the_last_log_can_be_read_and_set(tokenizer, tmp_path):
    """Set at the beginning of training, it is in the first log: a sum over its steps."""

    class Set(TrainerCallback):
        def on_train_begin(self, *_, **__):
            upstream.set_loss_since_log(trainer, 100.0, -3)

        def on_step_end(self, args, state, control, **_):
            seen.append(upstream.loss_since_log(trainer))

    seen = []
    trainer = trainer_for(
        make_model(), tokenizer, tmp_path, make_pairs(12), max_steps=2, logging_steps=2, callbacks=[Set()]
    )
    trainer.train()
    assert [logged for _, logged in seen] == [-3, -3]
    assert trainer.state.log_history[0]["loss"] == pytest.approx(seen[1][0] / 5)
    assert seen[0][0] > 100
    assert upstream.loss_since_log(trainer) == (0.0, 2)


def test_checkpoints_are_saved_by_the_method_that_is_wrapped(tokenizer, tmp_path):
    """And removed within it, unless there is no limit."""
    import inspect

    source = inspect.getsource(Trainer._maybe_log_save_evaluate)
    assert "self._save_checkpoint(model, trial)" in source
    assert "save_total_limit=self.args.save_total_limit" in inspect.getsource(Trainer._save_checkpoint)
    assert "self._get_train_sampler" in inspect.getsource(Trainer.get_train_dataloader)


# ---- accelerate ----


def accelerator_in_bf16(tokenizer, tmp_path):
    return trainer_for(make_model(), tokenizer, tmp_path, bf16=True).accelerator


def test_a_prepared_model_keeps_its_forward_without_mixed_precision(tokenizer, tmp_path):
    model = make_model().eval()
    right = model(input_ids=IDS).logits
    with upstream.without_mixed_precision(model):
        assert torch.equal(model(input_ids=IDS).logits, right)
    model = accelerator_in_bf16(tokenizer, tmp_path).prepare_model(model, evaluation_mode=True)
    assert "_original_forward" in vars(model)
    rounded = model(input_ids=IDS).logits
    assert not torch.equal(rounded, right)
    with upstream.without_mixed_precision(model):
        assert torch.equal(model(input_ids=IDS).logits, right)
    assert torch.equal(model(input_ids=IDS).logits, rounded)


# ---- peft ----


def test_a_module_of_an_adapter_that_is_there_is_trained_and_saved(tmp_path):
    model = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"]))
    assert not model.get_base_model().score.weight.requires_grad
    upstream.train_and_save(model, "score")
    head = model.get_base_model().score
    assert isinstance(head, ModulesToSaveWrapper)
    assert model.active_adapter in head.modules_to_save
    assert head.modules_to_save[model.active_adapter].weight.requires_grad
    head.modules_to_save[model.active_adapter].weight.data.fill_(3.0)
    assert model(input_ids=IDS).logits.abs().max() > 0
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file

    (saved,) = [v for k, v in load_file(tmp_path / "adapter_model.safetensors").items() if "score" in k]
    assert (saved == 3).all()


# ---- Hydra ----


def test_a_copy_of_the_config_store_is_itself_and_what_it_loads_is_not():
    """If a copy were changed, so would the store: what is loaded must be a copy of its own."""
    upstream.share_config_store()
    store = ConfigStore.instance()
    source = StructuredConfigSource("test", "structured://")
    assert source.store is store  # so a copied source copies the store
    assert copy.deepcopy(source).store is store
    store.store(name="canary", node={"a": 1})
    try:
        loaded = source.load_config("canary").config
        loaded.a = 2
        assert source.load_config("canary").config.a == 1
        assert source.list("", None).count("canary") == 1
    finally:
        del store.repo["canary.yaml"]


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """The jobs of a multirun of three, of which the second fails."""
    found = []

    class Watch(Launcher):
        def __init__(self, inner, loader, config):
            self.inner = inner
            assert loader.load_configuration  # what other configs of the sweep are composed with
            assert config.hydra.sweep.dir

        def setup(self, **_):
            """The inner one is."""

        def launch(self, job_overrides, initial_job_idx):
            jobs = self.inner.launch(job_overrides, initial_job_idx)
            found.extend(jobs)
            return jobs

    (tmp_path / "config.yaml").write_text("x: 0")

    @hydra.main(version_base=None, config_path=str(tmp_path), config_name="config")
    def job(config):
        if config.x == 2:
            raise ValueError("two")
        return 10 * config.x

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["job", "-m", "x=1,2,3"])
    GlobalHydra.instance().clear()
    with upstream.launchers(Watch), pytest.raises(SystemExit):  # the basic sweeper stops at a job that failed
        job()
    GlobalHydra.instance().clear()
    logging.getLogger().handlers.clear()  # Hydra's, of a folder that goes
    return found


def test_a_multirun_launches_through_the_launcher_that_hydra_was_given(launched):
    from hydra.core.plugins import Plugins

    assert [list(job.overrides) for job in launched] == [["x=1"], ["x=2"], ["x=3"]]
    assert Plugins.instantiate_launcher.__module__.startswith("hydra")


def test_a_failed_job_returned_its_error(launched):
    assert [upstream.returned(job) for job in launched[::2]] == [10, 30]
    assert isinstance(upstream.returned(launched[1]), ValueError)
    with pytest.raises(ValueError, match="two"):
        _ = launched[1].return_value


def test_a_tokenizer_gives_what_its_backend_gives(tmp_path):
    """Truncation and padding that somebody asked for before are gone, and another class is left alone."""
    tokenizer = build_tokenizer()
    texts = ["one river", "", "two <|eos|> rivers \u00e9\u4e2d", "x" * 300]
    whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    tokenizer(texts, truncation=True, max_length=2, padding="max_length")
    assert upstream.batch_ids(tokenizer, texts) == whole

    class Own(type(tokenizer)):
        def __call__(self, *texts, **options):
            return super().__call__(*texts, **options)

    tokenizer.save_pretrained(tmp_path)
    assert upstream.batch_ids(Own.from_pretrained(tmp_path), texts) is None
