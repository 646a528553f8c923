"""Arms and their names, and what is told of runs that are missing or differ."""

import pytest
from studies import write_run, write_study

from rmlab.messages import UserError
from rmlab.report.arms import shorten
from rmlab.report.study import load_study
from rmlab.runner.config import computed
from rmlab.runner.directory import RunDirectory


@pytest.fixture
def study(tmp_path):
    """Two losses, three seeds, 60 prompts: margin is right 8 times more of them, for every seed."""
    return write_study(tmp_path)


# ---- arms ----


def test_arms_are_what_varies_and_seeds_are_replicates(study):
    loaded = load_study(study)
    assert list(loaded.arms) == ["plain", "margin"]
    assert loaded.baseline == "plain"
    assert loaded.question == "Which is best?"
    assert [run.seed for run in loaded.arms["margin"]] == [0, 1, 2]
    assert loaded.notes == []


def test_arms_are_named_by_options_and_by_the_shortest_keys(tmp_path):
    for rate in (0.001, 0.01):
        write_run(tmp_path, 0, [1.0, -1.0], trainer__learning_rate=rate)
        write_run(tmp_path, 0, [1.0, -1.0], loss="margin", trainer__learning_rate=rate)
    write_run(tmp_path, 0, [1.0, 2.0], loss="margin", loss__center={"weight": 0.01}, trainer__learning_rate=0.01)
    assert set(load_study(tmp_path).arms) == {
        "plain learning_rate=0.001",
        "plain learning_rate=0.01",
        "margin learning_rate=0.001",
        "margin learning_rate=0.01",
        "margin center.weight=0.01 learning_rate=0.01",
    }


def test_numbers_are_in_their_order_and_the_baseline_first(tmp_path):
    for rows in (1000, 250, None, 500):
        write_run(tmp_path, 0, [1.0, -1.0], data__max_rows=rows, report__baseline="max_rows=500")
    assert list(load_study(tmp_path).arms) == ["max_rows=500", "max_rows=250", "max_rows=1000", "max_rows=none"]
    assert load_study(tmp_path, baseline="max_rows=250").baseline == "max_rows=250"
    with pytest.raises(UserError, match="--baseline: no arm 'max_rows=25'; did you mean 'max_rows=250'"):
        load_study(tmp_path, baseline="max_rows=25")


def test_values_that_are_nearly_the_same_are_two_arms(tmp_path):
    for rate in (0.00012345678, 0.00012345679):
        write_run(tmp_path, 0, [1.0, -1.0], trainer__learning_rate=rate)
    assert list(load_study(tmp_path).arms) == ["learning_rate=0.00012345678", "learning_rate=0.00012345679"]


def test_keys_are_short_but_tell_apart():
    short = shorten(["loss.a.margin", "loss.center.weight", "trainer.lr", "model.lr"])
    assert list(short.values()) == ["margin", "center.weight", "trainer.lr", "model.lr"]


def test_an_ambiguous_baseline_is_refused_unless_tuning_makes_it_one(tmp_path):
    for rate in (0.001, 0.01):
        write_run(tmp_path, 0, [1.0, -1.0], trainer__learning_rate=rate)
    write_run(tmp_path, 0, [1.0, -1.0], loss="margin")
    with pytest.raises(UserError, match="--baseline: 'plain' may be 'plain learning_rate"):
        load_study(tmp_path, baseline="plain")
    assert load_study(tmp_path, baseline="plain", tune=["trainer.learning_rate"]).baseline.startswith("plain ")


# ---- what is told of the runs ----


def test_folders_that_are_no_runs_are_not_read(study):
    """A report, a reproduction put beside the runs, somebody's config.yaml."""
    (study / "report").mkdir()
    (study / "notes").mkdir()
    (study / "notes" / "config.yaml").write_text("")
    copy = write_run(study, 9, [1.0] * 60)
    copy.write_reproduction({})
    assert len(load_study(study).runs) == 6


@pytest.mark.parametrize(
    ("environment", "note"),
    [
        ({"code": "other"}, "different code of rmlab"),
        ({"packages": {"torch": "2.12.0"}}, 'different versions of torch: 6 runs "2.13.0", 1 run "2.12.0"'),
        ({"inputs": {"a.jsonl": "22"}}, "different contents of a.jsonl"),
        ({"python": "3.11"}, "different Python"),
        ({"hardware": {"machine": "x86_64", "cpus": 2, "threads": 4}}, "different hardware"),
    ],
)
def test_runs_of_other_code_versions_or_data_are_flagged(study, environment, note):
    write_run(study, 3, [1.0] * 60, environment=environment)
    notes = [n for n in load_study(study).notes if "different" in n]
    assert len(notes) == 1
    assert note in notes[0]


def test_more_cores_are_no_difference(study):
    write_run(study, 3, [1.0] * 60, environment={"hardware": {"machine": "x86_64", "cpus": 64, "threads": 1}})
    assert not any("different" in note for note in load_study(study).notes)


def test_a_config_that_was_edited_after_its_run_is_flagged(study):
    run = RunDirectory(next(study.glob("plain-s0-*")))
    config = run.config()
    run.write_environment({**run.environment(), "config": computed(config)})
    assert load_study(study).notes == []
    config["trainer"]["learning_rate"] = 0.5
    run.write_config(config)
    assert f"config.yaml of {run.name} was changed after it ran" in load_study(study).notes


def test_a_damaged_run_is_named_and_the_others_are_compared(study):
    """As the first one: a report of the rest is better than a traceback."""
    out = next(study.glob("margin-s1-*"))
    (out / "metrics.json").write_text("")
    loaded = load_study(study)
    assert [run.seed for run in loaded.finished if run.arm == "margin"] == [0, 2]
    assert any(f"{out.name} (margin, seed 1) is damaged: cannot read" in note for note in loaded.notes)
