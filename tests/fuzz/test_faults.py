"""A run that is disturbed at one of its stages ends, when it is run again, with the numbers of one that was not."""

import importlib
import json

import pytest
from conftest import ROOT


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("faults")


@pytest.fixture
def stages(faults):
    return importlib.import_module("faults_stages")


def test_every_stage_is_where_the_matrix_looks_for_it(stages):
    for name, stage in stages.STAGES.items():
        for hook in stage.hooks:
            owner, attribute = stages.resolve(hook)
            assert callable(getattr(owner, attribute)), name


def test_a_stage_that_was_renamed_is_noticed(stages):
    with pytest.raises(AttributeError, match="rotated"):
        stages.resolve("rmlab.training.checkpoints:rotated")


def test_a_cell_that_is_none_is_refused_and_the_others_are_all_run(faults):
    assert len(faults.chosen([])) == len(faults.FAULTS) * len(faults.STAGES) == 50
    with pytest.raises(ValueError, match="killed:chekpoint"):
        faults.chosen(["killed:chekpoint"])


@pytest.fixture
def places(faults, tmp_path):
    """(a place, the reference), alike to the byte."""
    for name in ("found", "reference"):
        run = tmp_path / name / "work" / "run"
        for file in ("scores/eval.parquet", "model/model.safetensors", "checkpoints/checkpoint-4/whole"):
            (run / file).parent.mkdir(parents=True)
            (run / file).write_text("numbers")
        for file in ("metrics.json", "history.json", "environment.json", "config.yaml"):
            (run / file).write_text(json.dumps({"seed": 0}))
    return faults.Place(tmp_path / "found"), tmp_path / "reference"


def test_what_is_the_same_passes(places):
    place, reference = places
    place.compare(reference)


@pytest.mark.parametrize(
    "name", ["metrics.json", "history.json", "scores/eval.parquet", "model/model.safetensors", "config.yaml"]
)
@pytest.mark.parametrize("harm", ["cut", "zeroed", "removed"])
def test_a_result_that_is_harmed_fails(faults, places, name, harm):
    place, reference = places
    {h.__name__: h for h in faults.HARMS}[harm](place.work / "run" / name)
    with pytest.raises(faults.Failed, match=name):
        place.compare(reference)


def test_a_bit_and_a_scratch_file_are_noticed(faults, places):
    place, reference = places
    (place.work / "run" / "scores" / "eval.tmp").touch()
    with pytest.raises(faults.Failed, match="left behind"):
        place.compare(reference)
    file = place.work / "run" / "model" / "model.safetensors"
    before = file.read_bytes()
    faults.HARMS[2](file)
    assert len(file.read_bytes()) == len(before)
    with pytest.raises(faults.Failed, match="another"):
        place.compare(reference)


@pytest.mark.parametrize(
    ("status", "text", "wrong"),
    [
        (2, "rmlab: error: the disk is full\n 25%|##  | 1/4", None),
        (1, "Traceback (most recent call last):\nOSError", "traceback"),
        (2, "nothing", "0 sentences"),
        (0, "rmlab: error: the disk is full", "exit status 0"),
    ],
)
def test_an_end_is_one_sentence(faults, status, text, wrong):
    ended = faults.Ended(status, text)
    if wrong is None:
        assert ended.sentence() == "rmlab: error: the disk is full"
        return
    with pytest.raises(faults.Failed, match=wrong):
        ended.sentence()


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["killed:checkpoint", "damaged:metrics"])
def test_a_disturbed_run_gives_the_numbers_of_a_whole_one(faults, tmp_path, cell):
    assert faults.run_cell(*cell.split(":"), tmp_path).startswith("same")
