"""Arms and their names, and what is told of runs that are missing or differ."""

import pytest
from studies import write_run, write_study

from rmlab.messages import UserError
from rmlab.report.arms import shorten
from rmlab.report.items import load_items, presented
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
    assert load_study(tmp_path, baseline="max_rows=25").baseline == "max_rows=250"  # what only it begins with
    with pytest.raises(UserError, match="--baseline: no arm 'max_row=250'; did you mean 'max_rows=250'"):
        load_study(tmp_path, baseline="max_row=250")


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


def test_the_first_arm_made_is_the_baseline(tmp_path):
    """Whatever its name, and whatever comes later."""
    write_run(tmp_path, 0, [1.0, -1.0], loss="zeta", environment={"started": 100.0})
    write_run(tmp_path, 0, [1.0, -1.0], loss="alpha", trainer__learning_rate=0.1, environment={"started": 200.0})
    assert list(load_study(tmp_path).arms) == ["zeta", "alpha"]
    write_run(tmp_path, 0, [1.0, -1.0], loss="beta", trainer__learning_rate=0.2, environment={"started": 150.0})
    assert list(load_study(tmp_path).arms) == ["zeta", "beta", "alpha"]


def test_what_did_not_finish_renames_nothing(study):
    """A failed run of another size, and one that never began: the arms keep their names, those two have their own."""
    write_run(study, 0, model__config={"hidden_size": 128}).write_error(RuntimeError("no"))
    write_run(study, 5)
    loaded = load_study(study)
    assert list(loaded.arms) == ["plain", "plain hidden_size=128", "margin"]
    assert [run.state for run in loaded.arms["plain"]] == ["finished"] * 3 + ["new"]


def test_a_stray_run_lengthens_no_other_name(tmp_path):
    """Most arms share its odd key; what another key says as well is not said either."""
    for loss in ("plain", "margin", "centered", "hinge"):
        write_run(tmp_path, 0, [1.0, -1.0], loss=loss)
    write_run(tmp_path, 0, [1.0, -1.0], model__config={"hidden_size": 128}, trainer__learning_rate=0.5)
    loaded = load_study(tmp_path)
    assert list(loaded.arms) == ["plain", "plain hidden_size=128", "margin", "centered", "hinge"]


def test_arms_and_runs_are_left_out_by_name(study):
    write_run(study, 0, [1.0] * 60, trainer__learning_rate=0.5)
    assert len(load_study(study).arms) == 3
    loaded = load_study(study, exclude=["learning_rate=0.5"])
    assert list(loaded.arms) == ["plain", "margin"]
    assert loaded.notes == ["left out by --exclude learning_rate=0.5: 1 run"]
    assert [run.seed for run in load_study(study, exclude=["margin-s1"]).arms["margin learning_rate=0.001"]] == [0, 2]
    with pytest.raises(UserError, match="--exclude: no arm or run 'margn'"):
        load_study(study, exclude=["margn"])


def test_several_studies_are_one(tmp_path):
    """The same arm of both has the seeds of both; a folder of studies stands for them."""
    for name, seeds in (("a", (0, 1)), ("b", (2, 3))):
        for seed in seeds:
            write_run(tmp_path / name, seed, [1.0, -1.0])
            write_run(tmp_path / name, seed, [1.0, -1.0], loss="margin")
    loaded = load_study([tmp_path / "a", tmp_path / "b"])
    assert {arm: [run.seed for run in runs] for arm, runs in loaded.arms.items()} == {
        "plain": [0, 1, 2, 3],
        "margin": [0, 1, 2, 3],
    }
    assert loaded.title == "Study a + b"
    assert load_study(tmp_path).arms.keys() == loaded.arms.keys()


def test_arms_are_renamed_and_put_in_order(study):
    for seed in range(3):
        write_run(study, seed, [1.0] * 60, loss="hinge", trainer__learning_rate=0.5)
    loaded = load_study(study)
    items = {"eval": load_items(loaded, "eval")}
    shown, renamed = presented(loaded, items, {"margin": "with a margin", "plain": "BT"}, ["hinge"])
    assert list(shown.arms) == ["BT", "hinge", "with a margin"]
    assert shown.baseline == "BT"
    assert set(renamed["eval"].arm) == set(shown.arms)
    with pytest.raises(UserError, match="two arms would have the same name"):
        presented(load_study(study), items, {"margin": "plain"}, [])


# ---- what is told of the runs ----


def test_arms_without_a_seed_of_the_baseline_are_named(tmp_path):
    write_run(tmp_path, 0, [1.0, -1.0], environment={"started": 1.0})
    write_run(tmp_path, 1, [1.0, -1.0], loss="margin", environment={"started": 2.0})
    note = "margin and the baseline, plain, have no seed in common, so no difference is told; train margin with seed 0"
    assert any(found.startswith(note) for found in load_study(tmp_path).notes)


@pytest.mark.parametrize("file", ["metrics.json", "environment.json", "config.yaml", "scores/eval.parquet"])
def test_whatever_file_is_damaged_the_rest_is_reported(study, file):
    out = next(study.glob("margin-s1-*"))
    (out / file).write_bytes(b"\x00\x01{")
    loaded = load_study(study)
    load_items(loaded, "eval")
    assert len(loaded.finished) == 5
    assert any(out.name in note and "is damaged" in note for note in loaded.notes)


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
