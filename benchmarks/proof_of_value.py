"""Does a change of the code change a number? A dozen small runs, kept before and after it and compared bit for bit.

    python benchmarks/proof_of_value.py record before      # in a checkout of the old code
    python benchmarks/proof_of_value.py record after       # in the new one, on the same machine and packages
    python benchmarks/proof_of_value.py compare before after

Layouts x losses x adapters x frozen layers x streams x two processes x a resumed run, on one thread; with real data in
the folder RMLAB_DATA and an encoder in RMLAB_ENCODER four more. Compared are metrics.json, and every reward and every
preference in scores/. Rounding is that of a machine, so record both on one.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from rmlab.runner.compare_runs import undiagnosed

TINY = [
    "run.threads=1", "logger=none", "study=proof", "data.train.synthetic.prompts=480", "data.eval_fraction=0.25",
    "trainer.learning_rate=2e-3", "trainer.warmup_steps=0.05", "trainer.num_train_epochs=2", "trainer.weight_decay=0.1",
    "trainer.per_device_train_batch_size=16", "trainer.logging_steps=5", "trainer.save_steps=5",
    "trainer.max_grad_norm=1.0", "trainer.lr_scheduler_type=cosine",
]  # fmt: skip
SMALL = [  # pinned, so that another default is not taken for another code
    "model.config.hidden_size=64", "model.config.num_hidden_layers=2", "model.config.intermediate_size=192",
    "model.config.num_attention_heads=4", "model.config.num_key_value_heads=2",
    "model.config.rope_parameters={{rope_type: default, rope_theta: 10000.0}}",
]  # fmt: skip
RUNS: dict[str, list[str]] = {
    "plain, shared prefix": ["loss=plain", "scoring.layout=shared_prefix"],
    "margin, padded": ["loss=margin", "scoring.layout=padded"],
    "centered, packed": ["loss=centered", "scoring.layout=packed"],
    "K = 4, mean per prompt, centered": [
        "loss=centered", "data.train.synthetic.responses=4", "data.pair_weighting=prompt",
        "trainer.per_device_train_batch_size=6", "data.train.synthetic.tie_width=0.3",
    ],
    "micro-batches by tokens": ["loss=margin", "trainer.tokens_per_batch=400", "trainer.gradient_accumulation_steps=2"],
    "evaluated on the way, best model": [
        "loss=plain", "trainer.eval_strategy=steps", "trainer.eval_steps=10", "trainer.save_steps=10",
        "trainer.load_best_model_at_end=true", "trainer.metric_for_best_model=accuracy",
    ],
    "LoRA": ["loss=plain", "peft=lora"],
    "LoRA with dropout, margin": ["loss=margin", "peft=lora", "peft.lora_dropout=0.1"],
    "head alone": ["loss=plain", "{train_layers}=0", "trainer.learning_rate=0.03"],
    "last layer": ["loss=centered", "{train_layers}=1"],
    "two processes": ["loss=centered", "trainer.per_device_train_batch_size=8", "trainer.use_cpu=true"],
    "stream": [
        "loss=plain", "data=files", "data.path={folder}/pairs.jsonl", "data.streaming=true", "trainer.max_steps=20",
        "+data.eval.dev={{source: load, path: {folder}/dev.jsonl}}",
    ],
    "mixture, grouped by prompt": [
        "loss=margin", "data=files", "data.path={folder}/pairs.jsonl", "data.group_by_prompt=true",
        "+data.train.more={{source: load, path: {folder}/dev.jsonl, weight: 1.5}}", "data.overlong=truncate",
        "data.max_length=24", "data.identical=drop",
    ],
    "killed and resumed": ["loss=margin", "trainer.num_train_epochs=3"],
}  # fmt: skip
REAL: dict[str, list[str]] = {
    "hh, encoder": ["experiment=hh_minilm", "data.path={data}/hh_harmless.jsonl.gz"],
    "Topical-Chat, K = 6, encoder": ["experiment=topical_chat_minilm", "data.path={data}/topical_chat.json.gz"],
    "PandaLM, last layer of an encoder": [
        "experiment=pandalm_minilm", "data.path={data}/pandalm.json.gz", "{train_layers}=1", "data.max_length=256",
    ],
    "QA-Feedback, K = 4, long prompts": ["data=qa_feedback", "data.path={data}/qa_feedback.json.gz", *TINY, *SMALL],
}  # fmt: skip
QUICK = ["run.threads=1", "logger=none", "study=proof", "model.path={encoder}", "trainer.max_steps=12"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    record_parser = commands.add_parser("record", help="train the runs into a folder")
    record_parser.add_argument("folder", type=Path)
    record_parser.add_argument("--module", default="rmlab.commands.train", help="what python -m runs as rmlab")
    record_parser.add_argument("--train-layers", default="model.train_last_layers", help="that key in older code")
    record_parser.add_argument("--only", help="the runs whose name holds this")
    compare_parser = commands.add_parser("compare", help="two such folders")
    compare_parser.add_argument("folders", type=Path, nargs=2)
    options = parser.parse_args()
    if options.command == "record":
        record(options)
    else:
        sys.exit(compare(*options.folders))


# ---- record ----


def record(options: argparse.Namespace) -> None:
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder)
    runs = {name: [*TINY, *SMALL, *RUNS[name]] for name in RUNS}
    data, encoder = os.environ.get("RMLAB_DATA"), os.environ.get("RMLAB_ENCODER")
    if data and encoder:
        runs |= {name: [*(QUICK if "encoder" in name else []), *REAL[name]] for name in REAL}
    for name, overrides in runs.items():
        if options.only and options.only not in name:
            continue
        out = folder / name.replace(" ", "_").replace(",", "").replace("=", "")
        values = {"folder": folder, "data": data, "encoder": encoder, "train_layers": options.train_layers}
        rows = any(o.startswith(("data=", "experiment=")) for o in overrides)  # and not synthetic ones
        given = [o.format(**values) for o in overrides if not (rows and ".synthetic." in o)]
        started = time.time()
        train(name, [*given, f"run.dir={out}", f"run.cache_dir={folder}/cache"], options.module, out)
        print(f"{name}: {time.time() - started:.0f} s", flush=True)


def train(name: str, overrides: list[str], module: str, out: Path) -> None:
    command = [sys.executable, "-m", module]
    if name == "two processes":
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", module]
    if name == "killed and resumed":
        process = subprocess.Popen([*command, *overrides], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(out.glob("checkpoints/checkpoint-15/whole")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run([*command, *overrides], capture_output=True, text=True, check=False)
    if done.returncode or not (out / "metrics.json").exists():
        raise SystemExit(f"{name}: {done.stdout[-1500:]}{done.stderr[-3000:]}")


def write_rows(folder: Path) -> None:
    """Pairs of text with margins, two to a prompt, in two files of different prompts."""
    for file, first, count in (("pairs.jsonl", 0, 300), ("dev.jsonl", 1000, 80)):
        rows = [
            {
                "prompt": f"Tell me about thing {(first + n) // 2} , please : ",
                "chosen": f"Gladly , thing {n % 7} is {'very ' * (n % 5)}fine .",
                "rejected": f"Ugh , thing {n % 3} is {'not ' * (n % 4)}fine .",
                "margin": 0.5 + n % 3,
            }
            for n in range(count)
        ]
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# ---- compare ----


def compare(before: Path, after: Path) -> int:
    """A line per run; exit status 1 if any number differs."""
    places = sorted(f.parent.name for f in before.glob("*/metrics.json") if (after / f.parent.name / f.name).exists())
    worst = 0
    print(f"| {'run':38} | accuracy | nll      | rewards | metrics   | scores    |")
    print(f"| {'-' * 38} | -------- | -------- | ------- | --------- | --------- |")
    for place in places:
        then, now = (json.loads((folder / place / "metrics.json").read_text()) for folder in (before, after))
        rewards, same_scores = compare_scores(before / place, after / place)
        first = next(iter(now["eval"].values()))
        same_metrics = undiagnosed(then) == undiagnosed(now)  # diagnostics are functions of the rewards
        words = ["identical" if same else "DIFFERENT" for same in (same_metrics, same_scores)]
        worst |= "DIFFERENT" in words
        print(
            f"| {place:38} | {first['accuracy']:.4f}   | {first['nll']:.6f} | {rewards:7} | {words[0]} | {words[1]} |"
        )
    return int(worst)


def compare_scores(before: Path, after: Path) -> tuple[int, bool]:
    """(number of rewards, whether the later run has all files and columns of the earlier one, with the same rows)."""
    files = [sorted(f.name for f in (folder / "scores").glob("*.parquet")) for folder in (before, after)]
    count, same = 0, {*files[0]} <= {*files[1]}
    for name in files[0]:
        then, now = (pd.read_parquet(folder / "scores" / name) for folder in (before, after))
        same &= then.equals(now.reindex(columns=then.columns))
        count += len(then) if "reward" in then else 0
    return count, same


if __name__ == "__main__":
    main()
