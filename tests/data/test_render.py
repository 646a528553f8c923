"""One BOS, one EOS, no date: the one function that training and scoring share."""

import pytest
from transformers import AutoTokenizer

from rmlab import UserError
from rmlab.data.render import encode, refuse_dated_template


@pytest.mark.parametrize(
    "text", ["hello", "hello<|eos|>", "<|bos|>hello", "<|bos|>hello<|eos|>", "hello<|eos|><|eos|>"]
)
def test_rule_8_text_has_exactly_one_bos_and_eos(text, tokenizer):
    """Fails if special tokens are added blindly (doubled) or not at all."""
    ids = encode(tokenizer, "", text, {})
    assert ids.count(tokenizer.bos_token_id) == ids.count(tokenizer.eos_token_id) == 1
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_rule_8_a_chat_has_exactly_one_bos_and_one_final_eos(tokenizer):
    """Fails if the template's BOS meets the tokenizer's."""
    messages = [{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "hello"}]
    ids = encode(tokenizer, *messages, {})
    assert ids.count(tokenizer.bos_token_id) == ids.count(tokenizer.eos_token_id) == 1
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_rule_8_encoders_keep_cls_and_sep(minilm):
    """Fails if encoder text loses the tokens that its pooling reads."""
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    ids = encode(tokenizer, "a question ", "an answer", {})
    assert ids == tokenizer("a question an answer")["input_ids"]


def test_rule_8_a_template_that_prints_the_date_is_refused(tokenizer):
    """Fails if rewards may depend on the day. A pinned date is fine."""
    tokenizer.chat_template = (
        "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}" + tokenizer.chat_template
    )
    with pytest.raises(UserError, match="prints today's date"):
        refuse_dated_template(tokenizer, {})
    refuse_dated_template(tokenizer, {"date_string": "26 Jul 2024"})
