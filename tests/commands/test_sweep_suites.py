"""Benchmark suites in sweeps: named on the command line or in a file, and added to runs that are finished."""

import json

import pytest
import yaml
from sweeping import TINY, here, metrics

from rmlab.files import read


def suites_of(place):
    return {run.name: {file.stem for file in run.glob("suites/*.json")} for run in place.glob("runs/s/*-s*")}


@pytest.mark.slow
def test_a_sweep_scores_its_suites_and_later_those_that_are_new(tmp_path):
    rows = [{"prompt": f"q {n}", "chosen": f"yes {n}", "rejected": "no"} for n in range(3)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    here(tmp_path, *TINY, "logger=none", "seed=0", "eval=[rows]", f"eval.rows.path={file}")
    assert [*suites_of(tmp_path).values()] == [{"rows"}]
    before = metrics(tmp_path)

    (tmp_path / "sweeps").mkdir()
    entries = {"rows": {"path": str(file)}, "more": {"suite": "rows", "path": str(file)}}
    (tmp_path / "sweeps" / "more.yaml").write_text(yaml.safe_dump({
        "defaults": ["train", {"override debug": "tiny"}, {"override eval": ["rows"]}, "_self_"],
        "study": "s", "eval": entries,
        "hydra": {"mode": "MULTIRUN", "sweeper": {"params": {"seed": "0,1"}}},
    }))  # fmt: skip
    told = here(tmp_path, "-cd", "sweeps", "-cn", "more", "run.threads=1", "logger=none")
    assert "1 finished (scored on more suites), 1 new" in told
    assert [*suites_of(tmp_path).values()] == [{"rows", "more"}] * 2
    assert before.items() < metrics(tmp_path).items()
    whole = [read(f)["totals"] for f in tmp_path.glob("runs/s/*-s0-*/suites/*.json")]
    assert whole[0] == whole[1]
