"""Two processes train what one does: the same steps and metrics, whatever each rank's micro-batches are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, kwise_rows, make_model, trainer_for

from rmlab.data.tokenizer import build_tokenizer
from rmlab.losses import Term, build_loss

# One per pair, and one of the whole step: both ranks know the mean reward of all.
TERMS = [
    *build_loss({"bradley_terry": {"margin": 0.0}, "center": {"weight": 0.1}}),
    Term("drift", 0.5, lambda preferences: preferences.rewards.mean().square(), "step"),
]


def train(out, ranks, budget, layout):
    """Six rows per optimizer step over all ranks; an evaluation set that no number of ranks divides."""
    trainer = trainer_for(
        make_model(), build_tokenizer(), out, kwise_rows(24), kwise_rows(7, seed=3), layout=layout,
        tokens_per_batch=budget, per_device_train_batch_size=6 // ranks, train_sampling_strategy="sequential",
        optim="sgd", learning_rate=0.05, lr_scheduler_type="constant", max_steps=4, logging_steps=1,
        max_grad_norm=1.0, prompt_overlap="allow", loss=TERMS,
    )  # fmt: skip
    trainer.train()
    metrics = trainer.evaluate()
    kept = ("loss", "grad_norm", "accuracy", "gap_mean", "loss_center", "loss_drift")
    return {
        "steps": [{k: e[k] for k in kept} for e in trainer.state.log_history if "loss" in e],
        "eval": {k: v for k, v in metrics.items() if isinstance(v, float | int) and "per_second" not in k},
        "rows": [c.index for c in trainer.evaluations["eval"].comparisons],
        "weights": {n: p.double().sum().item() for n, p in trainer.model.named_parameters()},
        "ranks": trainer.accelerator.num_processes,
    }


@pytest.mark.parametrize(
    ("budget", "layout"),
    [(70, "auto"), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(None, "auto"), (200, "padded")])],
)
def test_two_ranks_train_and_evaluate_as_one(budget, layout, tmp_path):
    """With a budget the ranks have different numbers of micro-batches and exchange gradients once per step."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__]
    arguments = [str(tmp_path), json.dumps(budget), layout]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([*launch, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    two = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    one = train(tmp_path, 1, budget, layout)
    assert [two[0]["ranks"], one["ranks"]] == [2, 1]
    assert two[0]["weights"] == two[1]["weights"]
    assert two[0]["weights"] == pytest.approx(one["weights"], rel=1e-4, abs=1e-4)
    for ours, theirs in zip(two[0]["steps"], one["steps"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    assert two[0]["rows"] == list(range(7))
    assert two[0]["eval"].keys() >= {"eval_accuracy", "eval_nll"}
    times = {"eval_runtime"}
    assert {k: v for k, v in two[0]["eval"].items() if k not in times} == pytest.approx(
        {k: v for k, v in one["eval"].items() if k not in times}, rel=1e-4, abs=1e-5
    )


if __name__ == "__main__":
    place, budget, layout = sys.argv[1:]
    rank = os.environ["RANK"]
    found = train(Path(place) / "out", 2, json.loads(budget), layout)
    (Path(place) / f"rank{rank}.json").write_text(json.dumps(found))
