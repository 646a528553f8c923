"""The mean and spread of known rewards, beside the weights."""

import pytest

from rmlab.messages import UserError
from rmlab.metrics.scored import ScoredComparison
from rmlab.model.reference import REFERENCE, Reference, keep_reference, read_reference, write_reference


def test_what_was_written_is_read(tmp_path):
    write_reference(tmp_path, [1.0, 2.0, 6.0], "some.jsonl")
    assert read_reference(tmp_path) == Reference(3.0, pytest.approx(14**0.5 / 3**0.5), "some.jsonl", 3)


@pytest.mark.parametrize("rewards", [[], [1.0], [2.0, 2.0]])
def test_rewards_without_a_spread_measure_nothing(rewards, tmp_path):
    with pytest.raises(UserError, match=r"the rewards of x have no spread"):
        write_reference(tmp_path, rewards, "x")
    scored = ScoredComparison(0, "", "", "", rewards, [], [], [], [], [], [])
    keep_reference(tmp_path, [scored], "x")
    assert not (tmp_path / REFERENCE).exists()


@pytest.mark.parametrize("content", ['{"mean": 1}', "[]", "{"])
def test_a_damaged_one_is_one_sentence(content, tmp_path):
    (tmp_path / REFERENCE).write_text(content)
    with pytest.raises(UserError, match=REFERENCE):
        read_reference(tmp_path)
