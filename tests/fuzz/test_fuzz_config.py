"""Pairs of random overrides of the default config: a run that could begin, or a sentence that names a key."""

import contextlib
import copy
import io
import random
import re
import warnings
from collections import Counter

import pytest

from rmlab import losses
from rmlab.messages import UserError
from rmlab.model.adapters import PeftConfig
from rmlab.model.config import check_architecture
from rmlab.model.load import load_model
from rmlab.runner.arguments import reward_config
from rmlab.runner.config import Config, content_id, flatten
from rmlab.runner.directory import RunDirectory

VALUES = [
    None, True, False, 0, 1, 2, 7, -1, 0.0, 0.5, 1.0, 1e-5, 1e30, 10**12, 2**32, float("nan"), float("inf"), "", " ",
    "x", "../x", "/abs", "1e-3", "steps", "epoch", "no", "auto", "padded", "drop", "truncate", "prompt", "lora", "none",
    "zero", "float32", "bfloat16", "eager", "é\u2028", "a" * 500, [], [1], ["x"], {}, {"a": 1}, {"weight": 0.1},
]  # fmt: skip
MORE = [
    "trainer.accelerator_config", "trainer.log_level", "trainer.optim", "trainer.eval_strategy", "trainer.eval_steps",
    "trainer.max_steps", "trainer.data_seed", "trainer.load_best_model_at_end", "trainer.metric_for_best_model",
    "trainer.train_sampling_strategy", "trainer.lr_scheduler_kwargs", "trainer.label_smoothing_factor", "trainer.bf16",
    "trainer.early_stopping_patience", "trainer.dataloader_num_workers", "trainer.hub_token", "trainer.nothing",
    "trainer.resume_from_checkpoint", "trainer.warmup_ratio", "trainer.debug", "trainer.neftune_noise_alpha",
    "loss.center", "loss.center.weight", "loss.nothing", "loss", "peft.method", "peft.r", "peft", "data.eval.dev",
    "data.train.synthetic", "data.train", "data.eval", "data.columns", "data.chat_template_kwargs", "data", "model",
    "model.config", "model.quantization", "model.init_kwargs", "scoring", "run", "logger", "report", "plugins",
    "nothing",
]  # fmt: skip
# Big models take the machine's memory before anything can be said of them.
LARGE = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "head_dim")


def changed(rng, config):
    """The config with two other values, and their keys."""
    config, keys = copy.deepcopy(config), []
    for _ in range(2):
        key = rng.choice([*flatten(config), *MORE])
        now = flatten(config).get(key)
        alike = [v for v in VALUES if type(v) is type(now)]
        value = copy.deepcopy(rng.choice(alike if alike and rng.random() < 0.6 else VALUES))
        if key.rpartition(".")[2] in LARGE and isinstance(value, int | float) and value and abs(value) > 1000:
            value = 64
        *nodes, last = key.split(".")
        place = config
        for node in nodes:
            place = place.get(node) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = value
            keys.append(f"{key}={value!r}"[:80])
    return config, keys


def begin(config, place):
    """What a run does before it trains, but for its rows; what Hydra has made is a mapping of known nodes."""
    typed = Config.of(config)
    typed.check()
    losses.build_loss(typed.loss)
    check_architecture(typed.model.config)
    reward_config(typed, RunDirectory(place))
    PeftConfig.of(typed.peft).build()
    if typed.model.path is None:
        load_model(typed.model, typed.seed)
    content_id(typed.as_dict())


@contextlib.contextmanager
def quiet():
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


def fuzz(seeds, composed, place):
    counts = Counter()
    named = re.compile("|".join(re.escape(node) for node in (*composed, "config", *(k.split(".")[-1] for k in MORE))))
    for seed in seeds:
        config, keys = changed(random.Random(seed), composed)
        try:
            with quiet():
                begin(config, place)
            counts["valid"] += 1
        except UserError as error:
            for sentence in map(str, getattr(error, "errors", [error])):
                assert "\n" not in sentence, (seed, keys, sentence)
                assert len(sentence) < 1500, (seed, keys, sentence)
                assert named.search(sentence), (seed, keys, sentence)
            counts["refused"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {keys}: {type(error).__name__}: {str(error)[:300]}") from error
    return counts


def test_sixty_pairs_of_overrides(composed, tmp_path):
    counts = fuzz(range(60), composed, tmp_path)
    assert min(counts["valid"], counts["refused"]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_two_thousand_pairs_of_overrides(part, composed, tmp_path, capsys):
    counts = fuzz(range(1000 + 500 * part, 1500 + 500 * part), composed, tmp_path)
    with capsys.disabled():
        print(f"\nconfig pairs, part {part}: {dict(counts)}")
    assert min(counts["valid"], counts["refused"]) > 50
