"""The catalogue of bad inputs: each is one sentence on stderr, exit status 2 (1 from Hydra), and no model loads."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, make_model, make_pairs

PAIR = {"prompt": "p ", "chosen": "a", "rejected": "b"}


def rows(*changes, **more):
    """A jsonl text of 20 good rows, the given ones changed: (17, {"margin": None})."""
    data = [{"prompt": f"p{n} ", "chosen": f"a{n}", "rejected": f"b{n}", **more} for n in range(20)]
    for index, change in changes:
        data[index] = {k: v for k, v in {**data[index], **change}.items() if v != "REMOVED"}
    return "\n".join(map(json.dumps, data))


# name: (files to write, overrides, what the one line must say, exit status)
CASES = {
    "unknown group option": ({}, ["loss=margn"], "no loss option 'margn'; did you mean 'margin'?", 2),
    "unknown key": ({}, ["data.max_lenght=3"], "max_lenght", 1),
    "unknown trainer option": (
        {},
        ["trainer.learning_rat=1"],
        "no option 'learning_rat'; did you mean 'learning_rate'?",
        2,
    ),
    "unknown loss": ({}, ["loss.centre.weight=0.01"], "no loss named 'centre'; did you mean 'center'?", 2),
    "unknown loss option": ({}, ["loss.bradley_terry.beta=1"], "loss.bradley_terry takes ['margin', ", 2),
    "missing loss option": ({}, ["~loss.bradley_terry.margin"], "missing ['margin']", 2),
    "wrong type of a loss option": ({}, ["loss.bradley_terry.margin=big"], "must be a number, not 'big'", 2),
    "no length": ({}, ["data.max_length=long"], "data.max_length is 'long'; it must be a whole number, auto", 2),
    "wrong type": ({}, ["data.limit=long"], "'long' of type 'str' could not be converted to Integer", 1),
    "wrong type in trainer": ({}, ["trainer.learning_rate=fast"], "trainer.learning_rate must be float, not 'fast'", 2),
    "wrong choice": ({}, ["data.overlong=trunc"], "data.overlong is 'trunc'; did you mean 'truncate'?", 2),
    "wrong layout": ({}, ["scoring.layout=shared"], "scoring.layout is 'shared'; did you mean 'shared_prefix'?", 2),
    "no budget": ({}, ["trainer.tokens_per_batch=0"], "trainer.tokens_per_batch is 0; it must be at least 1", 2),
    "layers below none": (
        {},
        ["model.train_last_layers=-1"],
        "model.train_last_layers is -1; it must be at least 0",
        2,
    ),
    "old name of the limit": ({}, ["data.head=3"], "data.head is now data.limit", 2),
    "old name of the layers": ({}, ["model.train_layers=1"], "model.train_layers is now model.train_last_layers", 2),
    "old name in a dict": ({}, ["data={head: 3}"], "data.head is now data.limit", 2),
    "set elsewhere": ({}, ["trainer.layout=packed"], "trainer.layout is set by scoring.layout", 2),
    "grouping a stream": (
        {"rows.jsonl": rows()},
        [
            "data=files",
            "data.path=rows.jsonl",
            "data.streaming=true",
            "trainer.max_steps=2",
            "data.eval_fraction=0",
            "data.group_by_prompt=true",
        ],
        "data.group_by_prompt needs all rows at once",
        2,
    ),
    "a weight without effect": (
        {},
        ["data.train.synthetic.weight=2", "data.group_by_prompt=true", "data.pair_weighting=prompt"],
        "data.train.synthetic.weight makes copies of rows",
        2,
    ),
    "no data.path": ({}, ["data=files"], "data.path is not set", 2),
    "no model.path": ({}, ["model=pretrained"], "model needs model.path", 2),
    "nothing given for ???": ({}, ["loss.bradley_terry.margin=???"], "the config needs loss.bradley_terry.margin", 2),
    "missing file": ({}, ["data=files", "data.path=rows.jsonl"], "no file or folder 'rows.jsonl'", 2),
    "not JSON": (
        {"rows.jsonl": '{"chosen": "a"'},
        ["data=files", "data.path=rows.jsonl"],
        "rows.jsonl line 1 is not JSON",
        2,
    ),
    "missing column": (
        {"rows.jsonl": '{"chosen": "a", "reject": "b"}'},
        ["data=files", "data.path=rows.jsonl"],
        "no column 'rejected'; did you mean 'reject'?",
        2,
    ),
    "wrong column mapping": (
        {"rows.jsonl": rows()},
        ["data=files", "data.path=rows.jsonl", "data.columns.margin=gap"],
        "data.columns.margin: no column 'gap' in the data",
        2,
    ),
    "empty file": ({"rows.jsonl": ""}, ["data=files", "data.path=rows.jsonl"], "rows.jsonl holds no comparison", 2),
    "NaN margin": (
        {"rows.jsonl": rows((17, {"margin": float("nan")}), margin=1.0)},
        ["data=files", "data.path=rows.jsonl", "loss=margin"],
        "train row 17 (counting from 0): margin is nan, not a finite number",
        2,
    ),
    "missing margin": (
        {"rows.jsonl": rows((3, {"margin": "REMOVED"}), margin=1.0)},
        ["data=files", "data.path=rows.jsonl", "loss=margin"],
        "train row 3 (counting from 0): margin is missing, but other rows have it",
        2,
    ),
    "chosen equals rejected": (
        {"rows.jsonl": rows((5, {"rejected": "a5"}))},
        ["data=files", "data.path=rows.jsonl", "data.identical=error"],
        "train row 5 (counting from 0): the better and the worse response are identical",
        2,
    ),
    "num_labels in the config": (
        {},
        ["model.config.num_labels=2"],
        "num_labels=2, but a reward model has one output",
        2,
    ),
    "a classifier checkpoint": (
        {},
        ["model=pretrained", "model.path=classifier"],
        "is a classifier with num_labels=2",
        2,
    ),
    "no pad token": ({}, ["model=pretrained", "model.path=padless"], "has no pad token; set model.pad_token", 2),
    "encoder too short": (
        {},
        ["model=pretrained", "model.path=encoder", "data.max_length=1024"],
        "data.max_length=1024 is beyond the 512 positions of encoder",
        2,
    ),
    "chats without a template": (
        {"rows.jsonl": json.dumps({side: [{"role": "user", "content": side}] for side in ("chosen", "rejected")})},
        ["data=files", "data.path=rows.jsonl", "model=pretrained", "model.path=untold"],
        "the tokenizer has no chat template; set model.chat_template=chatml",
        2,
    ),
    "no such model": ({}, ["model=pretrained", "model.path=./nowhere"], "model.path: no folder './nowhere'", 2),
    "unknown plugin": ({}, ["plugins=[mylab.losses]"], "plugins: cannot import 'mylab.losses'", 2),
    "unknown model config key": ({}, ["model.config.num_hidden_layer=1"], "has no 'num_hidden_layer'; did you mean", 2),
    "unknown logger key": (
        {},
        ["logger=wandb", "logger.projct=x"],
        "logger has no option 'projct'; did you mean 'project'",
        2,
    ),
    "evaluation without a set": (
        {},
        ["trainer.eval_strategy=steps", "data.eval_fraction=0"],
        "trainer.eval_strategy is set, but data.eval is empty",
        2,
    ),
    "a stream without evaluation rows": (
        {"rows.jsonl": rows()},
        ["data=files", "data.path=rows.jsonl", "data.streaming=true", "trainer.max_steps=2"],
        "a stream cannot be split; give data.eval",
        2,
    ),
    "split leaves nothing": ({}, ["data.eval_fraction=1.5"], "data.eval_fraction is 1.5", 2),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, built_tokenizer):
    """Folders that a preflight can refuse: a classifier, tokenizers without pad and without template, an encoder."""
    place = tmp_path_factory.mktemp("checkpoints")
    make_model(num_labels=2).save_pretrained(place / "classifier")
    for name, kind in (("padless", "qwen3"), ("untold", "qwen3"), ("encoder", "bert")):
        make_model(kind).save_pretrained(place / name)
        built_tokenizer.save_pretrained(place / name)
    (place / "untold" / "chat_template.jinja").unlink()
    config = place / "padless" / "tokenizer_config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "pad_token"}))
    return place


SLOW = ("missing loss option", "wrong type of a loss option", "unknown loss")  # torch is imported for these


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES])
def test_a_bad_input_gets_one_clear_sentence(name, checkpoints, tmp_path):
    files, overrides, message, status = CASES[name]
    for file, content in files.items():
        (tmp_path / file).write_text(content)
    for folder in checkpoints.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "importtime", "-m", "rmlab.commands.train", "logger=none", *overrides]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    imports = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    said = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))
    assert done.returncode == status, said
    assert message in said
    assert "Traceback" not in said
    if status == 2:
        assert len(said.strip().splitlines()) == 1, said
    if "rows.jsonl" in str(overrides):
        assert not any(line.endswith("| torch") for line in imports), "rows are checked without torch"
    assert not any("transformers.trainer" in line for line in imports), "models and trainers must not be imported yet"


def test_the_catalogue_of_rows_is_complete():
    """The inputs that the issue of record asks for are all in CASES."""
    asked = [
        "group option",
        "loss option",
        "wrong type",
        "missing file",
        "missing column",
        "empty",
        "NaN",
        "missing margin",
    ]
    asked += ["equals", "num_labels", "pad token", "encoder"]
    assert all(any(word in name for name in CASES) for word in asked)


def test_a_good_pair_is_good():
    """The rows above are refused for their flaw alone."""
    from rmlab.data.config import Options
    from rmlab.data.prepare import check_rows

    check_rows(make_pairs(3), "train", Options(identical="error"))
