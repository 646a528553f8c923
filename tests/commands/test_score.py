"""rmlab-score: a file of rows in, a file of rewards out."""

import gzip
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, kwise_rows, make_model, make_pairs
from datasets import Dataset

from rmlab import Ensemble, RewardModel
from rmlab.commands import score
from rmlab.data.tokenizer import build_tokenizer
from rmlab.metrics.scored import ScoredComparison
from rmlab.scoring import score_file, windows
from rmlab.scoring.ensemble import shared
from rmlab.scoring.score_file import PART
from rmlab.scoring.windows import WINDOW


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of two models, a decoder and an encoder."""
    folders = [tmp_path_factory.mktemp(kind) for kind in ("qwen3", "bert")]
    for folder in folders:
        make_model("qwen3" if "qwen3" in folder.name else "bert").save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
    return [str(folder) for folder in folders]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in; parts and windows of four rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(score_file, "PART", 4)
    monkeypatch.setattr(windows, "WINDOW", 2)
    return tmp_path


def rows_in(form, rows):
    """DATA, after the rows were written in that form."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if form == "folder":
        Dataset.from_list(rows).save_to_disk("data")
        return "data"
    name = f"data.{form}"
    if form == "parquet":
        Dataset.from_list(rows).to_parquet(name)
    elif form.endswith("gz"):
        with gzip.open(name, "wt") as stream:
            stream.write(lines)
    else:
        with open(name, "w") as stream:
            stream.write(json.dumps(rows) if form == "json" else lines)
    return name


def written(name):
    """id -> rewards of a file, as a user reads it."""
    read = pd.read_parquet(name) if name.endswith("parquet") else pd.read_json(name, lines=True, dtype=False)
    return dict(zip(read["id"].astype(str), map(list, read["rewards"]), strict=True))


def error_of(capsys, *arguments):
    """What the command says on stderr when it refuses; with exit status 1."""
    with pytest.raises(SystemExit) as stopped:
        score.main(list(map(str, arguments)))
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("rmlab-score: error: ")


PAIRS = make_pairs(9).to_list()


@pytest.mark.parametrize(
    ("form", "out"),
    [
        ("jsonl", "o.jsonl"),
        ("json", "o.parquet"),
        ("jsonl.gz", "o.jsonl.gz"),
        ("parquet", "o.jsonl"),
        ("folder", "o.jsonl"),
    ],
)
def test_a_line_per_row_whatever_the_files_are(form, out, here, models):
    rows = [{**row, "id": f"é{n}"} for n, row in enumerate(PAIRS)]
    score.main([models[0], rows_in(form, rows), "-o", out])
    expected = RewardModel(models[0]).score(PAIRS)
    found = written(out)
    assert list(found) == [row["id"] for row in rows]
    assert np.array(list(found.values())) == pytest.approx(expected, abs=1e-6)
    assert {file.name for file in here.iterdir() if file.name.startswith("o.")} == {out, f"{out}.json"}


def test_rows_come_from_stdin_under_names_of_their_own(here, models, monkeypatch):
    """Rated rows too are one result each, though training makes one comparison of those on a prompt."""
    rows = [{"q": "same", "a": {"text": f"answer {n}"}, "score": n, "images": ["x"]} for n in range(5)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(map(json.dumps, rows)).encode())))
    columns = ["prompt=q", "response=a.text", "images=null"]
    score.main([models[0], "-", "-o", "o.jsonl", *(f"--columns={c}" for c in columns)])
    expected = RewardModel(models[0]).score([{"prompt": "same", "response": row["a"]["text"]} for row in rows])
    assert written("o.jsonl") == {str(n): [pytest.approx(r, abs=1e-6)] for n, r in enumerate(expected.tolist())}


def test_a_split_of_a_folder_is_its_files_alone(here, models):
    (here / "rows").mkdir()
    for name, rows in (("train", PAIRS[:5]), ("test", PAIRS[5:])):
        (here / "rows" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    score.main([models[0], "rows", "-o", "o.jsonl", "--split", "test"])
    expected = RewardModel(models[0]).score(PAIRS[5:])
    assert np.array(list(written("o.jsonl").values())) == pytest.approx(expected, abs=1e-6)


# ---- killed, and done before ----


def killed_at(part, arguments):
    """Run the command in a process that dies while it writes that part."""

    def run():
        writes, replacing = [], score_file.replacing

        def dying(path):
            if path.suffix == ".jsonl" and (writes.append(path) or len(writes) == part):
                (path.parent / "half.tmp").write_text('{"id": "0", "rew')
                os.kill(os.getpid(), signal.SIGKILL)
            return replacing(path)

        score_file.replacing = dying
        score.main(arguments)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(100)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("out", ["o.jsonl", "o.jsonl.gz", "o.parquet"])
def test_killed_and_run_again_it_ends_with_the_same_bytes(out, here, models, capsys):
    data = rows_in("jsonl", [*PAIRS, *kwise_rows(5)])
    score.main([models[0], data, "-o", f"whole.{out}"])
    killed_at(3, [models[0], data, "-o", out])
    assert not (here / out).exists()
    capsys.readouterr()
    score.main([models[0], data, "-o", out])
    assert "8 rows are ready in o." in capsys.readouterr().out
    assert (here / out).read_bytes() == (here / f"whole.{out}").read_bytes()
    assert not (here / f"{out}.parts").exists()


def test_what_is_ready_of_another_model_is_not_gone_on_with(here, models, capsys):
    data = rows_in("jsonl", PAIRS)
    killed_at(2, [models[0], data, "-o", "o.jsonl"])
    score.main([models[1], data, "-o", "o.jsonl"])
    assert "what is in o.jsonl.parts is of another model; it starts afresh" in capsys.readouterr().out
    score.main([models[1], data, "-o", "other.jsonl"])
    assert (here / "o.jsonl").read_bytes() == (here / "other.jsonl").read_bytes()


@pytest.mark.parametrize("wrong", [["--reduce", "max"], ["--max-length", "-5"], ["--device", "cuba"]])
def test_a_wrong_option_costs_nothing_that_is_ready(wrong, here, models, capsys):
    data = rows_in("jsonl", PAIRS)
    killed_at(3, [models[0], data, "-o", "o.jsonl"])
    error_of(capsys, models[0], data, "-o", "o.jsonl", *wrong)
    score.main([models[0], data, "-o", "o.jsonl"])
    assert "8 rows are ready in o.jsonl.parts" in capsys.readouterr().out


def test_an_id_of_any_signs_is_one_row_of_parquet(here):
    """Also of one at which Python, and not JSON, ends a line."""
    out = score_file.ScoreFile(Path("o.parquet"), {"data": "x"})
    scored = ScoredComparison(0, "a\u2028b\x85c", "", "", [1.0], [1], [], [], [], [], [])
    with out.locked():
        out.begun()
        out.write_part(0, [score_file.line_of([scored], scored)])
        out.finish(1)
    assert written("o.parquet") == {"a\u2028b\x85c": [1.0]}


def test_a_finished_file_is_skipped_and_one_of_other_inputs_refused(here, models, capsys):
    data = rows_in("jsonl", PAIRS)
    score.main([models[0], data, "-o", "o.jsonl"])
    before = (here / "o.jsonl").read_bytes()
    (here / "data.jsonl").rename(here / "moved.jsonl")
    score.main([models[0], "moved.jsonl", "-o", "o.jsonl"])
    assert "skipped o.jsonl: it is finished" in capsys.readouterr().out
    assert "o.jsonl is of another model; --redo" in error_of(capsys, models[1], "moved.jsonl", "-o", "o.jsonl")
    assert "o.jsonl is of another dtype" in error_of(
        capsys, models[0], "moved.jsonl", "-o", "o.jsonl", "--dtype", "bfloat16"
    )
    rows_in("jsonl", PAIRS[:3])
    assert "o.jsonl is of other data" in error_of(capsys, models[0], "data.jsonl", "-o", "o.jsonl")
    assert (here / "o.jsonl").read_bytes() == before
    (here / "o.jsonl").write_bytes(before + b"\n")
    assert "not what rmlab-score has written" in error_of(capsys, models[0], "moved.jsonl", "-o", "o.jsonl")
    score.main([models[0], "data.jsonl", "-o", "o.jsonl", "--redo"])
    lines = [json.loads(line) for line in before.splitlines()[:3]]
    assert written("o.jsonl") == {line["id"]: pytest.approx(line["rewards"], abs=1e-5) for line in lines}


def test_a_kill_at_the_very_end_leaves_a_finished_file(here, models, monkeypatch, capsys):
    data = rows_in("jsonl", PAIRS)

    def killed(*_, **__):
        raise SystemError

    with monkeypatch.context() as patch:
        patch.setattr(score_file.shutil, "rmtree", killed)
        with pytest.raises(SystemError):
            score.main([models[0], data, "-o", "o.jsonl"])
    score.main([models[0], data, "-o", "o.jsonl"])
    assert "skipped o.jsonl" in capsys.readouterr().out
    assert not (here / "o.jsonl.parts").exists()


def test_what_goes_on_has_the_windows_of_what_was_not_killed():
    """Parts begin where windows do."""
    assert PART % WINDOW == 0


# ---- several models, other scales ----


def test_members_do_not_end_at_a_row_that_is_none():
    copies = shared(iter([{"a": 1}, None, {"a": 2}]), 2)
    assert list(map(list, copies)) == [[{"a": 1}, None, {"a": 2}]] * 2


def test_no_limit_of_tokens_is_what_the_model_takes(here, models):
    score.main([models[1], rows_in("jsonl", PAIRS), "-o", "o.jsonl", "--max-length", "null"])
    assert np.array(list(written("o.jsonl").values())) == pytest.approx(RewardModel(models[1]).score(PAIRS), abs=1e-6)


def test_members_read_rows_that_come_slowly(here, models):
    """Each from a thread of its own: two must not ask for the next row at once."""

    def slowly():
        for row in PAIRS:
            time.sleep(0.005)
            yield row

    found = list(Ensemble.load(models).scored(slowly(), "data"))
    assert [scored.id for scored in found] == [str(n) for n in range(len(PAIRS))]


@pytest.mark.parametrize(
    ("reduce", "one"),
    [
        ("mean", lambda a, b: (a + b) / 2),
        ("min", np.minimum),
        ("median", lambda a, b: (a + b) / 2),
        ("mean-std", lambda a, b: (a + b) / 2 - 0.5 * abs(a - b) / 2),
        ("mean-var", lambda a, b: (a + b) / 2 - 0.5 * (a - b) ** 2 / 4),
    ],
)
def test_the_rewards_of_an_ensemble_are_its_members_reduced(reduce, one, here, models):
    score.main([*models, rows_in("jsonl", PAIRS), "-o", "o.jsonl", "--reduce", reduce, "--c", "0.5"])
    lines = [json.loads(line) for line in (here / "o.jsonl").read_text().splitlines()]
    members = [RewardModel(model).score(PAIRS) for model in models]
    found = np.array([line["members"] for line in lines])
    assert found.transpose(1, 0, 2) == pytest.approx(np.array(members), abs=1e-6)
    assert np.array([line["rewards"] for line in lines]) == pytest.approx(one(*members), abs=1e-6)
    assert Ensemble.load(models, reduce, 0.5).score(PAIRS) == pytest.approx(one(*members), abs=1e-6)


def test_members_are_on_one_level_where_that_is_asked_for(here, models):
    score.main([*models, rows_in("jsonl", PAIRS), "-o", "o.jsonl", "--reduce", "min", "--align", "prompt"])
    each = np.array([RewardModel(model).score(PAIRS) for model in models], dtype=float)
    level = each - each.mean(-1, keepdims=True) + each.mean(0).mean(-1)[:, None]
    assert np.array(list(written("o.jsonl").values())) == pytest.approx(level.min(0), abs=1e-5)


def test_normalised_rewards_are_those_over_the_reference(here, models, capsys):
    data = rows_in("jsonl", PAIRS)
    assert "holds no rmlab_reward.json" in error_of(capsys, models[0], data, "-o", "o.jsonl", "--normalise")
    try:
        score.main([models[0], data, "--reference"])
        told = json.loads(Path(f"{models[0]}/rmlab_reward.json").read_text())
        score.main([models[0], data, "-o", "o.jsonl", "--normalise"])
        raw = RewardModel(models[0]).score(PAIRS)
    finally:
        os.remove(f"{models[0]}/rmlab_reward.json")
    assert (told["on"], told["responses"]) == ("data.jsonl", 18)
    assert (told["mean"], told["std"]) == pytest.approx((raw.mean(), raw.std()), abs=1e-5)
    found = np.array(list(written("o.jsonl").values()))
    assert found == pytest.approx((raw - raw.mean()) / raw.std(), abs=1e-4)
    assert (found.mean(), found.std()) == pytest.approx((0, 1), abs=1e-4)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.jsonl"], "give either -o OUT, a file for the rewards, or --reference"),
        (["data.jsonl", "-o", "o.csv"], "o.csv: rewards are written as one of .jsonl, .jsonl.gz, .parquet; call it so"),
        (["data.jsonl", "-o", "no/o.jsonl"], "no/o.jsonl: there is no folder no; make it"),
        (["dta.jsonl", "-o", "o.jsonl"], "no file or folder 'dta.jsonl'; did you mean 'data.jsonl'?"),
        (["empty.jsonl", "-o", "o.jsonl"], "empty.jsonl holds no row"),
        (["bad.jsonl", "-o", "o.jsonl"], "bad.jsonl row 1 (counting from 0): columns ['text'] hold nothing to score"),
        (["pictures.jsonl", "-o", "o.jsonl"], "--columns images=null hides it"),
        (["tools.jsonl", "-o", "o.jsonl"], "does not show tools; save its tokenizer with one that does"),
        (["data.jsonl", "-o", "o.jsonl", "--columns", "prompt"], "--columns 'prompt': say NAME=VALUE"),
        (["data.jsonl", "-o", "o.jsonl", "--columns", "x=y"], "--columns x: no column 'y' in the data"),
        (["data.jsonl", "-o", "o.jsonl", "--split", "test"], "--split is 'test', but data.jsonl is one file"),
        (["data.jsonl", "-o", "o.jsonl", "--max-length", "600"], "--max-length=600 is beyond the 512 positions of"),
        (["data.jsonl", "-o", "o.jsonl", "--max-length", "many"], "--max-length is 'many'; it must be a whole number"),
        (["data.jsonl", "-o", "o.jsonl", "--overlong", "error", "--max-length", "20"], "--overlong truncate cuts"),
        (["data.jsonl", "-o", "o.jsonl", "--reduce", "max"], "reduce is 'max'"),
        (["data.jsonl", "-o", "o.jsonl", "--dtype", "fp32"], "--dtype: torch has no dtype 'fp32'"),
        (["data.jsonl", "-o", "o.jsonl", "--device", "cuba"], "--device is 'cuba', which torch does not have here"),
        (["data.jsonl", "--reference", "--normalise"], "--reference is of the raw rewards of one model"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(arguments, message, here, models, capsys):
    rows_in("jsonl", PAIRS)
    (here / "empty.jsonl").write_text("")
    (here / "bad.jsonl").write_text('{"response": "a"}\n{"text": "b"}\n')
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (here / "tools.jsonl").write_text(json.dumps({"messages": talk, "tools": [{"name": "f"}]}))
    (here / "pictures.jsonl").write_text('{"response": "a", "images": ["x.png"]}\n')
    assert message in error_of(capsys, models[1], *arguments)
    assert not list(here.glob("o.*")), "no file of rewards, nor what would become one"


def test_a_run_directory_is_scored_by_its_model_with_its_template(here, models, tokenizer):
    """Of a run that kept none the sentence says what to train it with."""
    run = here / "run"
    run.mkdir()
    (run / "config.yaml").write_text("data: {chat_template_kwargs: {mood: kind}}")
    data = rows_in("jsonl", [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}])
    with pytest.raises(Exception, match=r"run is a run that has kept no model; train it with run.keep=\[model\]"):
        RewardModel(str(run))
    make_model("qwen3").save_pretrained(run / "model")
    tokenizer.chat_template = "{{ mood }} {{ messages[1].content }}"
    tokenizer.save_pretrained(run / "model")
    score.main(["run", data, "-o", "o.jsonl"])
    score.main(["run", data, "-o", "other.jsonl", "--template", "mood=grim"])
    texts = tokenizer(["<|bos|>kind b", "<|bos|>grim b"], add_special_tokens=False)["input_ids"]
    kind, grim = RewardModel("run/model").score([{"input_ids": ids} for ids in texts])
    assert written("o.jsonl")["0"] == pytest.approx([kind], abs=1e-6)
    assert written("other.jsonl")["0"] == pytest.approx([grim], abs=1e-6)
    assert abs(kind - grim) > 1e-3


def test_help_answers_without_torch():
    code = "import sys; from rmlab.commands.score import parser; parser().format_help(); print('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.check_output([sys.executable, "-c", code], env=env, timeout=60, text=True) == "False\n"
