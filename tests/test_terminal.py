"""What a run of a sweep prints goes to its log, whoever prints it and however; what is told does not."""

import logging
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from rmlab.messages import say
from rmlab.terminal import Lines, is_logged, only_logged, tell


def test_everything_but_what_is_told_is_logged(tmp_path, capfd):
    log, older = tmp_path / "rmlab.log", logging.StreamHandler()
    log.write_text("of an earlier try\n")
    with only_logged(log):
        print("printed")
        os.write(2, b"written by C\n")
        subprocess.run(["echo", "of a child"], check=True)
        print("of an error", file=sys.stderr)
        say("said")
        say("said at once", now=True)
        tell("told")
        assert is_logged()
    print("afterwards")
    older.emit(logging.LogRecord("x", logging.INFO, "", 0, "of a logger", None, None))
    out, error = capfd.readouterr()
    assert out == "said at once\ntold\nafterwards\n"
    assert error == "of a logger\n"
    lines = log.read_text().splitlines()
    assert lines == ["of an earlier try", "printed", "written by C", "of a child", "of an error"]
    assert not is_logged()


def test_a_logger_made_inside_speaks_where_its_process_does(tmp_path, capfd):
    """transformers makes its handler in the first run; in the second it writes to the log of that."""
    for run in ("first", "second"):
        with only_logged(tmp_path / run):
            if run == "first":
                handler = logging.StreamHandler()
            handler.emit(logging.LogRecord("x", logging.INFO, "", 0, f"in the {run}", None, None))
    handler.emit(logging.LogRecord("x", logging.INFO, "", 0, "after both", None, None))
    assert [(tmp_path / run).read_text() for run in ("first", "second")] == ["in the first\n", "in the second\n"]
    assert "after both" in capfd.readouterr().err


def test_what_is_told_reaches_the_terminal_of_a_process(tmp_path):
    """Here stdout is that of the system, and no stream of pytest's."""
    code = f"""
from pathlib import Path
from rmlab.terminal import only_logged, tell
try:
    with only_logged(Path({str(tmp_path / "log")!r})):
        print("printed")
        tell("told: é")
        raise KeyError
except KeyError:
    print("afterwards")
"""
    options = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True, "check": True}
    assert subprocess.run([sys.executable, "-c", code], **options).stdout == "told: é\nafterwards\n"
    assert (tmp_path / "log").read_text() == "printed\n"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (["a\nb", "c\n"], "a\nbc\n"),
        (["\r 10%", "\r 50%", "\r100%\n"], "100%\n"),
        (["\r 10%", "\r      \r", "{'loss': 1}\n", "\r 20%", "\r\n"], "{'loss': 1}\n 20%\n"),
        (["\r 10%\r     \r\n", "\n"], "\n"),
    ],
)
def test_of_a_progress_bar_the_last_state_is_kept(written, kept, tmp_path):
    with (tmp_path / "log").open("wb") as file:
        lines = Lines(file.fileno())
        for text in written:
            assert lines.write(text) == len(text)
    assert (tmp_path / "log").read_text() == kept
