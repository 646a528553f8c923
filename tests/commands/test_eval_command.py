"""The `rmlab-eval` command: what it takes, prints, keeps and refuses."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, make_model

from rmlab import RewardModel
from rmlab.commands import evaluate
from rmlab.commands.evaluate import composed, main
from rmlab.files import read
from rmlab.messages import UserError
from rmlab.runner.directory import RunDirectory

ROWS = [{"prompt": f"q {n}", "chosen": f"yes {n}", "rejected": "no"} for n in range(3)]


@pytest.fixture
def model(tokenizer, tmp_path, monkeypatch):
    """A saved model beside a file of rows, in the current folder."""
    monkeypatch.chdir(tmp_path)
    make_model("qwen3").save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return "tiny"


def no_model(monkeypatch):
    def refused(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(evaluate, "loaded", refused)


def test_it_prints_a_table_keeps_the_numbers_and_is_done_once(model, monkeypatch, capsys):
    words = [model, "suite=rows", "eval.rows.path=mine.jsonl"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "value [95%]" in printed
    assert "accuracy" in printed
    out = RunDirectory.of("evals/tiny")
    said = read(out.path / "suites" / "rows.json")
    assert said["totals"]["accuracy"]["items"] == 3
    assert len(out.scores("rows").comparisons()) == 3

    with monkeypatch.context() as patch:
        no_model(patch)
        assert main(words) == 0
    assert "skipped suite rows" in capsys.readouterr().out

    make_model("qwen3", seed=1).save_pretrained("tiny")  # another model of that name
    assert main([*words, "overlong=error"]) == 0
    assert "skipped" not in capsys.readouterr().out
    assert read(out.path / "suites" / "rows.json")["key"] != said["key"]


def test_a_run_measured_in_another_way_keeps_its_results(model, tokenizer, tmp_path, capsys):
    out = RunDirectory(tmp_path / "run")
    out.write_config({"model": {"dtype": "float32"}, "run": {"keep": ["model"]}})
    (tmp_path / "tiny").rename(out.model)
    words = ["run", "suite=rows", "eval.rows.path=mine.jsonl"]
    assert main(words) == 0
    assert (out.path / "suites" / "rows.json").exists()
    before = (out.path / "scores" / "rows.parquet").read_bytes()
    assert main([*words, "max_length=7"]) == 0
    assert (out.path / "scores" / "rows.parquet").read_bytes() == before
    assert read(tmp_path / "evals" / "run" / "suites" / "rows.json")["key"]
    capsys.readouterr()
    assert main([*words, "dtype=float32"]) == 0
    assert "skipped suite rows: it is finished in run" in capsys.readouterr().out


def test_a_suite_does_not_write_over_the_scores_of_a_run(model, tmp_path, capsys):
    out = RunDirectory(tmp_path / "run")
    out.write_config({"model": {"dtype": "float32"}, "run": {"keep": ["model"]}})
    out.write_metrics({"eval": {"dev": {}}, "train": {}})
    (tmp_path / "tiny").rename(out.model)
    assert main(["run", "+eval.dev={suite: rows, path: mine.jsonl}"]) == 1
    assert "eval.dev has the name of an evaluation set" in capsys.readouterr().err
    assert not out.has_scores("dev")


def test_what_fails_costs_no_results(model, capsys):
    words = [model, "suite=rows", "eval.rows.path=mine.jsonl"]
    assert main(words) == 0
    file = RunDirectory.of("evals/tiny").path / "suites" / "rows.json"
    before = file.read_text()
    assert main([*words, "max_length=3", "overlong=error"]) == 1
    assert "overlong=truncate" in capsys.readouterr().err
    assert file.read_text() == before


def test_results_say_how_they_were_measured(model):
    assert main([model, "suite=rows", "eval.rows.path=mine.jsonl", "max_length=7", "dtype=bfloat16"]) == 0
    said = read(RunDirectory.of("evals/tiny").path / "suites" / "rows.json")["measured"]
    assert said == {
        **{"model": "tiny", "dtype": "bfloat16", "max_length": 7, "overlong": "truncate"},
        "chat_template_kwargs": {},
    }


def test_several_models_are_scored_as_one(model, tokenizer):
    make_model("qwen3", seed=1).save_pretrained("other")
    tokenizer.save_pretrained("other")
    words = ["suite=rows", "eval.rows.path=mine.jsonl", "reduce=min"]
    assert main([model, "other", *words]) == 0
    (place,) = Path("evals").iterdir()
    assert place.name.startswith("tiny-and-1-")
    members = [RewardModel(folder).score(ROWS) for folder in (model, "other")]
    found = [c.rewards for c in RunDirectory(place).scores("rows").comparisons()]
    assert np.array(found) == pytest.approx(np.minimum(*members), abs=1e-5)
    said = read(place / "suites" / "rows.json")["measured"]
    assert (said["reduce"], len(said["members"])) == ("min", 2)
    assert main([model, *words]) == 1  # of one model there is nothing to reduce


def test_models_of_two_runs_have_results_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("a/model", "b/model", "a/checkpoint-10", "a/tiny"):
        (tmp_path / place).mkdir(parents=True)
    assert [evaluate.name_of(place) for place in ("a/model", "b/model")] == ["a--model", "b--model"]
    assert evaluate.name_of("a/checkpoint-10") == "a--checkpoint-10"
    assert evaluate.name_of("a/tiny") == "tiny"
    assert evaluate.name_of("org/model") == "org--model"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no suite is named; suite=NAME,NAME takes auto_j"),
        (["suite="], "no suite is named"),
        (["suite=llmbr"], "no suite 'llmbr'; did you mean 'llmbar'?"),
        (["eval=[llmbar,hhhh]"], "no suite 'hhhh'; did you mean 'hhh'?"),
        (["llmbar"], "'llmbar' is no key=value"),
        (["suite=llmbar", "devise=cpu"], "Could not override 'devise'"),
        (["suite=rows", "eval.rows.pth=x"], "eval.rows takes ['path', "),
        (["suite=rows", "eval.rows.path=nowhere.jsonl"], "eval.rows.path: no file or folder 'nowhere.jsonl'"),
        (["suite=auto_j", "eval.auto_j.path=mine.jsonl"], "mine.jsonl row 0 (counting from 0): no column 'scenario'"),
        (["suite=rmb"], "eval.rmb.path is not set"),
        (["+eval.mine={suite: rows}"], "eval.mine takes ['path', "),
    ],
)
def test_what_is_wrong_is_a_sentence_before_the_model_loads(words, sentence, model, monkeypatch, capsys):
    no_model(monkeypatch)
    assert main([model, *words]) == 1
    assert sentence in capsys.readouterr().err


def test_a_model_that_is_not_there_is_a_sentence(model, capsys):
    assert main([model, "suite=rows", "eval.rows.path=mine.jsonl", "dtype=fp32"]) == 1
    assert "error: dtype: torch has no dtype 'fp32'" in capsys.readouterr().err
    assert main(["./nowhere", "suite=rows", "eval.rows.path=mine.jsonl"]) == 1
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["suite=llmbar,hhh"], ["suite=[llmbar,hhh]"], ["eval=[llmbar,hhh]"]])
def test_suites_are_named_shortly_or_as_in_training(words):
    config = composed([*words, "eval.llmbar.path=here", "eval.mine={suite: rows, path: x}"])
    assert set(config["eval"]) == {"llmbar", "hhh", "mine"}
    assert config["eval"]["llmbar"] == {"path": "here"}


def test_a_variable_of_the_template_needs_no_plus():
    words = ["suite=rows", "eval.rows.path=x", "chat_template_kwargs.enable_thinking=false"]
    assert composed(words)["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_missing_value_is_named():
    with pytest.raises(UserError, match=r"eval\.rows\.path"):
        composed(["suite=rows", "eval.rows.path=???"])


def test_help_answers_without_torch():
    code = "import sys\nfrom rmlab.commands.evaluate import main\n"
    code += "try: main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "reward_bench_2" in done.stdout
    assert "tokens_per_batch" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_prompts_that_training_rows_hold_are_counted_and_listed(model, capsys):
    """One in the same words but for white space, one with a word more, one of other words."""
    question = "which of the two rivers that meet below the old castle is the longer one"
    asked = [question, f"{question} today", "name a town by the sea"]
    lines = ({"prompt": prompt, "chosen": "a", "rejected": "b", "id": str(n)} for n, prompt in enumerate(asked))
    with open("asked.jsonl", "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    with open("trained.jsonl", "w") as file:
        file.write(json.dumps({"prompt": f" {question}\n", "chosen": "c", "rejected": "d"}) + "\n")
    assert main([model, "suite=rows", "eval.rows.path=asked.jsonl", "contamination=trained.jsonl"]) == 0
    assert (
        "2 of 3 comparisons have a prompt that is in the training rows, 1 in the same words" in capsys.readouterr().out
    )
    with open("evals/tiny/suites/rows.contamination.csv") as file:
        (_, same, near) = csv.reader(file)
    assert same == ["0", "0", "1.0", "True"]
    assert near[:2] == ["1", "0"]
    assert near[3] == "False"
    assert float(near[2]) == pytest.approx(11 / 12)  # runs of five words: 11 of the shorter, 12 of the longer


def test_training_rows_must_be_known(model, monkeypatch, capsys):
    no_model(monkeypatch)
    assert main([model, "suite=rows", "eval.rows.path=mine.jsonl", "contamination=true"]) == 1
    assert "name its training rows: contamination=FILE" in capsys.readouterr().err
    assert main([model, "suite=rows", "eval.rows.path=mine.jsonl", "contamination=gone.jsonl"]) == 1
    assert "gone.jsonl" in capsys.readouterr().err


def test_rows_of_another_benchmark_are_a_sentence(model, monkeypatch, capsys):
    """Here HHH's, whose targets hold something else than scores."""
    no_model(monkeypatch)
    with open("hhh.jsonl", "w") as file:
        file.write(json.dumps({"input": "q", "targets": {"choices": ["a", "b"], "labels": [1, 0]}}) + "\n")
        file.write(json.dumps({"input": "q", "targets": 7}) + "\n")
    assert main([model, "suite=hhh", "eval.hhh.path=hhh.jsonl"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("rmlab-eval: error: eval.hhh")
    assert error.count("\n") == 1
