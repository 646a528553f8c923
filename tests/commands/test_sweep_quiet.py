"""A sweep prints a line per run, which says what came of it; all else is in the logs of the runs."""

import json
import signal

import pytest
from conftest import make_pairs
from sweeping import TINY, here, metrics

from rmlab.commands.progress import in_words
from rmlab.training.trainer import RewardTrainer


def test_a_sweep_prints_a_line_per_run_and_its_logs_the_rest(tmp_path):
    printed = here(tmp_path, *TINY, "seed=0,1")
    assert len(printed.splitlines()) <= 2 + 6, printed
    for run, content in metrics(tmp_path).items():
        of_set = json.loads(content)["eval"]["eval"]
        assert f"] {run}  accuracy {of_set['accuracy']:.3f}  nll {of_set['nll']:.3f}  " in printed
        log = (tmp_path / "runs" / "s" / run / "rmlab.log").read_text()
        for said in ("64 comparisons of 64 rows", "layout shared_prefix", "'loss':", "true rewards", "100%"):
            assert log.count(said) >= 1, said
            assert said not in printed, said
        assert log.count("64 comparisons of 64 rows") == 1
        assert "\r" not in log


def test_v_shows_all_as_a_single_run_does(tmp_path):
    printed = here(tmp_path, *TINY, "-v")
    for said in ("run runs/s/plain-s0-", "64 comparisons of 64 rows", "'loss':", "true rewards", "[1/1] plain-s0-"):
        assert said in printed, said


def test_a_warning_that_several_runs_share_is_told_once(tmp_path):
    make_pairs(40).to_json(str(tmp_path / "my.jsonl"))
    printed = here(tmp_path, *TINY, "data=files", "data.path=my.jsonl", "loss=margin", "seed=0,1")
    assert printed.count("warning: loss.bradley_terry.margin is set, but no row states a strength") == 1
    assert printed.index("warning: loss") < printed.index("[1/2] ")


def test_ctrl_c_is_answered_on_the_terminal(tmp_path, monkeypatch):
    step = RewardTrainer.training_step

    def training_step(self, *arguments, **options):
        if self.state.global_step == 0:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments, **options)

    monkeypatch.setattr(RewardTrainer, "training_step", training_step)
    printed = here(tmp_path, *TINY, "seed=0,1", status=130)
    assert "SIGINT: a checkpoint is written after this step; once more ends it at once" in printed
    assert "stopped, with a checkpoint; the same command goes on from step 1" in printed
    assert printed.endswith("rmlab: interrupted; the same command goes on where this one stopped\n")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99.4, "99 s"), (100, "1.7 min"), (1500, "25 min"), (5990, "100 min"), (11520, "3.2 h")],
)
def test_times_have_two_or_three_digits(seconds, words):
    assert in_words(seconds) == words
