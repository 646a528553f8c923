"""Chat templates by name: what they write, to the letter, and what is said of a name that is none."""

import pytest
from jinja2.exceptions import TemplateError

from rmlab import UserError
from rmlab.model.templates import check_template_name
from rmlab.model.tokenizer import complete_tokenizer

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Danube."},
]
CHATML = """<|im_start|>system
Be brief.<|im_end|>
<|im_start|>user
Name a river.<|im_end|>
<|im_start|>assistant
The Danube.<|im_end|>
"""
PLAIN = "system: Be brief.\n\nuser: Name a river.\n\nassistant: The Danube."


@pytest.mark.parametrize(("name", "text"), [("chatml", CHATML), ("plain", PLAIN + "<|eos|>")])
def test_a_template_writes_what_its_name_says(name, text, tokenizer):
    complete_tokenizer(tokenizer, None, None, name)
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == text
    asked = tokenizer.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True)
    assert text.startswith(asked)
    assert asked.endswith(("assistant\n", "assistant: "))


def test_plain_ends_without_an_eos_where_there_is_none(tokenizer):
    complete_tokenizer(tokenizer, None, None, "plain")
    tokenizer.eos_token = None
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == PLAIN


@pytest.mark.parametrize("name", ["chatml", "plain"])
def test_what_a_template_has_no_words_for_is_refused(name, tokenizer):
    complete_tokenizer(tokenizer, None, None, name)
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    for messages, tools in (([*CHAT, call], None), (CHAT, [{"type": "function", "function": {"name": "f"}}])):
        with pytest.raises(TemplateError, match="no words for tools"):
            tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)


def test_a_name_adds_no_token_and_says_what_is_spelled(tokenizer, capsys):
    size = len(tokenizer)
    complete_tokenizer(tokenizer, None, None, "chatml")
    assert len(tokenizer) == size
    assert "chat template chatml: <|im_start|> and <|im_end|> are no tokens of the tokenizer" in capsys.readouterr().out
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    complete_tokenizer(tokenizer, None, None, "chatml")
    complete_tokenizer(tokenizer, None, None, "plain")
    assert capsys.readouterr().out == ""


def test_a_name_that_is_none_is_told_the_nearest(tokenizer, tmp_path):
    for check in (check_template_name, lambda name: complete_tokenizer(tokenizer, None, None, name)):
        with pytest.raises(UserError, match=r"no 'chatlm'; did you mean 'chatml'\?"):
            check("chatlm")
        with pytest.raises(UserError, match=r"file 'gone.jinja' does not exist"):
            check("gone.jinja")
    check_template_name(None)
    check_template_name("org/a-tokenizer")
    (tmp_path / "chatm.jinja").write_text("")
    check_template_name(str(tmp_path / "chatm.jinja"))
