"""Length taken off rewards: a known bias goes, what it hid comes back, and files are what reports read."""

import numpy as np
import pytest
from comparisons import scored

from rmlab import UserError
from rmlab.commands import lab
from rmlab.lab.length import Curve, Price, difference, numbers, without
from rmlab.runner.scores import read_scores, write_scores


def biased(count=400, seed=0, price=0.05):
    """Pairs whose rewards are quality and a logarithm of length; quality alone decides who is better."""
    rng, made = np.random.default_rng(seed), []
    for n in range(count):
        quality, lengths = np.sort(rng.normal(size=2))[::-1], rng.integers(5, 300, 2)
        rewards = quality + 20 * price * np.log(lengths)
        made.append(scored(rewards.tolist(), [0], [1], lengths=lengths.tolist(), prompt=f"p{n}", index=n))
    return made


def test_a_known_bias_is_found_and_taken_off():
    """From other prompts; the curve is the logarithm, up to what its window smooths."""
    curve = Curve.of(biased(1500, seed=1), window=0.2)
    lengths = np.array([60.0, 120.0, 240.0])
    assert np.diff(curve(lengths)) == pytest.approx(np.diff(np.log(lengths)), abs=0.15)
    before = biased()
    after = without(before, curve)
    told, changed = numbers(before), numbers(after)
    assert told["reward and length"]["value"] > 0.3
    assert abs(changed["reward and length"]["value"]) < 0.1
    assert changed["accuracy, better is shorter"]["value"] > told["accuracy, better is shorter"]["value"] + 0.2
    assert difference(before, after)["low"] > 0
    assert difference(before, after)["value"] == pytest.approx(changed["accuracy"]["value"] - told["accuracy"]["value"])


def test_a_price_is_that_of_each_token_and_the_mean_reward_stays():
    """By hand: lengths 10 and 30 are 5 and 15 off, 10 on average."""
    (found,) = without([scored([1.0, 2.0], [0], [1], lengths=[10, 30])], Price(0.5))
    assert found.rewards == pytest.approx([1 - 5 + 10, 2 - 15 + 10])


def test_beyond_the_lengths_that_were_fitted_the_curve_stays_as_it_is():
    curve = Curve.of(biased(), window=2 / 3)
    assert curve(np.array([0.0, 10_000.0])) == pytest.approx(curve.rewards[[0, -1]])


def test_changed_scores_are_a_file_of_scores(tmp_path, capsys):
    fit, use, out = (tmp_path / f"{name}.parquet" for name in ("fit", "use", "out"))
    write_scores(biased(60, seed=1), fit)
    write_scores(biased(60), use)
    lab.main(["length", str(fit), str(use), "-o", str(out)])
    expected = without(read_scores(use).comparisons(), Curve.of(read_scores(fit).comparisons(), 2 / 3))
    found = read_scores(out).comparisons()
    assert [c.rewards for c in found] == [pytest.approx(c.rewards, abs=1e-5) for c in expected]
    assert [c.id for c in found] == [c.id for c in expected]
    printed = capsys.readouterr().out
    assert "difference in accuracy" in printed
    assert "60 decided preferences" in printed
    lab.main(["length", str(use), "--penalty", "0.1"])
    assert "A token costs 0.1." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["use"], "give FIT.parquet and APPLY.parquet"),
        (["use", "use", "--penalty", "1"], "with --penalty APPLY.parquet alone"),
        (["use", "use", "--window", "0"], "--window is 0.0"),
        (["use", "use", "-o", "o.csv"], "o.csv: scores are written as parquet"),
        (["use", "gone"], "cannot read"),
        (["other", "use"], "is no scores/SET.parquet of a run"),
    ],
)
def test_files_that_do_not_fit_are_named(arguments, message, tmp_path, capsys):
    write_scores(biased(20), tmp_path / "use.parquet")
    read_scores(tmp_path / "use.parquet").responses[["id"]].to_parquet(tmp_path / "other.parquet")
    read_scores(tmp_path / "use.parquet").preferences.to_parquet(tmp_path / "other.preferences.parquet")
    files = [str(tmp_path / f"{word}.parquet") if word in ("use", "gone", "other") else word for word in arguments]
    with pytest.raises(SystemExit):
        lab.main(["length", *files])
    assert message in capsys.readouterr().err


def test_responses_that_are_all_as_long_have_no_curve():
    with pytest.raises(UserError, match="all responses to fit are as long"):
        Curve.of([scored([1.0, 0.0], [0], [1], lengths=[7, 7])], 0.5)
