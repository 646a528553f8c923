"""Comparisons on one prompt become one."""

from dataclasses import replace

from conftest import tree_of

from rmlab.data.merge import merge


def test_merged_rows_keep_gold_rewards_only_where_all_have_them():
    """Half a list of gold rewards could not be matched with its responses."""
    one, other = tree_of([[5, 6], [5, 7]]), tree_of([[5, 6], [5, 8]])
    whole = replace(one, lengths=[1, 1], gold=[0.5, 1.5])
    half = replace(other, lengths=[1, 1], gold=[])
    assert merge([whole, replace(half, gold=[0.5, -1.0])]).gold == [0.5, 1.5, -1.0]
    assert merge([whole, half]).gold == []
    assert merge([half, whole]).gold == []
