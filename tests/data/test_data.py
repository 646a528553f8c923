"""Rows, sources, the synthetic generator, sets and the cache."""

import gzip
import json
import math

import numpy as np
import pytest
from conftest import ROOT, make_pairs, shared
from datasets import Dataset

from rmlab.data import DATASETS, Preference
from rmlab.data.prepare import Options, check_rows, read_row, tokenize
from rmlab.data.rows import to_comparison
from rmlab.data.sets import at_most, build_sets, load_rows, weighted
from rmlab.messages import UserError


def preferences(row):
    return to_comparison(row, "train row 0").preferences


# ---- rows ----


def test_strength_comes_from_margin_or_scores():
    pair = {"chosen": "a", "rejected": "b"}
    assert preferences(pair) == [Preference(0, 1, 1.0, 1.0)]
    assert preferences({**pair, "margin": 2}) == [Preference(0, 1, 2.0, 1.0)]
    assert preferences({**pair, "score_chosen": 4.5, "score_rejected": 1}) == [Preference(0, 1, 3.5, 1.0)]
    assert preferences({**pair, "probability": 0.7}) == [Preference(0, 1, 1.0, 0.7)]


def test_scores_give_all_pairs_with_ties():
    got = preferences({"prompt": "p", "responses": ["a", "b", "c"], "scores": [1.0, 3.0, 3.0]})
    assert got == [Preference(1, 0, 2.0, 1.0), Preference(2, 0, 2.0, 1.0), Preference(1, 2, 0.0, 0.5)]


def test_ranks_say_who_wins_but_not_how_strongly():
    got = preferences({"prompt": "p", "responses": ["a", "b", "c"], "ranks": [2, 1, 2]})
    assert got == [Preference(1, 0, 1.0, 1.0), Preference(0, 2, 0.0, 0.5), Preference(1, 2, 1.0, 1.0)]


def test_votes_give_probability_and_strength():
    """Three votes: 2 for the second, 1 tie: the second's share is 2.5 / 3."""
    got = preferences({"prompt": "p", "responses": ["a", "b"], "votes": [2, 0, 2]})
    assert got == [Preference(1, 0, pytest.approx(2 * 2.5 / 3 - 1), pytest.approx(2.5 / 3))]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (1, (0, 1, 1.0)),
        ("2", (1, 0, 1.0)),
        ("tie", (0, 1, 0.5)),
        (0, (0, 1, 0.5)),
        ("A", (0, 1, 1.0)),
        (2.0, (1, 0, 1.0)),
    ],
)
def test_a_label_names_the_winner_by_position(label, expected):
    (got,) = preferences({"prompt": "p", "responses": ["a", "b"], "label": label})
    assert (got.better, got.worse, got.probability) == expected


def test_k_wise_labels_are_one_per_pair():
    """QA-Feedback's order: (1,2) (1,3) (2,3)."""
    got = preferences({"prompt": "p", "responses": ["a", "b", "c"], "label": [1, 2, 0]})
    assert [(p.better, p.worse, p.probability) for p in got] == [(0, 1, 1.0), (2, 0, 1.0), (1, 2, 0.5)]


def test_a_prompt_that_both_sides_repeat_is_not_said_twice():
    turn, a, b = ({"role": r, "content": c} for r, c in (("user", "hi"), ("assistant", "yes"), ("assistant", "no")))
    for row in (
        {"prompt": [turn], "chosen": [turn, a], "rejected": [turn, b]},
        {"prompt": "hi", "chosen": [turn, a], "rejected": [turn, b]},
        {"chosen": [turn, a], "rejected": [turn, b]},
        {"prompt": [turn], "chosen": [a], "rejected": [b]},
        {"prompt": [turn], "chosen": "yes", "rejected": "no"},
    ):
        comparison = to_comparison(row, "row")
        assert comparison.prompt == [turn]
        assert comparison.responses == [[a], [b]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "a", "rejected": "b", "margin": float("nan")}, "train row 7 .*margin is nan, not a finite number"),
        ({"chosen": "a", "rejected": "b", "margin": None}, "margin is missing, but other rows have it"),
        ({"chosen": "a", "rejected": "b", "margin": "big"}, "margin is 'big'"),
        ({"chosen": "a", "rejected": "b", "probability": 1.2}, "probability is 1.2, not between 0 and 1"),
        ({"chosen": "a", "rejected": None}, "rejected is neither text nor chat messages"),
        ({"chosen": "a", "rejected": [{"role": "user", "content": "b"}]}, "must both be text or both be messages"),
        ({"prompt": "p", "responses": ["a"], "scores": [1]}, "responses holds 1"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1]}, "scores holds 1 values, 2 are needed"),
        ({"prompt": "p", "responses": ["a", "b"], "label": "left"}, "vote 'left' is none of"),
        ({"prompt": "p", "responses": ["a", "b"], "preferences": [{"better": 0, "worse": 2}]}, "does not name two"),
        ({"chosen_ids": [], "rejected_ids": [1]}, "chosen_ids is empty"),
        ({"text": "a"}, "none of the accepted formats"),
    ],
)
def test_a_bad_row_is_named(row, message):
    with pytest.raises(UserError, match=message):
        to_comparison(row, "train row 7 (counting from 0)")


# ---- sources ----

ROWS = [{"question": f"q{n}", "good": f"yes {n}", "bad": f"no {n}", "meta": {"gap": n + 1}} for n in range(4)]
COLUMNS = {"prompt": "question", "chosen": "good", "rejected": "bad", "margin": "meta.gap"}


def write(path, rows, kind):
    text = json.dumps(rows) if kind.startswith("json.") or kind == "json" else "\n".join(map(json.dumps, rows))
    if kind == "parquet":
        Dataset.from_list(rows).to_parquet(str(path))
    elif kind == "parquet.gz":
        raw = path.with_suffix("")
        Dataset.from_list(rows).to_parquet(str(raw))
        path.write_bytes(gzip.compress(raw.read_bytes()))
        raw.unlink()
    elif kind.endswith("gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def load(path, **options):
    return DATASETS.build("load", {"path": str(path), **options})()


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "jsonl.gz", "json.gz"])
def test_loads_files_with_column_mapping(kind, tmp_path):
    write(tmp_path / f"rows.{kind}", ROWS, kind)
    rows = [read_row(r) for r in load(tmp_path / f"rows.{kind}", columns=COLUMNS)]
    assert [(r["prompt"], r["chosen"], r["rejected"], r["margin"]) for r in rows] == [
        (f"q{n}", f"yes {n}", f"no {n}", n + 1) for n in range(4)
    ]


def test_loads_folders_of_files_and_of_save_to_disk(tmp_path):
    (tmp_path / "files").mkdir()
    for half in (0, 1):
        write(tmp_path / "files" / f"{half}.jsonl", ROWS[2 * half : 2 * half + 2], "jsonl")
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    for folder in ("files", "saved"):
        rows = [read_row(r) for r in load(tmp_path / folder, columns=COLUMNS)]
        assert [r["prompt"] for r in rows] == ["q0", "q1", "q2", "q3"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_streams_files(kind, tmp_path):
    write(tmp_path / f"rows.{kind}", ROWS, kind)
    rows = list(load(tmp_path / f"rows.{kind}", columns=COLUMNS, streaming=True))
    assert [r["margin"] for r in rows] == [1, 2, 3, 4]


def test_rated_responses_are_grouped_by_prompt(tmp_path):
    rows = [{"q": f"q{n % 2}", "a": f"answer {n}", "s": {"overall": n}} for n in range(5)]
    rows.append({"q": "alone", "a": "only one", "s": {"overall": 1}})
    write(tmp_path / "rated.jsonl", rows, "jsonl")
    mapping = {"prompt": "q", "response": "a", "score": "s.overall"}
    got = [read_row(r) for r in load(tmp_path / "rated.jsonl", columns=mapping)]
    assert [(r["prompt"], len(r["responses"]), r["scores"]) for r in got] == [("q0", 3, [0, 2, 4]), ("q1", 2, [1, 3])]


def test_a_separator_cuts_dialogues_into_prompt_and_response(tmp_path):
    rows = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}]
    rows.append({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: z\n\nAssistant: c"})
    write(tmp_path / "d.jsonl", rows, "jsonl")
    first, second = (read_row(r) for r in load(tmp_path / "d.jsonl", prompt_separator="\n\nAssistant:"))
    assert (first["prompt"], first["chosen"], first["rejected"]) == ("\n\nHuman: a\n\nAssistant:", " b", " c")
    assert "prompt" not in second


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (None, {}, "no file or folder '.*rows.jsonl'"),
        ("", {}, "holds no comparison"),
        ("{}\n{bad", {}, "line 2 is not JSON"),
        ("[1, 2]\n", {}, "line 1 is not a JSON object"),
        (
            '{"a": 1}',
            {"columns": {"chosen": "aa"}},
            "data.columns.chosen: no column 'aa' in the data; did you mean|known",
        ),
    ],
)
def test_a_bad_file_is_named(make, options, message, tmp_path):
    path = tmp_path / "rows.jsonl"
    if make is not None:
        path.write_text(make)
    with pytest.raises(UserError, match=message):
        load(path, **options)


def test_a_missing_column_is_named_with_the_nearest_present_one():
    with pytest.raises(
        UserError, match=r"no column 'rejected'; did you mean 'reject'.*data.columns.rejected=YOUR_COLUMN"
    ):
        check_rows(Dataset.from_list([{"chosen": "a", "reject": "b"}]), "train", Options())


def test_identical_responses_are_refused_by_row():
    rows = make_pairs(3).to_list()
    rows[1]["rejected"] = rows[1]["chosen"]
    with pytest.raises(UserError, match=r"train row 1 \(counting from 0\): .* identical"):
        check_rows(Dataset.from_list(rows), "train", Options(identical="error"))


# ---- synthetic ----

WEIGHTS = {"topic": 2.0, "form": 1.5, "tone": 1.0, "hedge": -0.7, "length": 0.1}


def synthetic(**options):
    given = {
        "prompts": 4000, "responses": 2, "temperature": 0.5, "weights": WEIGHTS, "grades": 3, "tie_width": 0.0,
        "label_noise": 0.0, "seed": 0,
    }  # fmt: skip
    return [json.loads(r["json"]) for r in DATASETS.build("synthetic", {**given, **options})()]


def test_synthetic_labels_are_bradley_terry_on_the_gold_gap():
    """In bins of sigma(gap / T), the share of wins is the bin's mean probability within 4 standard errors."""
    p, won = [], []
    for row in synthetic(prompts=12000):
        (preference,) = row["preferences"]
        p.append(1 / (1 + math.exp(-(row["gold_rewards"][0] - row["gold_rewards"][1]) / 0.5)))
        won.append(preference["better"] == 0)
    p, won = np.array(p), np.array(won)
    for low in np.arange(0, 1, 0.1):
        inside = (p >= low) & (p < low + 0.1)
        error = math.sqrt((p[inside] * (1 - p[inside])).mean() / inside.sum())
        assert abs(won[inside].mean() - p[inside].mean()) < 4 * error


def test_gold_rewards_are_the_weighted_attributes_read_off_the_text():
    for row in synthetic(prompts=300):
        prompt = row["prompt"][0]["content"]
        for response, gold in zip(row["responses"], row["gold_rewards"], strict=True):
            text = response[0]["content"]
            topic = prompt.split("tell me about ")[1].split(" ,")[0]
            form = prompt.split(", ")[1].removesuffix(" .")
            opening = {"in one line": "in short", "as steps": "step one", "with an example": "for example"}[form]
            tone = (
                1.0
                if text.startswith(("Gladly", "Of course"))
                else -1.0
                if text.startswith(("Ugh", "Whatever"))
                else 0.0
            )
            hedges = sum(text.count(h) for h in ("maybe", "perhaps", "I guess"))
            length = text.count(" .") - 1
            expected = 2.0 * (f"about {topic}" in text) + 1.5 * (opening in text) + tone - 0.7 * hedges + 0.1 * length
            assert gold == pytest.approx(expected)


def test_synthetic_options_do_what_they_say():
    kwise = synthetic(prompts=50, responses=4)
    assert all(len(r["responses"]) == 4 and len(r["preferences"]) == 6 for r in kwise)
    tied = synthetic(prompts=500, tie_width=1.0)
    share = np.mean([r["preferences"][0]["probability"] == 0.5 for r in tied])
    assert 0.05 < share < 0.5
    strengths = {p["strength"] for r in synthetic(prompts=500) for p in r["preferences"]}
    assert sorted(strengths) == pytest.approx([1 / 3, 2 / 3, 1.0])

    def agreement(**options):
        rows = synthetic(temperature=0.01, **options)
        return np.mean(
            [r["gold_rewards"][p["better"]] >= r["gold_rewards"][p["worse"]] for r in rows for p in r["preferences"]]
        )

    assert agreement() > 0.99
    assert agreement(label_noise=0.2) == pytest.approx(0.8, abs=0.03)
    assert len({json.dumps(r["prompt"]) for r in kwise}) == 50
    with pytest.raises(UserError, match="19200 distinct prompts"):
        synthetic(prompts=20000)


# ---- sets ----


def config(train, evaluation=None, **options):
    return {
        "train": train, "eval": evaluation or {}, "eval_fraction": 0.25, "split_seed": 0, "head": None,
        "max_rows": None, "prompt_overlap": "error", **options,
    }  # fmt: skip


def sets_of(settings, tokenizer, cache=None):
    options = Options()
    return build_sets(load_rows(settings, options), settings, tokenizer, options, cache, None)


def test_mixtures_follow_their_weights_and_name_their_subsets(tokenizer, tmp_path):
    for name, start in (("a", 0), ("b", 100)):
        rows = make_pairs(start + 40, seed=start).select(range(start, start + 40)).to_list()
        write(tmp_path / f"{name}.jsonl", rows, "jsonl")
    spec = {n: {"source": "load", "path": str(tmp_path / f"{n}.jsonl")} for n in "ab"}
    spec["a"]["weight"], spec["b"]["weight"] = 0.5, 2.0
    train, sets = sets_of(config(spec), tokenizer)
    counts = {n: sum(s == n for s in train["subset"]) for n in "ab"}
    held_out = {n: sum(s == n for s in sets["eval"]["subset"]) for n in "ab"}
    assert counts["a"] == round(0.5 * (40 - held_out["a"]))
    assert counts["b"] == 2 * (40 - held_out["b"])
    assert min(held_out.values()) > 0


def test_fractions_are_parts_of_whole_copies(tokenizer):
    trees = tokenize(make_pairs(10), tokenizer, Options())
    assert sorted(weighted(trees, 2.0, 0)["id"]) == sorted([*trees["id"], *trees["id"]])
    assert len(weighted(trees, 1.3, 0)) == 13
    small, large = at_most(trees, 3, 0), at_most(trees, 6, 0)
    assert large["id"][:3] == small["id"]


def test_named_evaluation_sets_must_not_share_prompts_with_training(tokenizer, tmp_path):
    write(tmp_path / "train.jsonl", make_pairs(12).to_list(), "jsonl")
    write(tmp_path / "same.jsonl", make_pairs(12).select(range(4)).to_list(), "jsonl")
    spec = {"t": {"source": "load", "path": str(tmp_path / "train.jsonl")}}
    evaluation = {"seen": {"source": "load", "path": str(tmp_path / "same.jsonl")}}
    with pytest.raises(UserError, match="seen: 4 of 4 comparisons are on prompts of the training set"):
        sets_of(config(spec, evaluation), tokenizer)
    _, sets = sets_of(config(spec, evaluation, prompt_overlap="allow"), tokenizer)
    assert len(sets["seen"]) == 4


def test_tokens_are_cached_by_content(tokenizer, tmp_path, monkeypatch):
    """The second time nothing is tokenised; another row, option or tokenizer is another entry."""
    import rmlab.data.prepare as module

    cache, calls = tmp_path / "cache", []
    real = module.encode
    monkeypatch.setattr(module, "encode", lambda *a: calls.append(1) or real(*a))

    def again(rows=None, tokens=tokenizer, **options):
        calls.clear()
        tokenize(rows or make_pairs(5), tokens, Options(**options), cache_dir=cache)
        return len(calls)

    assert again() == 10
    assert again() == 0
    tokenizer("something longer", padding="max_length", max_length=32, truncation=True)  # leaves state behind
    assert again() == 0
    assert again(max_length=500) == 10
    assert again(rows=make_pairs(5, seed=2)) == 10
    tokenizer.chat_template = "{{ messages }}"
    assert again() == 10
    assert len(list(cache.iterdir())) == 4


def test_two_processes_may_tokenise(tokenizer):
    one = tokenize(make_pairs(8), tokenizer, Options())
    two = tokenize(make_pairs(8), tokenizer, Options(), num_proc=2)
    assert one.to_dict() == two.to_dict()


# ---- real files, where they are ----


@pytest.mark.parametrize(
    ("name", "file", "comparisons", "preferences"),
    [
        ("hh", "hh_harmless.jsonl.gz", 2312, 2312),
        ("topical_chat", "topical_chat.json.gz", 60, 900),
        ("qa_feedback", "qa_feedback.json.gz", 500, 3000),
        ("pandalm", "pandalm.json.gz", 999, 999),
    ],
)
def test_real_data_reads_as_its_config_says(name, file, comparisons, preferences):
    import yaml

    spec = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())
    options = {k: spec[k] for k in ("columns", "prompt_separator") if k in spec}
    rows = load(shared(file), **options)
    read = [to_comparison(read_row(row), f"row {n}") for n, row in enumerate(rows)]
    assert len(read) == comparisons
    assert sum(len(c.preferences) for c in read) == preferences
    if name == "topical_chat":
        assert sum(p.probability == 0.5 for c in read for p in c.preferences) == 66
    if name == "hh":
        assert sum(bool(c.prompt) for c in read) == 2307


# ---- found by review ----


def test_a_tie_has_no_strength_and_a_probability_below_one_half_turns_the_pair():
    """With loss=margin a tie must still be least at equal rewards."""
    pair = {"chosen": "a", "rejected": "b", "margin": 2.0}
    assert preferences({**pair, "probability": 0.5}) == [Preference(0, 1, 0.0, 0.5)]
    assert preferences({**pair, "probability": 0.25}) == [Preference(1, 0, 2.0, 0.75)]


def test_negative_strengths_are_counted(tokenizer, capsys):
    tokenize(make_pairs(3, score_chosen=[1, 2, 3], score_rejected=[5, 1, 1]), tokenizer, Options())
    assert "1 preferences have a negative strength" in capsys.readouterr().out


def test_response_length_is_without_the_prompt_only(tokenizer):
    """Not what is left after the words that both answers happen to share."""
    rows = [{"prompt": "hi ", "chosen": "maybe perhaps maybe yes", "rejected": "maybe perhaps maybe no"}]
    (tree,) = tokenize(Dataset.from_list(rows), tokenizer, Options())
    expected = [
        len(tokenizer(t + "<|eos|>", add_special_tokens=False)["input_ids"])
        for t in (" maybe perhaps maybe yes", " maybe perhaps maybe no")
    ]
    assert tree["lengths"] == pytest.approx(expected, abs=1)


def test_k_wise_rows_lose_only_the_identical_pair(tokenizer, capsys):
    rows = Dataset.from_list([{"prompt": "p ", "responses": ["a", "a", "b"], "scores": [1, 2, 3]}])
    (tree,) = tokenize(rows, tokenizer, Options())
    assert list(zip(tree["better"], tree["worse"], strict=True)) == [(2, 0), (2, 1)]
    assert "dropped 0 overlong, 1 identical" in capsys.readouterr().out


def test_a_prompt_said_twice_is_refused():
    rows = [{"prompt": "Question: ", "chosen": "Question: yes", "rejected": "Question: no"}] * 3
    with pytest.raises(UserError, match="already start with the prompt"):
        check_rows(Dataset.from_list(rows), "train", Options())


def test_other_code_makes_other_cache_entries(tokenizer, tmp_path, monkeypatch):
    import rmlab.data.prepare as module

    for version in ("one", "two"):
        monkeypatch.setattr(module, "code", lambda v=version: v)
        tokenize(make_pairs(2), tokenizer, Options(), cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_implicit_prompts_are_warned_of_before_a_split(tokenizer, tmp_path, capsys):
    write(tmp_path / "t.jsonl", [{"chosen": f"q{n} yes", "rejected": f"q{n} no"} for n in range(30)], "jsonl")
    sets_of(config({"t": {"source": "load", "path": str(tmp_path / "t.jsonl")}}), tokenizer)
    assert "no row has a prompt of its own" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"responses": "abc", "scores": [1, 2, 3]}, "responses must be a list"),
        ({"responses": ["a", "b"], "votes": 1}, "votes must be a list"),
        ({"responses": ["a", "b"], "scores": None}, "scores must be a list"),
        ({"responses": ["a", "b"], "preferences": []}, "preferences states no preference"),
        ({"responses": ["a", "b"], "preferences": [{"better": 0}]}, "does not name better and worse"),
        (
            {"responses": ["a", "b"], "preferences": [{"better": 0, "worse": 1, "probability": 7}]},
            "not between 0 and 1",
        ),
        ({"chosen": float("nan"), "rejected": "b"}, "chosen is neither text nor chat messages"),
        ({"chosen": "a", "rejected": "b", "tools": "{"}, "tools is text but no JSON"),
        ({"chosen": "a", "rejected": "b", "chat_template_kwargs": "x"}, "chat_template_kwargs must be a mapping"),
    ],
)
def test_a_row_of_the_wrong_shape_is_named(row, message):
    with pytest.raises(UserError, match=message):
        to_comparison(row, "train row 0")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", b"a,b", "is none of .jsonl, .json, .parquet"),
        ("a.json", b'[{"a": 1', "is not JSON"),
        ("a.json", b"[[1], [2]]", "row 0 .* is not a JSON object"),
        ("a.jsonl", b"\xff\xfe{}", "cannot read"),
        ("a.jsonl.gz", b"no gzip", "cannot read"),
        ("a.parquet", b"no parquet", "cannot read .* as parquet"),
    ],
)
def test_an_unreadable_file_is_named(file, content, message, tmp_path):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path / file)


@pytest.mark.parametrize("weight", [0, -0.5, "high", True])
def test_a_weight_must_be_positive(weight, tokenizer, tmp_path):
    write(tmp_path / "t.jsonl", make_pairs(9).to_list(), "jsonl")
    with pytest.raises(UserError, match=r"data.train.t.weight must be a number above 0"):
        sets_of(config({"t": {"source": "load", "path": str(tmp_path / "t.jsonl"), "weight": weight}}), tokenizer)


def test_unknown_synthetic_weights_are_refused():
    with pytest.raises(UserError, match="the synthetic weights are"):
        synthetic(weights={**WEIGHTS, "lenght": 1.0})
