"""A power law whose numbers are known is found again, and none is fitted where there is none to see."""

import numpy as np
import pandas as pd
import pytest
from studies import write_run

from rmlab.commands.report import main
from rmlab.messages import UserError
from rmlab.report.figures.power_law import power_law
from rmlab.report.items import load_items
from rmlab.report.power_law import fitted, power_laws
from rmlab.report.study import load_study

SIZES = (250, 1000, 4000, 16000, 64000)


def study_of(folder, sizes=SIZES, seeds=3, prompts=1500, **changes):
    """Error 3 N^-0.5 + 0.1: each prompt is hard to a degree of its own, and a run is right on those that are easy."""
    noise = np.random.default_rng(0)
    hard = noise.uniform(size=prompts)
    for seed in range(seeds):
        for size in sizes:
            wrong = hard + noise.normal(0, 0.02, prompts) < 3 * size**-0.5 + 0.1
            write_run(folder, seed, np.where(wrong, -1.0, 1.0), data__max_rows=size, **changes)
    return load_study(folder)


def laws_of(study, key=None):
    return power_laws(study, {"eval": load_items(study, "eval")}, key)


def test_numbers_without_noise_are_found_exactly():
    sizes = np.array(SIZES, dtype=float)
    true = np.array([[4.0, 0.4, 0.05], [2.0, 0.25, 0.0], [0.0, 0.0, 0.3]])
    found = fitted(sizes, true[:, :1] * sizes ** -true[:, 1:2] + true[:, 2:])
    assert found[:, 1] == pytest.approx(true[:, 1], rel=0.02)
    assert found[:, 2] == pytest.approx(true[:, 2], abs=0.005)


def test_a_known_law_is_within_its_intervals(tmp_path):
    law = next(law for law in laws_of(study_of(tmp_path)) if law.metric == "error")
    for place, true in ((1, 0.5), (2, 0.1)):
        low, high = law.interval(place)
        assert low < true < high
    assert law.interval(1)[1] - law.interval(1)[0] < 0.5
    _, low, high = law.predicted(np.array([256000.0]))
    assert low[0] < 3 * 256000**-0.5 + 0.1 < high[0]
    assert law.misfit < 0.1


def test_every_group_of_arms_has_its_own_law(tmp_path):
    study_of(tmp_path, SIZES[:4], seeds=1, prompts=60)
    study = study_of(tmp_path, SIZES[:3], seeds=1, prompts=60, loss="margin")
    assert {law.group for law in laws_of(study)} == {"plain"}


def test_fewer_than_four_sizes_are_no_law(tmp_path):
    study = study_of(tmp_path, SIZES[:3], seeds=1, prompts=60)
    assert laws_of(study) == []
    with pytest.raises(UserError, match="a law needs 4 sizes"):
        laws_of(study, "data.max_rows")


def test_the_report_has_the_law(tmp_path, capsys):
    study = study_of(tmp_path, SIZES[:4], seeds=2, prompts=40)
    main([str(tmp_path), "--no-figures"])
    text = (tmp_path / "report" / "table.md").read_text()
    assert "**Power law of data.max_rows on eval: Error (1 - accuracy) = a N^-b + c" in text
    assert "| 4: 250 to 16,000 | 2 |" in text
    table = pd.read_csv(tmp_path / "report" / "power_laws.csv")
    assert table[["metric", "arm", "sizes"]].to_numpy().tolist() == [
        ["error", "all", "250 1000 4000 16000"],
        ["nll", "all", "250 1000 4000 16000"],
    ]
    drawn = power_law(laws_of(study))
    points = [list(line.get_xdata()) for line in drawn.canvas.axes[0].lines]
    assert [250.0, 1000.0, 4000.0, 16000.0] in points
