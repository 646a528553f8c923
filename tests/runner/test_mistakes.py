"""All that is wrong is said at once, before a row is tokenised, from small files alone: there are no weights here."""

import copy
import json
import pickle

import pytest
from datasets import Dataset

from rmlab import UserError
from rmlab.messages import Mistakes, check_all, first_line
from rmlab.runner.check import check_first_rows, check_run
from rmlab.runner.config import Config
from rmlab.runner.directory import RunDirectory
from rmlab.runner.run import check

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
OTHER = [CHAT[0], {"role": "assistant", "content": "b"}]
PAIR = {"chosen": CHAT, "rejected": OTHER}
POSITIONS = "data.max_length=1024 is beyond the 512 positions of "
TEMPLATE = "the rows are chat messages but the tokenizer has no chat template; set model.chat_template=chatml"
PAD = "has no pad token; set model.pad_token"


@pytest.fixture
def encoder(tmp_path):
    """An encoder of 512 positions and its tokenizer, as files tell it: `(more of tokenizer_config.json) -> folder`."""

    def folder(**about):
        place = tmp_path / "encoder"
        place.mkdir(exist_ok=True)
        (place / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 512}))
        (place / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", **about}))
        (place / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": []}))
        return place

    return folder


@pytest.fixture
def config(composed, tmp_path):
    """`(model node, rows by source, data node) -> Config` of a run on local files."""

    def of(model, sources, **data):
        whole = copy.deepcopy(composed)
        whole["model"] |= {"config": {}, "tokenizer": None, **model}
        specs = {}
        for name, rows in sources.items():
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
            specs[name] = {"source": "load", "path": str(tmp_path / f"{name}.jsonl")}
        whole["data"] |= {"train": {"train": specs.pop("train")}, "eval": specs, **data}
        return Config.of(whole)

    return of


def test_all_that_is_wrong_is_said_at_once(encoder, config):
    place = encoder(pad_token=None)
    sources = {"train": [PAIR], "dev": [{"chosen": "a", "reject": "b"}]}
    with pytest.raises(UserError) as raised:
        check_run(config({"path": str(place), "eos_token": "<eos>"}, sources, max_length=1024))
    first, *lines = str(raised.value).splitlines()
    assert first == "5 mistakes:"
    expected = [POSITIONS, PAD, "eos_token '<eos>' is not in the tokenizer's vocabulary", TEMPLATE, "dev: no column"]
    for number, (line, words) in enumerate(zip(lines, expected, strict=True), start=1):
        assert line.startswith(f"{number}. ")
        assert words in line


def test_a_single_mistake_is_said_as_ever(encoder, config):
    with pytest.raises(UserError, match=f"^{POSITIONS}"):
        check_run(config({"path": str(encoder(chat_template="x"))}, {"train": [PAIR]}, max_length=1024))


def test_values_are_checked_together_and_first(config):
    wrong = config({"path": "./nowhere"}, {"train": [PAIR]}, overlong="cut", eval_fraction=0.0)
    wrong.trainer = {"learning_rat": 1, "max_steps": -2}
    with pytest.raises(Mistakes) as raised:
        check_run(wrong)
    assert [str(error).partition(";")[0] for error in raised.value.errors] == [
        "trainer has no option 'learning_rat'",
        "trainer.max_steps is -2",
        "data.overlong is 'cut'",
    ]


def test_chats_without_a_template_are_refused_before_all_rows_are_read(encoder, config, tmp_path):
    """The second row is no JSON: nobody has come so far."""
    made = config({"path": str(encoder())}, {"train": [PAIR]})
    with (tmp_path / "train.jsonl").open("a") as stream:
        stream.write("\nno JSON")
    with pytest.raises(UserError, match=f"^{TEMPLATE}"):
        check(made, RunDirectory(tmp_path))


RATED = [{"prompt": CHAT[:1], "response": "a", "score": n} for n in range(2)]


@pytest.mark.parametrize(
    ("rows", "about", "model"),
    [
        ([{"prompt": "p", "chosen": "a", "rejected": "b", "messages": CHAT}], {}, {}),
        ([{"chosen_ids": [1, 2], "rejected_ids": [1]}], {}, {}),
        ([PAIR], {"chat_template": "x"}, {}),
        ([PAIR], {}, {"chat_template": "chatml"}),
        ([PAIR], {}, {"tokenizer": "embedded"}),
        (RATED, {}, {"chat_template": "plain"}),
        ([], {}, {}),  # reading all rows will say that there is none
    ],
)
def test_what_is_right_is_not_refused(rows, about, model, encoder, config):
    check_first_rows(config({"path": str(encoder(**about)), **model}, {"train": rows}))


def test_a_first_row_that_is_left_out_is_not_checked(encoder, config):
    rows = [{"prompt": "p ", "responses": said, "scores": list(range(len(said)))} for said in ([], ["a", "b"])]
    made = config({"path": str(encoder())}, {"train": rows})
    with pytest.raises(UserError, match="responses holds 0"):
        check_first_rows(made)
    (source,) = made.data.train.values()
    source["uncompared"] = "drop"
    check_first_rows(made)


@pytest.mark.parametrize("file", ["chat_template.jinja", "chat_template.json", "tekken.json", "adapter_config.json"])
def test_a_template_may_lie_in_a_file_of_its_own(file, encoder, config):
    (encoder() / file).write_text('{"base_model_name_or_path": "x"}')
    check_first_rows(config({"path": str(encoder())}, {"train": [PAIR]}))


def test_auto_is_what_the_model_takes_and_stays_auto_in_the_config(encoder, config, tmp_path, capsys):
    text = {"prompt": "p ", "chosen": "a", "rejected": "b"}
    made = config({"path": str(encoder())}, {"train": [text], "dev": [text]}, max_length="auto")
    checked = check(made, RunDirectory(tmp_path))
    assert (checked.data.max_length, checked.args.max_length) == (512, 512)
    assert made.as_written()["data"]["max_length"] == "auto"
    assert f"max_length is 512: {encoder()} takes no longer rows" in capsys.readouterr().out


def test_an_architecture_without_a_checkpoint_has_its_own_positions(config, tmp_path):
    text = {"prompt": "p ", "chosen": "a", "rejected": "b"}
    sources = {"train": [text], "dev": [text]}
    made = config({"config": {"model_type": "bert"}, "tokenizer": "embedded"}, sources, max_length="auto")
    assert check(made, RunDirectory(tmp_path)).data.max_length == 512
    made = config({"config": {"model_type": "qwen3"}, "tokenizer": "embedded"}, sources, max_length="auto")
    assert check(made, RunDirectory(tmp_path)).data.max_length == 1024


def test_mistakes_travel_between_processes_and_fit_a_line():
    def refuse(text):
        raise UserError(text)

    with pytest.raises(Mistakes) as raised:
        check_all(lambda: check_all(lambda: refuse("a"), lambda: refuse("b")), lambda: refuse("c"), lambda: refuse("a"))
    assert str(raised.value) == "3 mistakes:\n1. a\n2. b\n3. c"
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    assert first_line(raised.value) == "3 mistakes: 1. a 2. b 3. c"


def test_chats_in_parquet_are_refused_once_they_are_read(encoder, config, tmp_path):
    made = config({"path": str(encoder())}, {"train": [PAIR]})
    Dataset.from_list([PAIR]).to_parquet(tmp_path / "train.parquet")
    made.data.train["train"]["path"] = str(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=f"^{TEMPLATE}"):
        check(made, RunDirectory(tmp_path))
