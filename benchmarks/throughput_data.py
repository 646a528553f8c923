"""What throughput.py trains on: real and synthetic comparisons as batches, for rmlab and as pairs for TRL."""

import argparse
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from datasets import Dataset
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rmlab.data.columns import read_row
from rmlab.data.rows import to_comparison
from rmlab.data.sets import load_rows
from rmlab.data.tokenizer import CHAT_TEMPLATE
from rmlab.data.trees import TokenTree
from rmlab.runner.config import CONF, Config, register

SETS = {  # as rmlab's command line loads them
    "hh_harmless": ["data=hh", "data.path={folder}/hh_harmless.jsonl.gz"],
    "qa_feedback": ["data=qa_feedback", "data.path={folder}/qa_feedback.json.gz"],
    "synthetic_k9": ["data=synthetic", "data.train.synthetic.responses=9", "data.train.synthetic.prompts={needed}"],
}
SIZE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
TRL_ARMS = ("trl", "trl_plain", "trl_best")
PART_ROUNDS = 1


@dataclass(frozen=True)
class Setting:
    """One model on one data set in one dtype."""

    model: str
    config: dict[str, Any]  # of Qwen3Config
    lora: bool  # then every arm uses gradient checkpointing: it is for a model whose activations do not fit otherwise
    weights: str  # their dtype
    data: str
    dtype: str  # of the arithmetic: bfloat16 is autocast
    batch: int  # comparisons per optimizer step
    pairs_each: int  # of a comparison
    steps: int  # per round
    rounds: int  # that count
    device: str
    threads: int

    @property
    def all_rounds(self) -> int:
        return 1 + self.rounds + PART_ROUNDS

    @property
    def counted(self) -> slice:
        """The optimizer steps that count."""
        return slice(self.steps, (1 + self.rounds) * self.steps)


Batches = list[list[Any]]  # of TokenTrees for rmlab, of pairs for TRL; one per optimizer step


def load_set(name: str, needed: int, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """(rows, options of tokenisation)"""
    overrides = [text.format(folder=arguments.folder.resolve(), needed=needed) for text in SETS[name]]
    overrides += [f"data.max_length={arguments.max_length}", "data.identical=drop"]
    overrides += ["data.limit=100", "data.overlong=truncate"] if arguments.toy else []
    register()
    with initialize_config_dir(str(CONF.resolve()), version_base=None):
        data: Any = OmegaConf.to_container(compose("train", overrides).data, resolve=True)
    config = Config.of({"data": data}).data
    return load_rows(config).train[0].rows, config.options


def texts(rows: Dataset) -> Iterator[str]:
    for row in rows:
        comparison = to_comparison(read_row(row), "row")
        for part in (comparison.prompt, *comparison.responses):
            yield part if isinstance(part, str) else "\n".join(message["content"] for message in part)


def train_tokenizer(corpus: Iterator[str]) -> Any:
    """Byte-level BPE of 8192 tokens: about as many tokens per word as a large model's. rmlab's own makes far more."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"pad_token": "<|pad|>", "bos_token": "<|bos|>", "eos_token": "<|eos|>"}
    roles = ["<|user|>", "<|assistant|>"]
    kinds = {"special_tokens": [*special.values(), *roles], "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=8192, show_progress=False, **kinds))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=CHAT_TEMPLATE, additional_special_tokens=roles, **special
    )


def decided(trees: Dataset) -> list[TokenTree]:
    """Comparisons without their ties, and of those the ones with the usual number of pairs.

    TRL counts a batch in pairs: batches of the same pairs need the same number from every comparison.
    """
    kept = []
    for tree in map(TokenTree.of, trees):
        wanted = [i for i, p in enumerate(tree.probability) if p != 0.5]
        columns = ("better", "worse", "strength", "probability")
        kept.append(replace(tree, **{c: [getattr(tree, c)[i] for i in wanted] for c in columns}))
    usual = Counter(len(tree.better) for tree in kept if tree.better).most_common(1)[0][0]
    return [tree for tree in kept if len(tree.better) == usual]


def make_batches(trees: list[TokenTree], setting: Setting) -> Batches:
    """Comparisons in random order; a pool that is too small is gone through again.

    The batch with the longest response comes first, to warm up with: the first touch of memory takes many times longer
    than the next, in a training run once, and here it would in every counted step that is larger than those before.
    """
    order = torch.randperm(len(trees), generator=torch.Generator().manual_seed(0)).tolist()
    number = setting.all_rounds * setting.steps
    if len(trees) < setting.batch * number:
        print(f"  {len(trees)} comparisons make {setting.batch * number} by repetition", flush=True)
    endless = (trees[i] for i in itertools.cycle(order))
    batches = [list(itertools.islice(endless, setting.batch)) for _ in range(number)]
    largest = max(range(number), key=lambda n: max(tree.length for tree in batches[n]))
    return [batches.pop(largest), *batches]


def as_pairs(tree: TokenTree) -> list[dict[str, Any]]:
    """TRL's rows of one comparison; `length` is ours."""
    ids = tree.responses
    both = [(ids[better], ids[worse]) for better, worse in zip(tree.better, tree.worse, strict=True)]
    return [{"chosen_ids": b, "rejected_ids": w, "length": max(len(b), len(w))} for b, w in both]


def batches_of_arm(arm: str, batches: Batches, setting: Setting) -> Batches:
    """What an arm trains on, step by step.

    trl_best sorts the pairs of all rounds that count by length and cuts them into batches, so that in these rounds
    together it trains on exactly the pairs that the other arms train on. Its rounds take turns to pick from the
    shortest to the longest, the next time in reverse, so that they are alike. It warms up with the longest, and the
    round of parts gets batches of usual length.
    """
    if arm not in TRL_ARMS:
        return [[tree.row() for tree in batch] for batch in batches]
    pairs = [[pair for tree in batch for pair in as_pairs(tree)] for batch in batches]
    if arm != "trl_best":
        return pairs
    rounds, steps = setting.rounds, setting.steps
    pool = sorted(itertools.chain(*pairs[setting.counted]), key=lambda pair: pair["length"])
    grouped = [list(batch) for batch in zip(*[iter(pool)] * len(pairs[0]), strict=True)]
    picked = [grouped[i * rounds + (rounds - 1 - r if i % 2 else r)] for r in range(rounds) for i in range(steps)]
    usual = [grouped[(2 * i + 1) * len(grouped) // (2 * steps)] for i in range(steps)]
    return [*grouped[-steps:], *picked, *usual * PART_ROUNDS]
