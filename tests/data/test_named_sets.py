"""conf/data/NAME.yaml for public data sets, on small files with their columns: each is read as its card says."""

import json

import pytest
import yaml
from conftest import ROOT, make_model, trainer_for
from datafiles import TEMPLATE, public_schemas
from datasets import Dataset

from rmlab.data.columns import read_row
from rmlab.data.config import DataConfig, Options
from rmlab.data.prepare import tokenize
from rmlab.data.rows import to_comparison
from rmlab.data.sets import load_rows
from rmlab.data.sources import load_hub, part_of_hub
from rmlab.messages import UserError

# Config -> files of its columns, and of one of their rows: [(better, worse, strength or None for a tie), ...].


def first_wins(row):
    return [(0, 1, 1)]


def rated(row):
    return [(0, 1, row["score_chosen"] - row["score_rejected"])]


def signed(column):
    def pairs(row):
        value = row[column]
        return [(0, 1, None)] if value == 0 else [(0, 1, -value) if value < 0 else (1, 0, value)]

    return pairs


def index(column, first):
    return lambda row: [(0, 1, 1) if row[column] == first else (1, 0, 1)]


def votes(row):
    winner = row["winner"]
    return [(0, 1, None) if "tie" in winner else (0, 1, 1) if winner in ("model_a", "a") else (1, 0, 1)]


def one_of_three(row):
    return [(0, 1, None) if row["winner_tie"] else (0, 1, 1) if row["winner_model_a"] else (1, 0, 1)]


def by_scores(scores):
    def pair(i, j, gap):
        return (i, j, None) if gap == 0 else (i, j, gap) if gap > 0 else (j, i, -gap)

    return [pair(i, j, scores[i] - scores[j]) for i in range(len(scores)) for j in range(i + 1, len(scores))]


def ranks(row):
    return [(i, j, 1) for i in range(7) for j in range(i + 1, 7)]  # the files have them in order


def helpsteer2(rows):
    """Of two rows of one response each; the weights are those of its config."""
    weights = {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45, "complexity": 0.55, "verbosity": -0.4}
    return by_scores([sum(w * row[name] for name, w in weights.items()) for row in rows])


NAMED = {
    "ultrafeedback_binarized": (["ufb.jsonl", "ufb.parquet"], rated),
    "ultrafeedback_cleaned": (["uf_argilla.parquet"], lambda row: [(0, 1, row["chosen-rating"] - row["rejected-rating"])]),  # noqa: E501
    "ultrafeedback_ratings": (["uf_orig.jsonl", "uf_orig.parquet"],
                              lambda row: by_scores([c["overall_score"] for c in row["completions"]])),
    "helpsteer2": (["hs2.jsonl", "hs2.jsonl.gz", "hs2.parquet"], helpsteer2),
    "helpsteer2_preference": (["hs2_pref.jsonl"], signed("preference_strength")),
    "helpsteer3": (["hs3.jsonl", "hs3.parquet", "hs3_012.jsonl"], signed("overall_preference")),
    "nectar": (["nectar.jsonl", "nectar.parquet"], ranks),
    "shp": (["shp.jsonl"], index("labels", 1)),
    "safe_rlhf_better": (["pku.jsonl"], index("better_response_id", 0)),
    "safe_rlhf_safer": (["pku.jsonl"], index("safer_response_id", 0)),
    "summarize": (["sff.jsonl", "sff.parquet"], index("choice", 0)),
    "chatbot_arena": (["arena.jsonl", "arena_ab.jsonl"], votes),
    "lmsys_55k": (["lmsys55k.jsonl"], one_of_three),
    "webgpt": (["webgpt.jsonl"], lambda row: by_scores([row["score_0"], row["score_1"]])),
    "orca": (["orca.jsonl"], first_wins),
    "capybara": (["capybara.jsonl"], lambda row: [(0, 1, row["rating_chosen"] - row["rating_rejected"])]),
    "reward_bench": (["rb.jsonl"], first_wins),
    "reward_bench_2": (["rb2.jsonl"], lambda row: [(0, 1 + n, 1) for n in range(len(row["rejected"]))]),
    "tool_calls": (["tools.jsonl", "tools.parquet", "tools_str.jsonl"], first_wins),
    "preference_700k": (["p700k.jsonl"], lambda row: [(0, 1, row["chosen_score"] - row["rejected_score"])]),
    "dpo_en_zh": (["sharegpt.jsonl"], first_wins),
    "hh": (["hh.jsonl"], first_wins),
    "skywork": (["skywork.jsonl"], first_wins),
    "ultrafeedback": (["ufb.jsonl"], rated),
    # Not of one data set, but in a format that rmlab reads as it is.
    "files": (["plain.jsonl", "plain.parquet", "array.json", "parts.jsonl", "roles_hg.jsonl"], first_wins),
}  # fmt: skip
CASES = [(name, file) for name, (files, _) in NAMED.items() for file in files]
OTHERWISE = {"lmsys55k.jsonl"}  # its first answer is always the clear one, and its votes go round
REFUSED = {"image.jsonl", "wrapped.json", "columns.json"}  # in a sentence each, see test_schemas.py


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return public_schemas(tmp_path_factory)


def config_of(name, path):
    """What `rmlab data=NAME` with that path reads."""
    said = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())
    ((entry, source),) = said.get("train", {name: {"source": "load"}}).items()
    if "train" not in said or name == "files":  # a file that fills conf/data/files.yaml
        source = {"source": "load", **{k: said[k] for k in ("columns", "prompt_separator") if k in said}}
    assert entry in (name, "train")
    return DataConfig(train={name: {**source, "path": str(path)}})


def raw_rows(folder, file):
    """The rows of the file as they are; of HelpSteer2 the two of a prompt together."""
    if file.endswith("array.json"):
        return json.loads((folder / file).read_text())
    text = folder / file.replace(".parquet", ".jsonl").removesuffix(".gz")
    if not text.exists():
        import pyarrow.parquet as parquet

        return parquet.read_table(folder / file).to_pylist()
    rows = [json.loads(line) for line in text.read_text().splitlines()]
    return list(zip(rows[::2], rows[1::2], strict=True)) if file.startswith("hs2.") else rows


@pytest.mark.parametrize(("name", "file"), CASES)
def test_a_named_set_is_read_as_its_card_says(name, file, folder, tokenizer):
    (source,) = load_rows(config_of(name, folder / file)).train
    comparisons = [to_comparison(read_row(row), f"row {n}") for n, row in enumerate(source.rows)]
    rows = raw_rows(folder, file)
    assert len(comparisons) == len(rows) >= 60
    for comparison, row in zip(comparisons, rows, strict=True):
        for pair, (better, worse, strength) in zip(comparison.preferences, NAMED[name][1](row), strict=True):
            tie = strength is None
            assert (pair.better, pair.worse, pair.probability) == (better, worse, 0.5 if tie else 1.0)
            assert pair.strength == pytest.approx(0.0 if tie else strength)
            said = [str(comparison.responses[side]) for side in (better, worse)]
            clear = ["clear answer" in text for text in said]
            assert tie or file in OTHERWISE or clear[0] >= clear[1], "the clear answer wins wherever there is one"
            assert file.startswith(("tools", "nectar", "uf_orig")) or clear[0] != clear[1]
    tokenizer.chat_template = TEMPLATE
    trees = tokenize(source.rows, tokenizer, Options(max_length=None), file)
    texts = [tokenizer.decode(tree["prefix"] + tree["suffixes"][0]) for tree in trees]
    assert all(text.count("Question") <= 1 or name == "hh" for text in texts), "no question is said twice"
    assert len(set(trees["prompt_id"])) >= 0.9 * len(trees)


@pytest.mark.parametrize(("name", "others"), [("summarize", ["axis", "comparisons"]), ("webgpt", ["default"])])
def test_the_converted_branch_of_a_hub_set_is_read_by_folder(name, others, tmp_path):
    """It has a folder for each configuration and split, and no card that names them."""
    for folder in others:
        for split in ("train", "validation"):
            (tmp_path / folder / split).mkdir(parents=True)
            Dataset.from_dict({"of": [f"{folder} {split}"]}).to_parquet(tmp_path / folder / split / "0000.parquet")
    (source,) = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())["train"].values()
    part = part_of_hub(source["hub"], None, "train", None)
    assert part.pop("revision") == "refs/convert/parquet"
    assert load_hub(str(tmp_path), part, streaming=False)["of"][:] == [f"{others[-1]} train"]


def test_every_file_with_a_public_schema_has_a_named_set_or_is_refused(folder):
    assert {file.name for file in folder.iterdir()} == {file for _, file in CASES} | REFUSED


def test_helpsteer2_has_its_five_attributes_as_ratings(folder):
    (source,) = load_rows(config_of("helpsteer2", folder / "hs2.jsonl"), (("ratings", "output"),)).train
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    for row, pair in zip(source.rows, raw_rows(folder, "hs2.jsonl"), strict=True):
        got = to_comparison(read_row(row), "row", Options(columns=(("ratings", "output"),))).columns["ratings"]
        assert got == [[one[name] for name in names] for one in pair]


def test_helpsteer2_may_have_one_attribute_as_its_rating(folder):
    """As the loss `reward_mse` reads it, which refuses all five."""
    read, config = (("ratings", "response"),), config_of("helpsteer2", folder / "hs2.jsonl")
    with pytest.raises(UserError, match=r"ratings holds lists of 5 numbers.*; say which with data.columns.ratings="):
        load_rows(config, read)
    config.train["helpsteer2"]["columns"]["ratings"] = "helpfulness"
    (source,) = load_rows(config, read).train
    for row, pair in zip(source.rows, raw_rows(folder, "hs2.jsonl"), strict=True):
        got = to_comparison(read_row(row), "row", Options(columns=read)).columns["ratings"]
        assert got == [[one["helpfulness"]] for one in pair]


def test_turns_of_both_sides_become_a_dialogue(tmp_path):
    row = {
        "prompt": json.dumps(["hi", "and now?"]), "response_a": json.dumps(["hello", "this"]),
        "response_b": json.dumps(["hello", None]), "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0,
    }  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (source,) = load_rows(config_of("lmsys_55k", tmp_path / "rows.jsonl")).train
    comparison = to_comparison(read_row(source.rows[0]), "row")
    assert [m["content"] for m in comparison.prompt] == ["hi", "hello", "and now?"]
    assert comparison.responses == [[{"role": "assistant", "content": text}] for text in ("this", "")]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (files, _) in NAMED.items() if not OTHERWISE & set(files)])
def test_a_tiny_model_learns_every_named_set(name, folder, tokenizer, tmp_path):
    file = NAMED[name][0][0]
    (source,) = load_rows(config_of(name, folder / file)).train
    tokenizer.chat_template = TEMPLATE
    trees = tokenize(source.rows, tokenizer, Options(max_length=None), name)
    options = {"max_steps": 60, "learning_rate": 3e-3, "per_device_train_batch_size": 16, "lr_scheduler_type": "linear"}
    trainer = trainer_for(make_model("qwen3"), tokenizer, tmp_path, trees, **options)
    trainer.train()
    rewards = trainer.predict(trees).predictions
    for row, reward in zip(source.rows, rewards, strict=True):
        comparison = to_comparison(read_row(row), "row")
        for p in comparison.preferences:
            better, worse = ("clear answer" in str(comparison.responses[k]) for k in (p.better, p.worse))
            if p.probability > 0.5 and (better > worse or name == "tool_calls"):
                assert reward[p.better] > reward[p.worse]
