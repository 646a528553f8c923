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
import itertools
import json
import os
import platform
import statistics
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table
from throughput_arms import PARTS, Arm, quiet, synchronize
from throughput_data import (
    PART_ROUNDS,
    SETS,
    SIZE,
    TRL_ARMS,
    Setting,
    batches_of_arm,
    decided,
    load_set,
    make_batches,
    texts,
    train_tokenizer,
)
from throughput_figure import draw_all

import rmlab
from rmlab.data.prepare import tokenize
from rmlab.data.trees import TokenTree, common_prefix

SIZES = {"Qwen3-0.6B": (1024, 28, 16, 8, 128), "Qwen3-8B": (4096, 36, 32, 8, 128)}  # in the order of SIZE
ARMS = (*TRL_ARMS, "padded", "packed", "auto")
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


def useful_flops(setting: Setting, trees: list[TokenTree]) -> float:
    """The least work that trains on these comparisons, the same for all arms, whatever they compute.

    What responses of a comparison share is computed once; in the last layer, what comes after attention is computed
    only where a reward is read. A token costs 2 FLOPs per weight in the forward pass and 4 in the backward pass (2 with
    LoRA, as frozen weights need no gradient). For each key that it sees, in each layer, it costs 4 heads head_dim in
    the forward pass and 8 in the backward pass. Checkpointing's second forward pass is not useful.
    """
    tokens = keys = read = 0
    for tree in trees:
        before: list[int] = []
        for ids in sorted(tree.responses):
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


def measure(setting: Setting, trees: list[TokenTree], names: list[str], tokenizer: Any, out: Path) -> dict[str, Any]:
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


# ---- output and command line ----


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


def hardware(device: str, threads: int) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    name = torch.cuda.get_device_name() if device == "cuda" else f"{cpu}, {threads} threads"
    versions = {package: version(package) for package in ("torch", "transformers", "trl", "peft")}
    return {
        "device": name,
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        **versions,
        "rmlab": rmlab.__version__,
    }


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
        pairs = len(trees[data][0].better)
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
