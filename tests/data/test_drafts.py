"""Batches of rows give what the rows give one by one, and name the same bad row."""

import copy

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rmlab import UserError
from rmlab.data.config import Options
from rmlab.data.drafts import TOGETHER, to_tree, to_trees
from rmlab.data.prepare import comparisons, tokenize
from rmlab.data.render import PART, encode, parts, tokens_of
from rmlab.data.rows import to_comparison
from rmlab.data.trees import FEATURES, TokenTree

CHAT = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}{{ tools }}{{ end }}"


def turn(role, content):
    return {"role": role, "content": content}


TEXTS = [
    {"prompt": "What is it? ", "chosen": "It is rain.", "rejected": "It is rain, I guess."},
    {"prompt": "What is it? ", "responses": ["rain", "snow", "rain", "é 雨 🌧 " * 9], "scores": [1, 2, 3, 3]},
    {"chosen": "the same words, then yes", "rejected": "the same words, then no", "id": "mine", "subset": "s"},
    {"prompt": "", "chosen": "", "rejected": "b", "margin": -2.0},
    {"chosen": "twice", "rejected": "twice"},
    {"chosen": "long " * 60, "rejected": "short", "probability": 0.5},
    {"chosen_ids": [5, 6, 7], "rejected_ids": [5, 9]},
]
CHATS = [
    {"prompt": [turn("user", "hi")], "chosen": [turn("assistant", "a")], "rejected": [turn("assistant", "b")]},
    {"prompt": [turn("system", "Be kind."), turn("user", "hi")], "responses": ["a", "b", "c"], "ranks": [1, 2, 2]},
    {"chosen": [turn("user", "q"), turn("assistant", "a")], "rejected": [turn("user", "q"), turn("assistant", "b")]},
    {
        "prompt": [turn("user", "hi")], "chosen": [turn("assistant", " ")], "rejected": [turn("assistant", "b")],
        "tools": [{"name": "f"}], "chat_template_kwargs": {"end": "over"},
    },
]  # fmt: skip
ROWS = [*TEXTS, *CHATS] * 3


def metaspace():
    """As Llama's: a mark for white space also before the first word, <s> in front, no splitting at punctuation."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((c, -9.0) for c in "abcdefghijklmnopqrstuvwxyz?.,[]IWB")]
    pieces += [("▁", -3.0), ("▁the", -4.0), ("▁is", -4.0), ("▁it", -4.0), ("ain", -5.0), ("▁rain", -5.5), ("▁[", -5.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(params=["embedded", "bert", "metaspace"])
def tokenizer(request, built_tokenizer):
    if request.param == "bert":
        made = AutoTokenizer.from_pretrained(request.getfixturevalue("minilm"))
    else:
        made = metaspace() if request.param == "metaspace" else copy.deepcopy(built_tokenizer)
    made.chat_template = CHAT
    return made


def numbered(rows):
    return comparisons(rows, range(len(rows)), "t")


@pytest.mark.parametrize(
    "options",
    [{"max_length": None}, {"max_length": 24}, {"max_length": 12, "overlong": "truncate"}, {"empty": "drop"}],
)
def test_a_batch_gives_the_trees_of_its_rows(options, tokenizer):
    options = Options(**options)
    together = to_trees(numbered(ROWS), tokenizer, options)
    assert together == [to_tree(c, n, where, tokenizer, options) for c, n, where in numbered(ROWS)]
    assert len({tuple(tree.responses[0]) for tree in together}) > 5


def test_every_response_has_the_tokens_that_scoring_gives_it(tokenizer):
    """`encode` is what a reward function scores; rows of token ids have no text."""
    rows = [row for row in ROWS if "chosen_ids" not in row]
    trees = to_trees(numbered(rows), tokenizer, Options(max_length=None))
    for tree, row in zip(trees, rows, strict=True):
        comparison = to_comparison(row, "row")
        wanted = [encode(tokenizer, comparison.prompt, r, comparison.template) for r in comparison.responses]
        assert tree.responses == wanted


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_data_set_has_the_trees_of_its_rows_in_their_order(num_proc, tokenizer, monkeypatch):
    monkeypatch.setattr("rmlab.data.prepare.BATCH", 4)
    rows = [{"prompt": f"q{n} ", "chosen": "yes " * (n % 7), "rejected": "no"} for n in range(30)]
    trees = tokenize(Dataset.from_list(rows), tokenizer, Options(max_length=None), num_proc=num_proc)
    alone = [to_tree(c, n, where, tokenizer, Options(max_length=None)) for c, n, where in numbered(rows)]
    assert [TokenTree.of(row) for row in trees] == alone
    assert trees.features == FEATURES


BAD = {
    "a row": ({"chosen": "a", "rejected": None}, {}, "rejected is neither text"),
    "an equal pair": ({"chosen": "a", "rejected": "a"}, {"identical": "error"}, "are identical"),
    "an empty response": ({"chosen": " \n", "rejected": "a"}, {"empty": "error"}, "a response is empty"),
    "a template": ({"chosen": [turn("bad", "a")], "rejected": [turn("bad", "b")]}, {}, "does not take its messages"),
    "its length": ({"chosen": "a " * 99, "rejected": "b"}, {"overlong": "error", "max_length": 40}, "data.max_length"),
    "its ids": ({"chosen_ids": [10**6], "rejected_ids": [5]}, {}, "token id 1000000 is none"),
}


@pytest.mark.parametrize("second", BAD)
@pytest.mark.parametrize("first", BAD)
def test_the_first_bad_row_of_a_batch_is_named_whatever_is_wrong_with_the_next(first, second, built_tokenizer):
    """What is wrong with a row's text is known before what is wrong with its tokens."""
    tokenizer = copy.deepcopy(built_tokenizer)
    tokenizer.chat_template = "{{ raise_exception('bad role') }}"
    good = {"chosen": "a", "rejected": "b"}
    rows = [good, BAD[first][0], good, BAD[second][0], good]
    options = Options(**{**BAD[first][1], **BAD[second][1]})
    with pytest.raises(UserError, match=rf"^t row 1 \(counting from 0\): .*{BAD[first][2]}"):
        to_trees(numbered(rows), tokenizer, options)


def test_many_rows_are_what_each_is_alone(built_tokenizer):
    """The tokenizer has some of them while others are drafted and finished; the first bad row is named all the same."""
    rows = [
        {"prompt": "p" * (n % 7), "chosen": f"a{n} " * (n % 40 + 1), "rejected": f"b{n}"}
        for n in range(3 * TOGETHER + 5)
    ]
    together = to_trees(numbered(rows), built_tokenizer, Options())
    assert together == [to_tree(*one, built_tokenizer, Options()) for one in numbered(rows)]
    longest = max(range(TOGETHER), key=lambda n: together[n].length)
    rows[2 * TOGETHER] = {"chosen": "same", "rejected": "same"}
    strict = Options(max_length=together[longest].length - 1, overlong="error", identical="error")
    with pytest.raises(UserError, match=f"t row {longest} .*tokens"):
        to_trees(numbered(rows), built_tokenizer, strict)


def test_a_text_that_the_tokenizer_does_not_take_is_named_by_its_row(built_tokenizer, monkeypatch):
    class Picky(type(built_tokenizer)):
        def __call__(self, text, **options):
            if any("odd" in part for part in ([text] if isinstance(text, str) else text)):
                raise ValueError("an odd text")
            return super().__call__(text, **options)

    monkeypatch.setattr(built_tokenizer, "__class__", Picky)
    rows = [{"chosen": "a", "rejected": "b"}, {"chosen": "c", "rejected": "odd"}]
    with pytest.raises(UserError, match=r"t row 1 .*: the tokenizer does not take it: an odd text"):
        to_trees(numbered(rows), built_tokenizer, Options())


def test_equal_texts_are_tokenised_once_and_no_call_is_given_more_than_a_part(built_tokenizer):
    texts = ["a" * (PART // 3)] * 5 + ["b" * PART, "c", "b" * PART, "d" * (2 * PART), "e"]
    assert [[text[0] for text in part] for part in parts(dict.fromkeys(texts))] == [["a"], ["b"], ["c"], ["d"], ["e"]]
    called = []

    def tokenizer(texts, **_):
        called.extend(texts)
        return {"input_ids": [[len(text)] for text in texts]}

    assert tokens_of(tokenizer, ["x", "yy", "x"]) == {"x": [1], "yy": [2]}
    assert called == ["x", "yy"]
