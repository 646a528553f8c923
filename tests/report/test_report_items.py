"""Items of an evaluation set: the same for all runs, matched by what they are."""

import numpy as np
import pandas as pd
import pytest
from studies import write_run, write_study

from rmlab.messages import UserError
from rmlab.report.items import load_items
from rmlab.report.study import load_study


@pytest.fixture
def study(tmp_path):
    """Two losses, three seeds, 60 prompts: margin is right 8 times more of them, for every seed."""
    return write_study(tmp_path)


def test_items_are_matched_by_what_they_are_not_by_their_order(tmp_path):
    """A run that dropped a row (too long for its tokenizer, say) is compared on the others."""
    gaps = np.array([1.0, -2.0, 3.0, -4.0])
    write_run(tmp_path, 0, gaps)
    other = write_run(tmp_path, 0, gaps * 10, loss="margin")
    for file in ("eval.parquet", "eval.preferences.parquet"):
        table = pd.read_parquet(other.path / "scores" / file)
        table[table.comparison != 1].iloc[::-1].to_parquet(other.path / "scores" / file, index=False)
    items = load_items(load_study(tmp_path), "eval")
    assert items.left_out == 1
    gaps = {str(arm): sorted(gap) for arm, gap in zip(items.arm, items.gap, strict=True)}
    assert gaps == {"plain": [-4.0, 1.0, 3.0], "margin": [-40.0, 10.0, 30.0]}
    assert np.allclose(items.gap[0] / items.gap[1], 10) or np.allclose(items.gap[1] / items.gap[0], 10)


def test_values_are_the_metrics_of_the_runs(study):
    loaded = load_study(study)
    items = load_items(loaded, "eval")
    values = np.nanmean(items.values(), axis=2)
    for run, of_run in zip(items.runs, values, strict=True):
        told = run.metrics["eval"]["eval"]
        assert of_run == pytest.approx([told["accuracy"], told["nll"], told["brier"]], abs=1e-6)


@pytest.mark.parametrize("column", ["strength", "probability"])
def test_runs_with_different_labels_are_not_compared(study, column):
    """The same preferences, but one arm was evaluated on other votes: neither labels would be right for both."""
    file = next(study.glob("margin-s1-*")) / "scores" / "eval.preferences.parquet"
    table = pd.read_parquet(file)
    table.loc[3, column] = 0.75
    table.to_parquet(file, index=False)
    with pytest.raises(UserError, match="were scored on eval with different labels"):
        load_items(load_study(study), "eval")


def test_runs_without_common_items_are_an_error(tmp_path, capsys):
    write_run(tmp_path, 0, [1.0, -1.0])
    write_run(tmp_path, 0, [1.0, -1.0], loss="margin", prompts=["other", "prompts"])
    with pytest.raises(UserError, match="no items of eval in common"):
        load_items(load_study(tmp_path), "eval")
    for run in load_study(tmp_path).finished:
        run.out.scores_file("eval").unlink()
    with pytest.raises(UserError, match=r"holds no finished run.* is damaged: scores/eval.parquet is gone"):
        load_items(load_study(tmp_path), "eval")


def test_merged_rows_that_differ_are_not_paired(tmp_path):
    write_run(tmp_path, 0, [1.0, -1.0, 2.0], data__group_by_prompt=True)
    write_run(tmp_path, 0, [1.0, -1.0], loss="margin", data__group_by_prompt=True)
    with pytest.raises(UserError, match="group_by_prompt merged them"):
        load_items(load_study(tmp_path), "eval")


def test_a_run_whose_rewards_are_no_numbers_is_left_out_and_named(study):
    out = next(study.glob("margin-s1-*"))
    table = pd.read_parquet(out / "scores" / "eval.parquet")
    table.loc[3, "reward"] = np.nan
    table.to_parquet(out / "scores" / "eval.parquet", index=False)
    loaded = load_study(study)
    items = load_items(loaded, "eval")
    assert len(items.runs) == 5
    assert any("1 preferences whose rewards are no numbers" in note for note in loaded.notes)


def test_a_subset_has_its_own_items_and_prompts(tmp_path):
    write_run(tmp_path, 0, [1.0, -1.0, 2.0, 3.0], subsets=["a", "b", "a", "b"], prompts=["p", "q", "p", "r"])
    items = load_items(load_study(tmp_path), "eval")
    assert items.subsets() == ["a", "b"]
    part = items.of_subset("b")
    assert part.gap.tolist() == [[-1.0, 3.0]]
    assert part.prompt.tolist() == [0, 1]
    assert items.largest == (0.5, pytest.approx(16 / 6))
