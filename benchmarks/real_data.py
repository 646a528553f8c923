"""Held-out accuracy of rmlab and of TRL's RewardTrainer on real preferences: same rows, split, tokens, initial weights
and hyperparameters, three seeds.

    python benchmarks/real_data.py hh_minilm DATA/hh_harmless.jsonl.gz --model FOLDER_OF_AN_ENCODER
    python benchmarks/real_data.py topical_chat_minilm DATA/topical_chat.json.gz --model FOLDER_OF_AN_ENCODER

rmlab runs as its users run it, by the command line, into runs/EXPERIMENT. TRL gets the token trees of that run as
`chosen_ids` and `rejected_ids`. Where TRL has no notion for it, it does without: ties are left out, and comparisons
of K > 2 responses become independent pairs, as many per batch as rmlab's batch holds. Both are then measured by
rmlab's metrics on the same comparisons. Writes runs/EXPERIMENT/against_trl.json and prints a table.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table

from rmlab.data.sets import build_sets, load_rows
from rmlab.data.trees import TokenTree
from rmlab.metrics.evaluate import evaluate
from rmlab.metrics.scored import ScoredComparison
from rmlab.model.load import load_model
from rmlab.model.tokenizer import load_tokenizer
from rmlab.runner.config import Config
from rmlab.runner.directory import RunDirectory
from rmlab.scoring.batch import Padded, unscored


def run_rmlab(experiment: str, data: str, model: str, seed: int, overrides: list[str]) -> tuple[Path, float]:
    """The run directory of one run by the command line, and its seconds."""
    started = time.time()
    arguments = [f"experiment={experiment}", f"data.path={data}", f"model.path={model}", f"seed={seed}", *overrides]
    done = subprocess.run(["rmlab", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    line = next(x for x in done.stdout.splitlines() if x.startswith(("run ", "skipped ")))
    return Path(line.split()[1].rstrip(":")), time.time() - started


def run_trl(config: Config, seed: int) -> tuple[dict, float, dict]:
    """Metrics of TRL's RewardTrainer on the sets of `config`, its seconds, and its own evaluation numbers."""
    import trl

    tokenizer = load_tokenizer(config.model)
    sets = build_sets(load_rows(config.data), config.data, tokenizer)
    train = sets.train
    model = load_model(config.model, seed)
    not_trls = ("save_strategy", "save_steps", "tokens_per_batch")  # of memory and disk, they change no number
    settings = {k: v for k, v in config.trainer.items() if k not in not_trls}
    pairs = train.num_rows and round(sum(map(len, train["better"])) / len(train))
    settings["per_device_train_batch_size"] *= pairs
    margin = bool(config.loss["bradley_terry"]["margin"])
    trainer = trl.RewardTrainer(
        model=model,
        args=trl.RewardConfig(
            output_dir="runs/trl",
            seed=seed,
            data_seed=seed,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            report_to="none",
            save_strategy="no",
            **settings,
        ),
        train_dataset=as_pairs(train, margin),
        eval_dataset=as_pairs(sets.eval["eval"], margin),
        processing_class=tokenizer,
    )
    started = time.time()
    trainer.train()
    seconds = time.time() - started
    return evaluate(score_all(trainer.model, sets.eval["eval"], tokenizer.pad_token_id)), seconds, trainer.evaluate()


def as_pairs(trees: Dataset, margin: bool) -> Dataset:
    """One row per decided preference, as TRL takes tokenised pairs."""
    rows = []
    for tree in map(TokenTree.of, trees):
        for better, worse, strength, probability in zip(
            tree.better, tree.worse, tree.strength, tree.probability, strict=True
        ):
            if probability == 0.5:
                continue
            ids = [tree.responses[k] for k in (better, worse)]
            rows.append({"chosen_ids": ids[0], "rejected_ids": ids[1], **({"margin": strength} if margin else {})})
    return Dataset.from_list(rows)


@torch.no_grad()
def score_all(model: torch.nn.Module, trees: Dataset, pad_token_id: int) -> list[ScoredComparison]:
    """The comparisons of a set with rewards from the model's own forward, one comparison at a time."""
    model.eval()
    scored = []
    for tree in map(TokenTree.of, trees):
        rewards = model(**vars(Padded.of(tree.responses, pad_token_id))).logits.float().squeeze(-1)
        scored.append(replace(unscored(tree), rewards=rewards.tolist()))
    return scored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trl-seeds", type=int, nargs="*", help="of TRL; by default the same seeds")
    parser.add_argument("overrides", nargs="*", help="further overrides for both")
    arguments = parser.parse_intermixed_args()
    rows = []
    for seed in arguments.seeds:
        place, seconds = run_rmlab(arguments.experiment, arguments.data, arguments.model, seed, arguments.overrides)
        ours = RunDirectory(place).metrics()["eval"]["eval"]
        config = Config.of(RunDirectory(place).config())
        row = {"seed": seed, "rmlab": ours, "seconds": seconds}
        if arguments.trl_seeds is None or seed in arguments.trl_seeds:
            row["trl"], row["trl_seconds"], row["trl_own"] = run_trl(config, seed)
        rows.append(row)
        told = f"TRL {row['trl']['accuracy']:.4f}" if "trl" in row else "TRL not run"
        print(f"seed {seed}: rmlab {ours['accuracy']:.4f}, {told}", flush=True)
    table = Table(title=f"{arguments.experiment}: {rows[0]['rmlab']['preferences']} held-out preferences")
    for column in ("metric", *(f"seed {r['seed']}" for r in rows), "mean"):
        table.add_column(column, justify="right")
    for name in ("rmlab", "trl"):
        for metric in ("accuracy", "nll", "ece"):
            values = [r[name][metric] if name in r else None for r in rows]
            known = [v for v in values if v is not None]
            mean = f"{statistics.mean(known):.4f}" if known else ""
            table.add_row(f"{name} {metric}", *("" if v is None else f"{v:.4f}" for v in values), mean)
    Console().print(table)
    Path(f"runs/{arguments.experiment}/against_trl.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    sys.exit(main())
