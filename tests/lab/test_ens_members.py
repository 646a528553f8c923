"""The seeds of an arm as an ensemble: which runs are its members."""

import numpy as np
import pytest
from conftest import make_model, make_pairs
from studies import write_run

from rmlab import RewardModel, UserError, ensemble_of_study


@pytest.fixture
def study(tmp_path, tokenizer):
    """Two arms, the second without models; a run that did not finish."""
    for seed in (0, 1):
        out = write_run(tmp_path, seed, [1.0, -1.0])
        make_model(seed=seed).save_pretrained(out.model)
        tokenizer.save_pretrained(out.model)
        write_run(tmp_path, seed, [1.0, -1.0], loss="margin")
    write_run(tmp_path, 2)
    return tmp_path


def test_the_finished_seeds_of_an_arm_are_its_members(study):
    rows = make_pairs(3)
    ensemble = ensemble_of_study(study, "plain", reduce="min")
    each = [RewardModel(str(run)).score(rows) for run in sorted(study.glob("plain-s[01]*"))]
    assert ensemble.score(rows) == pytest.approx(np.minimum(*each), abs=1e-6)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (None, "has several arms; name one: 'plain', 'margin'"),
        ("marign", "arm: no arm 'marign'; did you mean 'margin'"),
        ("margin", "is a run that has kept no model"),
    ],
)
def test_an_arm_that_is_none_is_named(arm, message, study):
    with pytest.raises(UserError, match=message):
        ensemble_of_study(study, arm)
