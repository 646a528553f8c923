"""Label noise end to end: runs that hold out other halves, what their models deny, and training on the rows again."""

from copy import deepcopy

import pandas as pd
import pytest

from rmlab.commands.lab import main
from rmlab.runner.run import run


def small(composed, out, **data):
    config = deepcopy(composed)
    config["data"]["train"]["synthetic"] |= {"prompts": 64, "label_noise": 0.25}
    config["data"] |= {"limit": None, "eval_fraction": 0.5, **data}
    config["run"] |= {"cache_dir": str(out.parent / "cache")}
    return run(config, out)


@pytest.mark.slow
def test_rows_that_are_written_again_can_be_trained_on(composed, tmp_path):
    study = tmp_path / "study"
    for split in range(2):
        small(composed, study / f"plain-s0-{split}", split_seed=split)
    cleaned = tmp_path / "clean.jsonl"
    main(["noise", str(study), "--in-sample", "--write", "down-weight", str(cleaned)])
    known = pd.read_csv(study / "lab" / "noise.csv")
    assert set(known["by"]) == {"suspicion", "in_sample", "gold"}
    assert known["average_precision"].between(0, 1).all()
    metrics = small(composed, tmp_path / "again", train={"clean": {"source": "load", "path": str(cleaned)}})
    assert metrics["eval"]["eval"]["preferences"] > 20
