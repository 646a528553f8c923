"""Reading and tokenising many preferences: rmlab beside TRL's RewardTrainer, cold and cached, in time and memory.

    python benchmarks/data_scale.py FOLDER -o results --rows 100000 1000000 --repeats 3

FOLDER (or RMLAB_DATA) holds hh_harmless.jsonl.gz, whose rows are repeated with a running number in their prompts. Both
read the same JSON lines with the same tokenizer, maximal length and number of processes, each time in a process of its
own: cold with empty caches, then cached. They take turns. Seconds are those between the imports and the tokens; memory
is that of the process and its children at its highest: its own, and all that is resident, with pages of files, which
the system takes back when it needs them. Linux only.
"""

import argparse
import gzip
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ARMS = ("rmlab", "trl")
TURN = "\n\nHuman: "
MEMORY = ("own_mb", "resident_mb")
SAMPLE = 0.1  # seconds between two looks at the memory


def main() -> None:
    arguments = parse()
    if arguments.measure:
        print(json.dumps(MEASURES[arguments.measure](arguments)))
        return
    results = []
    with tempfile.TemporaryDirectory() as place:
        tokenizer = arguments.tokenizer or save_tokenizer(Path(place) / "tokenizer", arguments.folder)
        for rows in arguments.rows:
            file = write_rows(Path(place) / f"{rows}.jsonl", rows, arguments.folder)
            results += [
                {"rows": rows, "repeat": repeat, **measured(arm, file, tokenizer, state, arguments, Path(place) / arm)}
                for repeat in range(arguments.repeats)
                for arm in ARMS
                for state in ("cold", "cached")
            ]
            file.unlink()
    arguments.out.mkdir(parents=True, exist_ok=True)
    content = {"arguments": {k: str(v) for k, v in vars(arguments).items()}, "cpus": os.cpu_count(), "results": results}
    (arguments.out / "data_scale.json").write_text(json.dumps(content, indent=2))
    print(table(results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=os.environ.get("RMLAB_DATA"))
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--tokenizer", help="a folder; by default one of 8192 tokens, trained on the rows")
    parser.add_argument("--measure", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("give the folder of hh_harmless.jsonl.gz, or set RMLAB_DATA to it")
    arguments.folder = Path(arguments.folder)
    return arguments


# ---- rows ----


def dialogues(folder: Path) -> list[dict[str, str]]:
    with gzip.open(folder / "hh_harmless.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def write_rows(file: Path, number: int, folder: Path) -> Path:
    """So many rows, no two of which have the same prompt."""
    with file.open("w") as stream:
        for n, row in enumerate(itertools.islice(itertools.cycle(dialogues(folder)), number)):
            numbered = {side: f"{TURN}{n}. {text.removeprefix(TURN)}" for side, text in row.items()}
            stream.write(json.dumps(numbered) + "\n")
    return file


def save_tokenizer(place: Path, folder: Path) -> str:
    from throughput_data import train_tokenizer

    texts: Iterator[str] = (text for row in dialogues(folder) for text in row.values())
    train_tokenizer(texts).save_pretrained(str(place))
    return str(place)


# ---- one measurement, from outside ----


def measured(
    arm: str, file: Path, tokenizer: str, state: str, arguments: argparse.Namespace, place: Path
) -> dict[str, Any]:
    """Seconds, rows, tokens and the highest memory (MB) of one preparation. place: of its caches."""
    if state == "cold":
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    command = [sys.executable, __file__, str(arguments.folder), "--measure", arm, "--file", str(file)]
    command += ["--tokenizer", tokenizer, "--processes", str(arguments.processes), "-o", str(place)]
    command += ["--max-length", str(arguments.max_length)]
    env = {**os.environ, "HF_HOME": str(place / "hf"), "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1"}
    told = {name: place / f"{name}.txt" for name in ("stdout", "stderr")}  # a pipe that nobody reads would fill up
    with told["stdout"].open("w") as out, told["stderr"].open("w") as errors:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=errors)
        memory = watched(process)
    if process.returncode:
        raise SystemExit(f"{arm} ended with {process.returncode}: {told['stderr'].read_text()[-2000:]}")
    result = {"arm": arm, "state": state, **json.loads(told["stdout"].read_text().splitlines()[-1]), **memory}
    print(f"  {file.stem} rows, {state}: {result}", flush=True)
    return result


def watched(process: "subprocess.Popen[bytes]") -> dict[str, float]:
    """The highest sums over a process and its children, until it ends."""
    highest = dict.fromkeys(MEMORY, 0.0)
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        sums = dict.fromkeys(MEMORY, 0.0)
        for one in family(parent):
            try:
                info = one.memory_info()
            except psutil.NoSuchProcess:
                continue
            sums["own_mb"] += (info.rss - info.shared) / 1e6
            sums["resident_mb"] += info.rss / 1e6
        highest = {key: max(highest[key], sums[key]) for key in MEMORY}
        time.sleep(SAMPLE)
    return {key: round(value, 1) for key, value in highest.items()}


def family(parent: psutil.Process) -> list[psutil.Process]:
    try:
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


# ---- one measurement, from inside ----


class Clock:
    """Seconds since it was made, and those that the CPUs worked, for this process and the children that have ended."""

    def __init__(self) -> None:
        self.started = self.now()

    def now(self) -> tuple[float, float]:
        times = os.times()
        return times.elapsed, times.user + times.system + times.children_user + times.children_system

    def spent(self) -> dict[str, float]:
        seconds, worked = (after - before for before, after in zip(self.started, self.now(), strict=True))
        return {"seconds": round(seconds, 2), "cpu_seconds": round(worked, 2)}


def rmlab_seconds(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch  # noqa: F401  (TRL has it too)
    from transformers import AutoTokenizer

    from rmlab.data.config import DataConfig
    from rmlab.data.counts import tables
    from rmlab.data.sets import build_sets, load_rows

    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    source = {"source": "load", "path": arguments.file}
    config = DataConfig(train={"hh": source}, eval_fraction=0.0, max_length=arguments.max_length)
    clock = Clock()
    trees: Any = build_sets(load_rows(config), config, tokenizer, arguments.out / "cache", arguments.processes).train
    spent = clock.spent()
    lengths = (
        len(prefix) * len(suffixes) + sum(map(len, suffixes))
        for table in tables(trees.select_columns(["prefix", "suffixes"]))
        for prefix, suffixes in zip(table["prefix"].to_pylist(), table["suffixes"].to_pylist(), strict=True)
    )
    return {**spent, "kept": len(trees), "tokens": sum(lengths)}


def trl_seconds(arguments: argparse.Namespace) -> dict[str, Any]:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    trainer: Any = object.__new__(RewardTrainer)  # its preparation asks nothing of it
    several = arguments.processes if arguments.processes > 1 else None
    args = RewardConfig(
        output_dir=str(arguments.out / "trl"), max_length=arguments.max_length, dataset_num_proc=several,
        report_to="none", use_cpu=True, bf16=False,
    )  # fmt: skip
    clock = Clock()
    dataset = load_dataset("json", data_files=arguments.file, split="train")
    rows = trainer._prepare_dataset(dataset, tokenizer, args, "train")
    spent = clock.spent()
    sides = (batch[side] for batch in rows.iter(1000) for side in ("chosen_ids", "rejected_ids"))
    return {**spent, "kept": len(rows), "tokens": sum(len(ids) for side in sides for ids in side)}


MEASURES = {"rmlab": rmlab_seconds, "trl": trl_seconds}


# ---- the table ----


def table(results: list[dict[str, Any]]) -> str:
    """Medians of rmlab and TRL, and TRL's divided by rmlab's."""
    lines = [f"{'rows':>10} {'':7}{'seconds':>24}{'CPU seconds':>24}{'own MB':>24}{'resident MB':>24}"]
    for rows in sorted({r["rows"] for r in results}):
        for state in ("cold", "cached"):
            cells = []
            found = [r for r in results if (r["rows"], r["state"]) == (rows, state)]
            for key in ("seconds", "cpu_seconds", *MEMORY):
                ours, theirs = (statistics.median(r[key] for r in found if r["arm"] == arm) for arm in ARMS)
                cells.append(f"{ours:,.1f} / {theirs:,.1f} = {theirs / ours:.2f}x".rjust(24))
            lines.append(f"{rows:>10,} {state:7}{''.join(cells)}")
    return "\n".join([*lines, "each: rmlab / TRL = how many times as much TRL takes; medians"])


if __name__ == "__main__":
    main()
