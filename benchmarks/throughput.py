"""Pairs per second, peak memory and losses of rmlab's batch layouts beside TRL's RewardTrainer, alternating in one run.

    python benchmarks/throughput.py DATA_FOLDER -o OUT          # a small Qwen3 with random weights, on the CPU
    python benchmarks/throughput.py DATA_FOLDER -o OUT --toy    # two minutes: does everything run?
    python benchmarks/throughput.py DATA_FOLDER -o OUT --gpu    # Qwen3-0.6B, and an 8B with LoRA, in bf16
    python benchmarks/throughput.py DATA_FOLDER -o OUT --draw   # only draw OUT/throughput.json again

DATA_FOLDER holds hh_harmless.jsonl.gz and qa_feedback.json.gz; matplotlib draws. All arms start from the same weights
and train on the same pairs with the same optimizer; of a prompt with K responses TRL gets all pairs, in one batch.

    trl        TRL with its defaults, of which gradient checkpointing matters
    trl_plain  without checkpointing: the same computation as rmlab's padded, so the losses should agree
    trl_best   without checkpointing, and with pairs of one length in one batch: the least padding that TRL can have
    padded, packed, shared_prefix, auto   rmlab's layouts

Every arm is a real Trainer in a process of its own, and a baton lets one run at a time: each does a few optimizer steps
per round, in an order that rotates. The first round warms up, with the largest batch. The last one times the parts of a
step and counts for nothing else. Writes OUT/throughput.json after each setting and OUT/throughput.png at the end.
"""

import argparse
import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Column, Table

from rmlab import config as configs
from rmlab.data.prepare import common_prefix, read_row, tokenize
from rmlab.data.rows import to_comparison
from rmlab.data.sets import load_rows
from rmlab.data.tokenizer import CHAT_TEMPLATE
from rmlab.runner import data_options

SETS = {  # as rmlab's command line loads them
    "hh_harmless": ["data=hh", "data.path={folder}/hh_harmless.jsonl.gz"],
    "qa_feedback": ["data=qa_feedback", "data.path={folder}/qa_feedback.json.gz"],
    "synthetic_k9": ["data=synthetic", "data.train.synthetic.responses=9", "data.train.synthetic.prompts={needed}"],
}
SIZES = {"Qwen3-0.6B": (1024, 28, 16, 8, 128), "Qwen3-8B": (4096, 36, 32, 8, 128)}  # in the order of SIZE
SIZE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
TRL_ARMS = ("trl", "trl_plain", "trl_best")
ARMS = (*TRL_ARMS, "padded", "packed", "auto")
PARTS = ("data", "forward", "backward", "optimizer", "Trainer")
PART_ROUNDS = 1
COLUMNS = {  # of the printed table: key in the JSON and format
    "pairs/s": ("pairs_per_s", ".2f"),
    "x trl": ("x_trl", ".2f"),
    "in total": ("x_trl_total", ".2f"),
    "x trl_best in total": ("x_trl_best_total", ".2f"),
    "tokens/step": ("tokens_per_step", ",.0f"),
    "MiB": ("peak_mib", ",.0f"),
    "useful": ("useful_share", ".1%"),
    "loss - trl_plain": ("loss_from_trl_plain", ".0e"),
    "loss - padded": ("loss_from_padded", ".0e"),
}
TRAINING = {
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch_fused",
    "max_grad_norm": 1.0,
    "max_length": None,
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


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


Tree = dict[str, Any]
Batches = list[list[dict[str, Any]]]  # of trees for rmlab, of pairs for TRL; one per optimizer step

# ---- data ----


def load_set(name: str, needed: int, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """(rows, options of tokenisation)"""
    overrides = [text.format(folder=arguments.folder.resolve(), needed=needed) for text in SETS[name]]
    overrides += [f"data.max_length={arguments.max_length}", "data.identical=drop"]
    overrides += ["data.head=100", "data.overlong=truncate"] if arguments.toy else []
    configs.register()
    with initialize_config_dir(str(configs.CONF.resolve()), version_base=None):
        data: Any = OmegaConf.to_container(compose("train", overrides).data, resolve=True)
    options = data_options(data)
    return next(iter(load_rows(data, options)["train"].values())), options


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


def decided(trees: Dataset) -> list[Tree]:
    """Comparisons without their ties, and of those the ones with the usual number of pairs.

    TRL counts a batch in pairs: batches of the same pairs need the same number from every comparison.
    """
    kept = []
    for tree in trees:
        wanted = [i for i, p in enumerate(tree["probability"]) if p != 0.5]
        columns = ("better", "worse", "strength", "probability")
        kept.append({**tree, **{c: [tree[c][i] for i in wanted] for c in columns}})
    usual = Counter(len(tree["better"]) for tree in kept if tree["better"]).most_common(1)[0][0]
    return [tree for tree in kept if len(tree["better"]) == usual]


def make_batches(trees: list[Tree], setting: Setting) -> Batches:
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
    largest = max(range(number), key=lambda n: max(tree["length"] for tree in batches[n]))
    return [batches.pop(largest), *batches]


def as_pairs(tree: Tree) -> list[dict[str, Any]]:
    """TRL's rows of one comparison; `length` is ours."""
    ids = [tree["prefix"] + suffix for suffix in tree["suffixes"]]
    both = [(ids[better], ids[worse]) for better, worse in zip(tree["better"], tree["worse"], strict=True)]
    return [{"chosen_ids": b, "rejected_ids": w, "length": max(len(b), len(w))} for b, w in both]


def batches_of_arm(arm: str, batches: Batches, setting: Setting) -> Batches:
    """What an arm trains on, step by step.

    trl_best sorts the pairs of all rounds that count by length and cuts them into batches, so that in these rounds
    together it trains on exactly the pairs that the other arms train on. Its rounds take turns to pick from the
    shortest to the longest, the next time in reverse, so that they are alike. It warms up with the longest, and the
    round of parts gets batches of usual length.
    """
    if arm not in TRL_ARMS:
        return batches
    pairs = [[pair for tree in batch for pair in as_pairs(tree)] for batch in batches]
    if arm != "trl_best":
        return pairs
    rounds, steps = setting.rounds, setting.steps
    pool = sorted(itertools.chain(*pairs[setting.counted]), key=lambda pair: pair["length"])
    grouped = [list(batch) for batch in zip(*[iter(pool)] * len(pairs[0]), strict=True)]
    picked = [grouped[i * rounds + (rounds - 1 - r if i % 2 else r)] for r in range(rounds) for i in range(steps)]
    usual = [grouped[(2 * i + 1) * len(grouped) // (2 * steps)] for i in range(steps)]
    return [*grouped[-steps:], *picked, *usual * PART_ROUNDS]


# ---- model and trainers ----


def build_model(setting: Setting) -> Any:
    """A Qwen3 with random weights, the same at every call."""
    transformers.set_seed(0)
    config = transformers.Qwen3Config(**setting.config)
    with torch.device(setting.device):
        dtype = getattr(torch, setting.weights)
        return transformers.AutoModelForSequenceClassification.from_config(config, dtype=dtype)


def build_trainer(arm: str, setting: Setting, model: Any, batches: Batches, tokenizer: Any, out: Path) -> Any:
    """TRL's or rmlab's trainer, which takes `batches` in their order, one per optimizer step."""
    import trl
    from peft import LoraConfig

    import rmlab

    settings = {
        **TRAINING,
        "output_dir": str(out),  # where nothing is saved
        "per_device_train_batch_size": len(batches[0]),
        "max_steps": len(batches),
        "bf16": setting.dtype == "bfloat16",
        "use_cpu": setting.device == "cpu",
        "gradient_checkpointing": setting.lora or arm == "trl",
    }
    # Batches are fetched one ahead. With one more than are trained on, the last step fetches as the others do.
    rows = [row for batch in [*batches, batches[0]] for row in batch]
    parts = {"model": model, "train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
    if setting.lora:
        linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        parts["peft_config"] = LoraConfig(r=16, target_modules=linear, modules_to_save=["score"], task_type="SEQ_CLS")
    if arm in TRL_ARMS:
        trainer = trl.RewardTrainer(args=trl.RewardConfig(**settings), **parts)
    else:
        loss = {"bradley_terry": {"margin": 0.0}}
        trainer = rmlab.RewardTrainer(args=rmlab.RewardConfig(**settings, layout=arm), loss=loss, **parts)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def quiet() -> None:
    disable_progress_bars()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)


# ---- turns ----

# Processes start from one that has imported everything and computed nothing.
CONTEXT = multiprocessing.get_context("forkserver")
IMPORTS = ["trl.trainer.reward_trainer", "rmlab.trainer", "rmlab.runner", "peft", "hydra", "rich.table"]
CONTEXT.set_forkserver_preload([*IMPORTS, "transformers.models.qwen3.modeling_qwen3"])


class Arm:
    """A trainer in a process of its own, as its users have it, which does `setting.steps` steps in every `turn`."""

    def __init__(self, name: str, setting: Setting, batches: Batches, tokenizer: Any, out: Path) -> None:
        self.name, self.setting = name, setting
        self.seconds: list[float] = []  # of each turn
        self.found: dict[str, Any] = {}  # `Turns.found`, at the end
        self.error: str | None = None
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=train, args=(name, setting, batches, tokenizer, out, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is heard
        self._hear()  # that the trainer is built

    def turn(self, timing: bool) -> None:
        started = time.perf_counter()
        self.pipe.send(timing)
        self._hear()
        self.seconds.append(time.perf_counter() - started)

    def finish(self) -> None:
        if not self.error:
            self.pipe.send(False)
            self._hear()
        self.process.join()

    def _hear(self) -> None:
        try:
            self.found = self.pipe.recv()
        except EOFError:  # the system ends a process that takes too much memory
            self.found = {"error": "its process was ended: out of memory?"}
        self.error = self.found.get("error")
        if self.error:
            print(f"  {self.name} failed: {self.error}", flush=True)


def train(name: str, setting: Setting, batches: Batches, tokenizer: Any, out: Path, pipe: Connection) -> None:
    """What the process of an arm does."""
    quiet()
    torch.set_num_threads(setting.threads)
    try:
        turns = Turns(build_trainer(name, setting, build_model(setting), batches, tokenizer, out), setting, pipe)
        turns.wait()
        turns.trainer.train()
        pipe.send(turns.found())
    except Exception as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"})


class Turns(transformers.TrainerCallback):
    """Trains when its turn comes, and measures: tokens, memory and the time of each part of a step."""

    def __init__(self, trainer: Any, setting: Setting, pipe: Connection) -> None:
        self.trainer, self.setting, self.pipe = trainer, setting, pipe
        self.tokens = [0]  # that the model embedded in each step: padding too, and what proves a layout in the first
        self.parts: Counter[str] = Counter()  # seconds in each part of a step, while `timing`
        self.timing = False
        self._wrap(trainer, "get_batch_samples", "data")  # fetches, collates and moves a batch
        self._wrap(trainer, "compute_loss", "forward")
        self._wrap(trainer.accelerator, "backward", "backward")
        self._wrap(trainer, "_clip_grad_norm", "optimizer")
        trainer.model.get_input_embeddings().register_forward_hook(self._count)
        trainer.add_callback(self)
        self.memory = memory(setting.device)  # of a process that holds the model

    def wait(self) -> None:
        synchronize(self.setting.device)
        self.pipe.send({})
        self.timing = self.pipe.recv()

    def found(self) -> dict[str, Any]:
        losses = [entry["loss"] for entry in self.trainer.state.log_history if "loss" in entry]
        layout = getattr(self.trainer, "layout", None)  # the one that rmlab has settled on
        return {
            "layout": layout,
            "losses": losses,
            "tokens": self.tokens,
            "parts": dict(self.parts),
            "peak_mib": (self.peak - self.memory) / 2**20,
        }

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._wrap(kwargs["optimizer"], "step", "optimizer")
        self._wrap(self.trainer.model_wrapped, "zero_grad", "optimizer")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hand over. Between two such ends every step fetches one batch, trains and logs once."""
        self.tokens.append(0)
        if state.global_step == self.setting.counted.start:
            forget_peak(self.setting.device)
        if state.global_step == self.setting.counted.stop:
            self.peak = peak_memory(self.setting.device)
        if state.global_step % self.setting.steps == 0:
            self.wait()

    def _count(self, module: Any, inputs: tuple[torch.Tensor], output: Any) -> None:
        self.tokens[-1] += inputs[0].numel()

    def _wrap(self, owner: Any, method: str, part: str) -> None:
        """Make `owner.method` add its time to `part` while `timing`."""
        inner = getattr(owner, method)

        @functools.wraps(inner)  # with the mark that the learning rate schedule leaves on an optimizer's `step`
        def outer(*args: Any, **kwargs: Any) -> Any:
            if not self.timing:
                return inner(*args, **kwargs)
            synchronize(self.setting.device)
            started = time.perf_counter()
            result = inner(*args, **kwargs)
            synchronize(self.setting.device)
            self.parts[part] += time.perf_counter() - started
            return result

        setattr(owner, method, outer)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def alternate(arms: list[Arm], setting: Setting) -> None:
    """Turn by turn, in an order that rotates from round to round; without the arms that have failed."""
    for number in range(setting.all_rounds):
        first, last = number % len(arms), number > setting.rounds
        for arm in arms[first:] + arms[:first]:
            if not arm.error:
                arm.turn(timing=last)
        name = "parts" if last else f"round {number} of {setting.rounds}" if number else "warm-up"
        told = ", ".join(f"{arm.name} {arm.seconds[-1]:.2f}" for arm in arms if not arm.error)
        print(f"  {name}, seconds: {told}", flush=True)
    for arm in arms:
        arm.finish()


# ---- what else is measured ----


def memory(device: str) -> int:
    """Bytes that this process holds."""
    return torch.cuda.memory_allocated() if device == "cuda" else resident("VmRSS")


def peak_memory(device: str) -> int:
    """The most bytes that this process held since `forget_peak`."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")


def forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def resident(key: str) -> int:
    """Bytes of this process now (VmRSS) or at most (VmHWM). ru_maxrss will not do: it begins at the parent's size."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def matmul_peak(setting: Setting) -> float:
    """FLOP/s of the fastest among the model's own matrix products, in the dtype of the arithmetic."""
    hidden, inner = setting.config["hidden_size"], setting.config["intermediate_size"]
    dtype, device, tokens = getattr(torch, setting.dtype), setting.device, 8192
    repeats, best = 10 if device == "cuda" else 1, 0.0
    for inputs, outputs in ((hidden, hidden), (hidden, inner), (inner, hidden)):
        x = torch.randn(tokens, inputs, dtype=dtype, device=device)
        weight = torch.randn(outputs, inputs, dtype=dtype, device=device)
        for _ in range(6):
            synchronize(device)
            started = time.perf_counter()
            for _ in range(repeats):
                x @ weight.T
            synchronize(device)
            best = max(best, repeats * 2 * tokens * inputs * outputs / (time.perf_counter() - started))
    return best


def useful_flops(setting: Setting, trees: list[Tree]) -> float:
    """The least work that trains on these comparisons, the same for all arms, whatever they compute.

    What responses of a comparison share is computed once; in the last layer, what comes after attention is computed
    only where a reward is read. A token costs 2 FLOPs per weight in the forward pass and 4 in the backward pass (2 with
    LoRA, as frozen weights need no gradient). For each key that it sees, in each layer, it costs 4 heads head_dim in
    the forward pass and 8 in the backward pass. Checkpointing's second forward pass is not useful.
    """
    tokens = keys = read = 0
    for tree in trees:
        before: list[int] = []
        for ids in sorted(tree["prefix"] + suffix for suffix in tree["suffixes"]):
            shared = len(common_prefix([before, ids]))  # sorted, so that no earlier response shares more
            tokens += len(ids) - shared
            keys += sum(range(shared + 1, len(ids) + 1))
            read += ids != before
            before = ids
    hidden, layers, heads, key_heads, head_dim = (setting.config[key] for key in SIZE)
    after_attention = hidden * heads * head_dim + 3 * hidden * setting.config["intermediate_size"]
    before_it = hidden * (heads + 2 * key_heads) * head_dim
    weights = tokens * (layers * before_it + (layers - 1) * after_attention) + read * after_attention
    return (4 if setting.lora else 6) * weights + 12 * layers * heads * head_dim * keys


def measure(setting: Setting, trees: list[Tree], names: list[str], tokenizer: Any, out: Path) -> dict[str, Any]:
    """One setting, as it goes into the JSON."""
    batches = make_batches(trees, setting)
    arms = [Arm(name, setting, batches_of_arm(name, batches, setting), tokenizer, out) for name in names]
    peak = matmul_peak(setting)
    alternate(arms, setting)
    peak = max(peak, matmul_peak(setting))
    counted = [tree for batch in batches[setting.counted] for tree in batch]
    flops, pairs = useful_flops(setting, counted), len(counted) * setting.pairs_each
    result = {**asdict(setting), "matmul_peak": peak, "useful_flops": flops, "pairs": pairs}
    result["arms"] = {arm.name: {"error": arm.error, **numbers(arm, arms, pairs, flops / peak)} for arm in arms}
    return result


def numbers(arm: Arm, arms: list[Arm], pairs: int, least: float) -> dict[str, Any]:
    """What is measured of an arm, by itself and beside the others. `least`: seconds of useful work at the peak."""
    if arm.error:
        return {}
    setting, counted = arm.setting, slice(1, 1 + arm.setting.rounds)
    seconds = sum(arm.seconds[counted])
    parts = {part: arm.found["parts"].get(part, 0.0) for part in PARTS[:-1]}
    parts["Trainer"] = sum(arm.seconds[counted.stop :]) - sum(parts.values())
    found = {
        "layout": arm.found["layout"],
        "pairs_per_s": pairs / seconds,
        "tokens_per_step": statistics.mean(arm.found["tokens"][setting.counted]),
        "peak_mib": arm.found["peak_mib"],
        "useful_share": least / seconds,
        "ms_per_step": {part: 1000 * s / (PART_ROUNDS * setting.steps) for part, s in parts.items()},
        "seconds": arm.seconds,
        "losses": arm.found["losses"],
    }
    for other in (other for other in arms if not other.error):
        if other.name in TRL_ARMS:
            ratios = [theirs / ours for theirs, ours in zip(other.seconds[counted], arm.seconds[counted], strict=True)]
            found[f"x_{other.name}"] = statistics.median(ratios)
            found[f"x_{other.name}_total"] = sum(other.seconds[counted]) / seconds
        if "trl_best" not in (arm.name, other.name):  # which has other batches
            differences = [abs(a - b) for a, b in zip(arm.found["losses"], other.found["losses"], strict=True)]
            found[f"loss_from_{other.name}"] = max(differences)
    return found


# ---- output ----


def table(result: dict[str, Any]) -> Table:
    title = (
        f"{result['model']}, {result['data']}, {result['dtype']}: {result['rounds']} rounds of {result['steps']} steps"
    )
    title += f" of {result['batch']} comparisons; matmul peak {result['matmul_peak'] / 1e12:.3g} TFLOP/s"
    shown = Table("arm", *(Column(header, justify="right", no_wrap=True) for header in COLUMNS), title=title)
    for name, arm in result["arms"].items():
        known = [(arm.get(key), form) for key, form in COLUMNS.values()]
        name += f" ({arm['layout']})" if arm.get("layout") not in (None, name) else " (failed)" if arm["error"] else ""
        shown.add_row(name, *("" if value is None else format(value, form) for value, form in known))
    return shown


def draw_all(report: dict[str, Any], out: Path) -> None:
    """One figure per model; that of the first is throughput.png."""
    for model in dict.fromkeys(result["model"] for result in report["results"]):
        results = [result for result in report["results"] if result["model"] == model]
        file = out / ("throughput.png" if results[0] is report["results"][0] else f"throughput_{model}.png")
        draw(results, f"{model} on {report['hardware']['device']}", file)
        print(f"wrote {file}", flush=True)


def draw(results: list[dict[str, Any]], title: str, file: Path) -> None:
    """A row per data set. Left: where the time of a step goes, in the first dtype. Right: pairs/s beside trl's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets, dtypes = (list(dict.fromkeys(result[key] for result in results)) for key in ("data", "dtype"))
    pyplot.rcParams.update({"font.size": 12, "axes.spines.top": False, "axes.spines.right": False})
    shape = {"figsize": (12, 1.2 + 2.4 * len(sets)), "layout": "constrained", "squeeze": False, "sharey": "row"}
    figure, axes = pyplot.subplots(len(sets), 2, **shape)
    figure.suptitle(title, fontsize=13)
    for (left, right), name in zip(axes, sets, strict=True):
        of_set = {r["dtype"]: r["arms"] for r in results if r["data"] == name}
        arms = {d: {k: a for k, a in of_set[d].items() if not a["error"]} for d in dtypes if d in of_set}
        draw_parts(left, arms.get(dtypes[0], {}))
        draw_ratios(right, arms, list(next(iter(of_set.values()))))
        for axis, text in ((left, f"{name}: ms per optimizer step, {dtypes[0]}"), (right, "pairs/s, times trl's")):
            axis.set_title(text, loc="left", fontsize=12, fontweight="bold")
    for axis, place in zip(axes[0], ("left", "right"), strict=True):
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc=f"outside lower {place}", ncols=len(labels), frameon=False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def draw_parts(axis: Any, arms: dict[str, Any]) -> None:
    starts = [0.0] * len(arms)
    for part, colour in zip(PARTS, ("#9aa5b1", "#4c78a8", "#1f3f66", "#f2a541", "#d1495b"), strict=True):
        widths = [max(arm["ms_per_step"][part], 0.0) for arm in arms.values()]
        axis.barh(list(arms), widths, 0.7, starts, label=part, color=colour)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]


def draw_ratios(axis: Any, arms: dict[str, dict[str, Any]], names: list[str]) -> None:
    height = 0.8 / len(arms)
    for i, (dtype, of_dtype) in enumerate(arms.items()):
        ratios = [of_dtype.get(name, {}).get("x_trl_total", 0.0) for name in names]
        places = [j + (i - (len(arms) - 1) / 2) * height for j in range(len(names))]
        bars = axis.barh(places, ratios, height * 0.9, label=dtype, color=("#2a7f62", "#8cc9a1")[i])
        labels = [f"{r:.2f}" if name in of_dtype else "no result" for name, r in zip(names, ratios, strict=True)]
        axis.bar_label(bars, labels, padding=3, fontsize=10)
    axis.axvline(1.0, color="#666666", linewidth=1, linestyle=":")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.margins(x=0.12)


def hardware(device: str, threads: int) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    name = torch.cuda.get_device_name() if device == "cuda" else f"{cpu}, {threads} threads"
    versions = {package: version(package) for package in ("torch", "transformers", "trl", "peft", "rmlab")}
    return {"device": name, "cpu": cpu, "cores": os.cpu_count(), "threads": threads, **versions}


# ---- command line ----


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], help="default: both; with --gpu bf16")
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, "shared_prefix"], help="default: all but shared_prefix")
    parser.add_argument("--batch", type=int, default=16, help="comparisons per step where each is one pair")
    parser.add_argument("--comparisons", type=int, default=2, help="comparisons per step where each has more pairs")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5, help="that count; one to warm up and one for parts are added")
    parser.add_argument("--steps-per-round", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES), help="of --gpu")
    for flag in ("--gpu", "--toy", "--draw"):
        parser.add_argument(flag, action="store_true")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.batch, arguments.comparisons, arguments.max_length = 4, 2, 256
        arguments.rounds, arguments.steps_per_round, arguments.hidden, arguments.layers = 2, 2, 64, 2
    arguments.dtypes = arguments.dtypes or (["bfloat16"] if arguments.gpu else ["float32", "bfloat16"])
    return arguments


def model_configs(arguments: argparse.Namespace, tokenizer: Any) -> dict[str, dict[str, Any]]:
    """Options of Qwen3Config by name."""
    hidden, layers, heads = arguments.hidden, arguments.layers, arguments.hidden // 64
    sizes = {f"Qwen3-{hidden}x{layers}": (hidden, layers, heads, max(heads // 2, 1), 64)}
    if arguments.gpu:
        sizes = {name: SIZES[name] for name in arguments.models}
    if arguments.toy:
        sizes = {f"{name}-toy": (64, 2, 2, 1, 32) for name in sizes}
    rest = {"vocab_size": 151936 if arguments.gpu and not arguments.toy else len(tokenizer), "num_labels": 1}
    rest["pad_token_id"] = tokenizer.pad_token_id
    return {n: {**dict(zip(SIZE, s, strict=True)), "intermediate_size": 3 * s[0], **rest} for n, s in sizes.items()}


def main() -> None:
    arguments = parse()
    out, file = arguments.out, arguments.out / "throughput.json"
    if arguments.draw:
        return draw_all(json.loads(file.read_text()), out)
    out.mkdir(parents=True, exist_ok=True)
    quiet()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if arguments.gpu and torch.cuda.is_available() else "cpu"
    needed = (1 + arguments.rounds + PART_ROUNDS) * arguments.steps_per_round * arguments.comparisons
    loaded = {name: load_set(name, needed, arguments) for name in arguments.data}
    tokenizer = train_tokenizer(itertools.chain(*(texts(rows) for rows, _ in loaded.values())))
    trees = {name: decided(tokenize(rows, tokenizer, options, name)) for name, (rows, options) in loaded.items()}
    report: dict[str, Any] = {"hardware": hardware(device, arguments.threads), "results": []}
    sizes = model_configs(arguments, tokenizer)
    for (model, config), data, dtype in itertools.product(sizes.items(), arguments.data, arguments.dtypes):
        pairs = len(trees[data][0]["better"])
        setting = Setting(
            model=model,
            config=config,
            lora=model.startswith("Qwen3-8B"),
            weights=dtype if arguments.gpu else "float32",
            data=data,
            dtype=dtype,
            batch=arguments.batch if pairs == 1 else arguments.comparisons,
            pairs_each=pairs,
            steps=arguments.steps_per_round,
            rounds=arguments.rounds,
            device=device,
            threads=arguments.threads,
        )
        print(f"{model}, {data}, {dtype}", flush=True)
        few = ("trl", "trl_best", "auto")  # every arm holds a model of its own: of 8B, three fit one device
        arms = arguments.arms or (few if setting.lora else ARMS)
        report["results"].append(measure(setting, trees[data], arms, tokenizer, out))
        file.write_text(json.dumps(report, indent=1))
        Console(width=140).print(table(report["results"][-1]))
    draw_all(report, out)


if __name__ == "__main__":
    main()
