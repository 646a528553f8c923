"""Nuisance values: each arm at its best one, without a reward for trying many."""

import numpy as np
import pytest
from studies import write_run

from rmlab.messages import UserError
from rmlab.report.items import load_items
from rmlab.report.study import load_study
from rmlab.report.tune import tuned


def test_tuning_scores_no_item_by_a_value_that_it_chose(tmp_path):
    """Each arm is compared at its best learning rate, chosen on one half of the prompts and scored on the other."""
    generator = np.random.default_rng(6)
    for seed in range(2):
        for rate, level in ((0.001, 0.2), (0.01, 1.0)):
            write_run(tmp_path, seed, generator.normal(level, 1, 200), trainer__learning_rate=rate)
            gaps = generator.normal(level, 1, 200)
            write_run(tmp_path, seed, gaps, loss="margin", trainer__learning_rate=rate)
    loaded = load_study(tmp_path, tune=["trainer.learning_rate"])
    assert len(loaded.arms) == 4
    fitted, items, notes = tuned(loaded, {"eval": load_items(loaded, "eval")})
    assert list(fitted.arms) == ["plain", "margin"]
    assert fitted.baseline == "plain"
    assert "plain is compared at learning_rate=0.01 (4 of 4 times); 2 were tried" in notes
    grid = load_items(loaded, "eval")
    best = next(r for r in range(8) if grid.arm[r] == "margin learning_rate=0.01" and grid.seed[r] == 1)
    mine = next(r for r in range(4) if items["eval"].arm[r] == "margin" and items["eval"].seed[r] == 1)
    assert np.array_equal(items["eval"].gap[mine], grid.gap[best])
    with pytest.raises(UserError, match="weight_decay' does not vary"):
        load_study(tmp_path, tune=["trainer.weight_decay"])


@pytest.mark.slow
def test_tuning_does_not_reward_trying_more_values(tmp_path):
    """No value is better, seeds and items are luck. The best of 8 looks better on its own items and seeds alone."""
    naive, honest = [], []
    for study in range(12):
        generator = np.random.default_rng(study)
        folder = tmp_path / str(study)
        for rate in range(8):
            for seed in range(3):
                gaps = generator.normal(0, 1, 120) + generator.normal(0, 0.3)
                write_run(folder, seed, gaps, trainer__learning_rate=rate)
        loaded = load_study(folder, tune=["trainer.learning_rate"])
        grid = load_items(loaded, "eval")
        of_arm = [np.nanmean(grid.values()[grid.arm == arm, 0]) for arm in loaded.arms]
        naive.append(max(of_arm))
        _, items, _ = tuned(loaded, {"eval": grid})
        honest.append(float(np.nanmean(items["eval"].values()[:, 0])))
    assert np.mean(naive) > 0.57
    assert np.mean(honest) == pytest.approx(0.5, abs=0.035)


def test_only_the_nuisance_key_that_is_named_goes(tmp_path):
    """loss.center.weight is not data.train.a.weight, though both end alike."""
    for weight in (0.5, 1.0):
        for center in (0.01, 0.1):
            values = {"loss__center": {"weight": center}, "data__train__a__weight": weight}
            write_run(tmp_path, 0, [1.0, -1.0], **values)
    loaded = load_study(tmp_path, tune=["loss.center.weight"])
    fitted, _, _ = tuned(loaded, {"eval": load_items(loaded, "eval")})
    assert list(fitted.arms) == ["a.weight=0.5", "a.weight=1"]


def test_a_sweep_narrowed_on_the_command_line_needs_no_tuning(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed, [1.0, -1.0], report__tune=["trainer.learning_rate"])
    assert load_study(tmp_path).tune == []


def test_a_value_that_diverged_takes_no_seeds_from_the_others(tmp_path):
    """Rate 1 finished one seed of three: it is left out of the choice, with a note; the arm keeps its three seeds."""
    generator = np.random.default_rng(7)
    for seed in range(3):
        for rate in (0.001, 0.01, 1.0):
            gaps = generator.normal(0.5, 1, 40) if rate < 1 or seed == 0 else None
            out = write_run(tmp_path, seed, gaps, trainer__learning_rate=rate)
            if gaps is None:
                out.write_error(FloatingPointError("loss is nan"))
            write_run(tmp_path, seed, generator.normal(0.5, 1, 40), loss="margin", trainer__learning_rate=rate)
    loaded = load_study(tmp_path, tune=["trainer.learning_rate"])
    _, items, notes = tuned(loaded, {"eval": load_items(loaded, "eval")})
    assert sorted(items["eval"].seed[items["eval"].arm == "plain"]) == [0, 1, 2]
    assert "plain learning_rate=1 finished 1 of 3 seeds, and is left out of the choice" in notes
    assert any(note.startswith("plain is compared at") and "3 were tried" in note for note in notes)


def test_a_key_that_the_sweep_tunes_by_is_kept_though_another_implies_it(tmp_path):
    """Each loss was tried at rates of its own, so that the rate tells the loss."""
    for seed in range(2):
        for loss, rates in (("plain", (0.1, 0.2)), ("margin", (0.3, 0.4))):
            for rate in rates:
                told = {"trainer__learning_rate": rate, "report__tune": ["trainer.learning_rate"]}
                write_run(tmp_path, seed, [1.0, -1.0, 2.0], loss=loss, **told)
    loaded = load_study(tmp_path)
    assert loaded.tune == ["trainer.learning_rate"]
    fitted, _, _ = tuned(loaded, {"eval": load_items(loaded, "eval")})
    assert list(fitted.arms) == ["plain", "margin"]
