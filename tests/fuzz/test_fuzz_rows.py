"""Random files of rows, right ones and ones that went wrong: a valid result, or a sentence naming row, file or key."""

import contextlib
import gzip
import io
import json
import math
import os
import random
import re
from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmlab.data.config import DataConfig, Options
from rmlab.data.prepare import tokenize
from rmlab.data.sets import load_rows
from rmlab.data.tokenizer import build_tokenizer
from rmlab.data.trees import TokenTree
from rmlab.messages import UserError

WORDS = [
    "river",
    "Brot",
    "stars",
    "é",
    "雨",
    "🌧",
    "[/b]",
    "<|eos|>",
    "\n",
    "\t",
    "0",
    "a" * 40,
    "\u2028",
    "'",
    '"',
    "{x}",
    "%",
]
ODD = [
    None, True, False, 0, 1, -1, 2, 0.5, 1.7, -3.0, 1e39, 1e308, 10**30, 2**31, float("nan"), float("inf"), "", " ",
    "x", "1", "nan", "\ud800", "\x00", [], [None], [[]], ["a"], [1, 2], [0.5, "x"], {}, {"a": 1}, {"role": "user"},
    {"role": "user", "content": None}, [{"role": "user", "content": "q"}], [{"content": "q"}],
    [{"role": 5, "content": "q"}],
    [{"role": "user", "content": [{"type": "text", "text": "q"}]}], [{"role": "user", "content": [{"type": "image"}]}],
]  # fmt: skip


def text(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 6)))


def turns(rng, *roles):
    return [{"role": role, "content": text(rng)} for role in roles]


def answer(rng, chat):
    return turns(rng, "assistant") if chat else text(rng)


def row_of(rng, kind, chat):
    """A right row of a format."""
    k = rng.randint(2, 5)
    prompt = turns(rng, "user") if chat else text(rng)
    responses = [answer(rng, chat) for _ in range(k)]
    many = {"prompt": prompt, "responses": responses}
    pairs = k * (k - 1) // 2
    match kind:
        case "pair":
            return {"prompt": prompt, "chosen": responses[0], "rejected": responses[1]}
        case "implicit":
            both = turns(rng, "user") if chat else ""
            return {side: both + responses[n] for n, side in enumerate(("chosen", "rejected"))}
        case "margin":
            return {"chosen": responses[0], "rejected": responses[1], "margin": rng.uniform(-3, 3)}
        case "rated":
            scores = {"score_chosen": rng.uniform(0, 9), "score_rejected": rng.uniform(0, 9)}
            return {"prompt": prompt, "chosen": responses[0], "rejected": responses[1], **scores}
        case "soft":
            return {"prompt": prompt, "chosen": responses[0], "rejected": responses[1], "probability": rng.random()}
        case "scores":
            return {**many, "scores": [rng.choice([1, 2.5, 3]) for _ in range(k)]}
        case "ranks":
            return {**many, "ranks": [rng.randint(1, 3) for _ in range(k)]}
        case "label":
            return {"prompt": prompt, "responses": responses[:2], "label": rng.choice([1, 2, "tie", "first", "b"])}
        case "votes":
            return {**many, "votes": [rng.choice([0, 1, 2]) for _ in range(rng.randint(1, 4) if k == 2 else pairs)]}
        case "native":
            better, worse = rng.sample(range(k), 2)
            more = {"strength": rng.uniform(-1, 2), "probability": rng.random()} if rng.random() < 0.5 else {}
            return {**many, "preferences": [{"better": better, "worse": worse, **more}]}
        case "ids":
            return {
                f"{side}_ids": [rng.randint(0, 600) for _ in range(rng.randint(1, 9))]
                for side in ("chosen", "rejected")
            }
        case _:
            sides = {}
            for side in ("chosen", "rejected"):
                ids = [rng.randint(0, 600) for _ in range(rng.randint(1, 9))]
                sides[f"input_ids_{side}"] = [*ids, 0, 0]
                sides[f"attention_mask_{side}"] = [1] * len(ids) + [0, 0]
            return sides


KINDS = ["pair", "implicit", "margin", "rated", "soft", "scores", "ranks", "label", "votes", "native", "ids", "masked"]


def changed(rng, value, depth=0):
    """Something else in the place of a value, or of a part of it."""
    if depth < 3 and isinstance(value, list) and value and rng.random() < 0.6:
        n = rng.randrange(len(value))
        new = [*value[:n], *([] if rng.random() < 0.3 else [changed(rng, value[n], depth + 1)]), *value[n + 1 :]]
        return new
    if depth < 3 and isinstance(value, dict) and value and rng.random() < 0.6:
        key = rng.choice(list(value))
        if rng.random() < 0.3:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed(rng, value[key], depth + 1)}
    return rng.choice(ODD)


MORE = [
    "id",
    "subset",
    "gold_rewards",
    "tools",
    "chat_template_kwargs",
    "images",
    "margin",
    "label",
    "ranks",
    "json",
    "prompt",
]


def wrong(rng, row):
    """The row after one accident."""
    draw = rng.random()
    if draw < 0.2:
        key = rng.choice(list(row))
        return {k: v for k, v in row.items() if k != key}
    if draw < 0.4:
        return {**row, rng.choice(MORE): rng.choice(ODD)}
    if draw < 0.45:
        return rng.choice([[], "row", 3, None, {}])
    key = rng.choice(list(row))
    return {**row, key: changed(rng, row[key])}


def written(rng, rows, place):
    """The rows in a file of some kind, perhaps after an accident to it; None where no such file can be written."""
    kind = rng.choice(["jsonl", "jsonl", "json", "jsonl.gz", "parquet"])
    file = place / f"rows.{kind}"
    if kind == "parquet":
        try:
            pq.write_table(pa.Table.from_pylist(rows), file)
        except (pa.ArrowException, TypeError, ValueError, AttributeError, OverflowError):
            return None  # Arrow has no such table
        return file
    ascii_only = rng.random() < 0.5
    try:
        lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    except ValueError:
        return None
    content = f"[{','.join(lines)}]" if kind == "json" and rng.random() < 0.5 else "\n".join(lines)
    raw = content.encode("utf-8", "surrogatepass")
    accident = rng.random()
    if accident < 0.03:
        raw = raw[: rng.randrange(len(raw) + 1)]
    elif accident < 0.06:
        raw = b"\xef\xbb\xbf" + raw
    elif accident < 0.08:
        raw = raw.replace(b"\n", b"\n\n")
    elif accident < 0.1:
        raw = raw.replace(b'"', b"", 1)
    elif accident < 0.11:
        raw += b"\n" + b"[" * 5000
    elif accident < 0.12:
        raw += b'\n{"chosen": ' + b"1" * 5000 + b', "rejected": "b"}'
    elif accident < 0.13:
        raw += b"\xff\xfe"
    file.write_bytes(gzip.compress(raw) if kind.endswith("gz") else raw)
    return file


def assert_valid(trees, tokenizer, options):
    """What every token tree promises."""
    for row in trees:
        tree = TokenTree.of(row)
        k = len(tree.suffixes)
        assert k >= 2
        assert len(tree.lengths) == k
        assert len(tree.better) == len(tree.worse) == len(tree.strength) == len(tree.probability) > 0
        assert all(0 <= a < k and 0 <= b < k and a != b for a, b in zip(tree.better, tree.worse, strict=True))
        assert all(0.5 <= p <= 1 for p in tree.probability)
        assert all(math.isfinite(s) for s in tree.strength)
        assert all(s == 0 for s, p in zip(tree.strength, tree.probability, strict=True) if p == 0.5)
        assert tree.length == tree.longest <= (options.max_length or 10**9)
        assert all(len(r) > 0 and 0 <= n <= len(r) for r, n in zip(tree.responses, tree.lengths, strict=True))
        assert all(0 <= i < len(tokenizer) for r in tree.responses for i in r)
        assert tree.gold in ([], None) or (len(tree.gold) == k and np.isfinite(tree.gold).all())
        assert tree.prompt_id
        assert tree.split_id
    assert len(trees) > 0


NAMED = re.compile(r"\brow \d+|rows\.(jsonl|json|parquet)|\bline \d+|data\.|\bmine: |no column")


def outcome(rng, place, tokenizer):
    """valid, no such file, or the refusal without its numbers and values; whatever else happens is raised."""
    chat, kind = rng.random() < 0.4, rng.choice(KINDS)
    rows = [row_of(rng, kind, chat) for _ in range(rng.randint(1, 5))]
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        n = rng.randrange(len(rows))
        rows[n] = wrong(rng, rows[n]) if isinstance(rows[n], dict) and rows[n] else rows[n]
    file = written(rng, rows, place)
    if file is None:
        return "no such file"
    options = Options(
        rng.choice([None, 3, 20, 200]), rng.choice(["drop", "truncate", "error"]), rng.choice(["drop", "error"])
    )
    spec = {"source": "load", "path": str(file), "streaming": rng.random() < 0.1}
    data = DataConfig(
        train={"mine": spec}, max_length=options.max_length, overlong=options.overlong, identical=options.identical,
        eval_fraction=0.0,
    )  # fmt: skip
    try:
        (source,) = load_rows(data).train
        trees = tokenize(source.rows, tokenizer, options, "mine")
        if spec["streaming"]:
            trees = datasets.Dataset.from_list(list(trees)) if list(trees.take(1)) else None
        if trees is None:
            return "an empty stream"
        assert_valid(trees, tokenizer, options)
        return "valid"
    except UserError as error:
        sentence = str(error)
        assert "\n" not in sentence, sentence
        assert len(sentence) < 1500, sentence
        assert NAMED.search(sentence), sentence
        sentence.encode()
        return "refused: " + " ".join(w for w in re.sub(r"['\"\[{(].*", "", sentence).split()[-6:] if not w.isdigit())
    finally:
        os.remove(file)


def fuzz(seeds, place):
    tokenizer, counts = build_tokenizer(), Counter()
    datasets.disable_progress_bars()
    try:
        for seed in seeds:
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    counts[outcome(random.Random(seed), place, tokenizer)] += 1
                except Exception as error:
                    raise AssertionError(f"seed {seed}: {type(error).__name__}: {str(error)[:500]}") from error
    finally:
        datasets.enable_progress_bars()
    kinds = Counter(kind.partition(":")[0] for kind in counts.elements())
    print(f"{sum(counts.values()):,} files: {dict(kinds)}")
    return kinds


def test_a_hundred_files_of_rows(tmp_path):
    kinds = fuzz(range(100), tmp_path)
    assert min(kinds["valid"], kinds["refused"]) > 20


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_five_thousand_files_of_rows(part, tmp_path, capsys):
    kinds = fuzz(range(1000 + 1000 * part, 2000 + 1000 * part), tmp_path)
    with capsys.disabled():
        print(f"\nrows, part {part}: {dict(kinds)}")
    assert min(kinds["valid"], kinds["refused"]) > 200
