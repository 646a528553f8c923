"""Responses scored per second by rmlab beside plain transformers and its pipeline, taking turns in one process.

    python benchmarks/scoring_speed.py -o OUT --data DATA_FOLDER            # two models on the CPU
    python benchmarks/scoring_speed.py -o OUT --device cuda --dtype bfloat16 --sizes 0.6B --rows 4000
    python benchmarks/scoring_speed.py -o OUT --memory 10000 100000         # peak memory of rmlab-score, a process each

Rows are pairs of hh_harmless, repeated with a running number in the prompt; without --data they are made up, of random
words and as many tokens. The models are MiniLM (of the environment variable RMLAB_ENCODER, or --model FOLDER) with a
random head, and Qwen3 of a few sizes with random weights. All arms start from text and end with a float each:

    rmlab         RewardModel.score: a prompt is computed once for its responses where the model is causal
    alone         the same with each response in a row of its own, so that nothing is shared
    transformers  AutoModelForSequenceClassification; whole texts sorted by length, batches of as many padded tokens
    pipeline      text-classification with function_to_apply="none", texts sorted by length, --batch-size in a batch

The first round warms up. Writes OUT/scoring_speed.json.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from throughput_data import train_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Qwen3Config, pipeline
from transformers.utils import logging as hf_logging

from rmlab import RewardModel
from rmlab.model.config import ModelConfig
from rmlab.model.load import load_model
from rmlab.model.tokenizer import load_tokenizer
from rmlab.scoring.reward_model import TOKENS, TOKENS_ELSEWHERE

Row = dict[str, str]
LIMIT = 512  # tokens
SEPARATOR = "\n\nAssistant:"
SIZES = {  # hidden, layers, heads, key heads, head_dim
    "toy": (64, 2, 2, 1, 32),
    "small": (512, 6, 8, 4, 64),
    "0.6B": (1024, 28, 16, 8, 128),
    "1.7B": (2048, 28, 16, 8, 128),
}


# ---- rows and models ----


def real_pairs(folder: Path) -> list[Row]:
    with gzip.open(folder / "hh_harmless.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    cut = [[row[side].rpartition(SEPARATOR) for side in ("chosen", "rejected")] for row in rows]
    return [{"prompt": c[0] + c[1], "chosen": c[2], "rejected": r[2]} for c, r in cut if c[0] == r[0]]


def made_up_pairs(count: int = 2000) -> list[Row]:
    """About as long as hh_harmless: prompts of 20 to 220 words, responses of 5 to 80."""
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefghilmnoprstu"), int(draw.integers(2, 8)))) for _ in range(4000)]

    def text(low: int, high: int) -> str:
        return " " + " ".join(draw.choice(words, int(draw.integers(low, high))))

    sides = {"prompt": (20, 220), "chosen": (5, 80), "rejected": (5, 80)}
    return [{name: text(*lengths) for name, lengths in sides.items()} for _ in range(count)]


def repeated(pairs: list[Row], count: int) -> list[Row]:
    return [{**pairs[n % len(pairs)], "prompt": f"{n}. {pairs[n % len(pairs)]['prompt']}"} for n in range(count)]


def save_encoder(source: str, place: Path) -> None:
    """With a random head, as a model that was trained has one."""
    config = ModelConfig(path=source, dtype="float32", attn_implementation=None)
    load_model(config, seed=0).save_pretrained(str(place))
    load_tokenizer(config).save_pretrained(str(place))


def save_decoder(size: str, pairs: list[Row], place: Path, dtype: str) -> None:
    tokenizer = train_tokenizer(text for row in pairs[:2000] for text in row.values())
    hidden, layers, heads, key_heads, head_dim = SIZES[size]
    config = Qwen3Config(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=key_heads,
        head_dim=head_dim, intermediate_size=3 * hidden, vocab_size=len(tokenizer), num_labels=1,
        pad_token_id=tokenizer.pad_token_id, problem_type="regression",
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(place)
    tokenizer.save_pretrained(place)


# ---- arms: texts in, a float per response out ----


def texts_of(rows: list[Row], eos: str | None) -> list[str]:
    """Whole texts as rmlab renders them, which is what any of the others is given."""
    return [row["prompt"] + row[side] + (eos or "") for row in rows for side in ("chosen", "rejected")]


def with_rmlab(model: RewardModel, alone: bool) -> Callable[[list[Row]], np.ndarray]:
    def score(rows: list[Row]) -> np.ndarray:
        given: list[dict[str, str]] = rows
        if alone:
            given = [{"prompt": r["prompt"], "response": r[side]} for r in rows for side in ("chosen", "rejected")]
        return model.score(given).reshape(-1)

    return score


def with_transformers(model: Any, tokenizer: Any, limit: int, budget: int) -> Callable[[list[Row]], np.ndarray]:
    @torch.inference_mode()
    def score(rows: list[Row]) -> np.ndarray:
        ids = tokenizer(texts_of(rows, tokenizer.eos_token), truncation=True, max_length=limit)["input_ids"]
        order = sorted(range(len(ids)), key=lambda n: len(ids[n]), reverse=True)
        found, done = torch.empty(len(ids)), 0
        while done < len(order):
            some = order[done : done + max(1, budget // len(ids[order[done]]))]
            batch = tokenizer.pad({"input_ids": [ids[n] for n in some]}, return_tensors="pt").to(model.device)
            found[some] = model(**batch).logits[:, 0].float().cpu()
            done += len(some)
        return found.numpy()

    return score


def with_pipeline(model: Any, tokenizer: Any, limit: int, size: int) -> Callable[[list[Row]], np.ndarray]:
    made = pipeline("text-classification", model=model, tokenizer=tokenizer, device=model.device)

    def score(rows: list[Row]) -> np.ndarray:
        texts = texts_of(rows, tokenizer.eos_token)
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]), reverse=True)
        told = {"function_to_apply": "none", "batch_size": size, "truncation": True, "max_length": limit}
        found = np.empty(len(texts))
        found[order] = [one["score"] for one in made([texts[n] for n in order], **told)]
        return found

    return score


def whole(place: Path, rows: list[Row]) -> np.ndarray:
    """Which texts are read whole; of others rmlab cuts the prompt, alike for both responses, transformers the end."""
    tokenizer = AutoTokenizer.from_pretrained(place)
    return np.array([len(ids) <= LIMIT for ids in tokenizer(texts_of(rows, tokenizer.eos_token))["input_ids"]])


def arms_of(place: Path, arguments: argparse.Namespace) -> dict[str, Callable[[list[Row]], np.ndarray]]:
    device = torch.device(arguments.device)
    budget = arguments.max_tokens or TOKENS.get(device.type, TOKENS_ELSEWHERE)
    told = {"dtype": arguments.dtype, "device": arguments.device, "tokens_per_batch": budget, "max_length": LIMIT}
    ours = RewardModel(str(place), **told)
    model = AutoModelForSequenceClassification.from_pretrained(place, dtype=getattr(torch, arguments.dtype))
    model, tokenizer = model.to(device).eval(), AutoTokenizer.from_pretrained(place)
    return {
        "rmlab": with_rmlab(ours, alone=False),
        "alone": with_rmlab(ours, alone=True),
        "transformers": with_transformers(model, tokenizer, LIMIT, budget),
        "pipeline": with_pipeline(model, tokenizer, LIMIT, arguments.batch_size),
    }


def measure(place: Path, rows: list[Row], arguments: argparse.Namespace) -> dict[str, Any]:
    """Turn by turn, in an order that rotates; what an arm is faster by is the median of the ratios of a round."""
    arms = arms_of(place, arguments)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    rewards: dict[str, np.ndarray] = {}
    for number in range(1 + arguments.rounds):
        names = list(arms)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            rewards[name] = arms[name](rows)
            seconds[name].append(time.perf_counter() - began)
        print(
            f"  round {number}: {', '.join(f'{name} {took[-1]:.2f} s' for name, took in seconds.items())}", flush=True
        )
    counted = {name: took[1:] for name, took in seconds.items()}
    scale, alike = float(np.abs(rewards["transformers"]).max()), whole(place, rows).reshape(-1, 2).all(1).repeat(2)
    return {
        name: {
            "responses_per_s": 2 * len(rows) / median(took),
            "times_transformers": median(t / own for t, own in zip(counted["transformers"], took, strict=True)),
            "times_pipeline": median(t / own for t, own in zip(counted["pipeline"], took, strict=True)),
            "largest_difference": float(np.abs(rewards[name] - rewards["transformers"])[alike].max(initial=0)) / scale,
            "seconds": took,
        }
        for name, took in counted.items()
    }


# ---- memory ----


def memory(counts: list[int], pairs: list[Row], place: Path, folder: Path) -> list[dict[str, Any]]:
    """Peak resident MB of rmlab-score with a toy model, of as many responses; each in a process of its own."""
    found = []
    for count in counts:
        data = folder / f"{count}.jsonl"
        with data.open("w", encoding="utf-8") as sink:
            sink.writelines(json.dumps(row) + "\n" for row in repeated(pairs, count // 2))
        command = [
            sys.executable,
            "-m",
            "rmlab.commands.score",
            str(place),
            str(data),
            "-o",
            str(folder / f"{count}.out.jsonl"),
        ]
        code = f"import resource, subprocess; subprocess.run({command!r}, check=True)"
        code += "; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
        kib = int(done.stdout.split()[-1]) // (1024 if sys.platform == "darwin" else 1)
        found.append({"responses": count, "peak_mb": kib / 1024, "seconds": time.perf_counter() - began})
        print("  {responses:,} responses: {peak_mb:,.0f} MB, {seconds:.0f} s".format(**found[-1]), flush=True)
    return found


# ---- command line ----


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="the folder of hh_harmless.jsonl.gz; default: made-up rows")
    parser.add_argument("--rows", type=int, default=1000, help="pairs")
    parser.add_argument("--rounds", type=int, default=3, help="that count; one to warm up is added")
    parser.add_argument("--model", nargs="*", help="folders of encoders; default: that of RMLAB_ENCODER, if it is set")
    parser.add_argument(
        "--sizes", nargs="*", choices=list(SIZES), default=["small"], help="of Qwen3 with random weights"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--max-tokens", type=int, help="of a forward; default: rmlab's")
    parser.add_argument("--batch-size", type=int, default=32, help="of the pipeline")
    parser.add_argument("--memory", type=int, nargs="+", metavar="RESPONSES", help="measure memory, and nothing else")
    arguments = parser.parse_args()
    if arguments.model is None:
        arguments.model = [os.environ["RMLAB_ENCODER"]] if "RMLAB_ENCODER" in os.environ else []
    return arguments


def main() -> None:
    arguments = parse()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pairs = made_up_pairs() if arguments.data is None else real_pairs(arguments.data)
    cuda = torch.device(arguments.device).type == "cuda"
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    report: dict[str, Any] = {"device": name, "dtype": arguments.dtype, "rows": arguments.rows, "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        if arguments.memory:
            save_decoder("toy", pairs, place, "float32")
            report["memory"] = memory(arguments.memory, pairs, place, Path(folder))
        else:
            rows = repeated(pairs, arguments.rows)
            for number, model in enumerate([*arguments.model, *arguments.sizes]):
                place = Path(folder) / str(number)
                if number < len(arguments.model):
                    save_encoder(model, place)
                else:
                    save_decoder(model, pairs, place, arguments.dtype)
                label = Path(model).parent.name if number < len(arguments.model) else f"Qwen3 {model}"
                print(f"{label}, {name}, {arguments.dtype}, {arguments.rows:,} pairs", flush=True)
                report["models"][label] = found = measure(place, rows, arguments)
                for arm, told in found.items():
                    line = "{responses_per_s:>9,.1f} responses/s  {times_transformers:5.2f}x transformers  "
                    line += "{times_pipeline:5.2f}x pipeline  rewards within {largest_difference:.0e}"
                    print(f"  {arm:<13}" + line.format(**told), flush=True)
    (arguments.out / "scoring_speed.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
