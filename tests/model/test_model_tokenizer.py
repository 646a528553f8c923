"""The tokenizer of a model: special tokens, template, and a pad token that servers do not misread."""

import pytest
from conftest import make_model, trainer_for

from rmlab import UserError
from rmlab.model.config import ModelConfig
from rmlab.model.tokenizer import complete_tokenizer, ensure_pad_token, load_tokenizer


def test_a_new_pad_token_is_added_as_given(tokenizer, tmp_path):
    trainer = trainer_for(make_model(), tokenizer, tmp_path, pad_token="<|mine|>")
    assert trainer.processing_class.pad_token == "<|mine|>"
    assert trainer.model.config.pad_token_id == trainer.processing_class.convert_tokens_to_ids("<|mine|>")


def test_the_tokenizer_is_the_embedded_one_the_models_or_another(tokenizer, tmp_path):
    assert load_tokenizer(ModelConfig(tokenizer="embedded")).get_vocab() == tokenizer.get_vocab()
    tokenizer.add_tokens(["unheard"])
    tokenizer.save_pretrained(tmp_path / "mine")
    for config in (ModelConfig(path=str(tmp_path / "mine")), ModelConfig(path="x", tokenizer=str(tmp_path / "mine"))):
        assert "unheard" in load_tokenizer(config).get_vocab()


def test_a_tokenizer_without_a_pad_token_needs_one(tokenizer, tmp_path):
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "padless")
    config = ModelConfig(path=str(tmp_path / "padless"))
    with pytest.raises(UserError, match=r"has no pad token; set model.pad_token"):
        load_tokenizer(config)
    config.pad_token = "<|new|>"
    assert load_tokenizer(config).pad_token == "<|new|>"


def test_a_template_is_a_file_or_that_of_another_tokenizer(tokenizer, tmp_path):
    (tmp_path / "mine.jinja").write_text("{{ messages }}", encoding="utf-8")
    complete_tokenizer(tokenizer, None, None, str(tmp_path / "mine.jinja"))
    assert tokenizer.chat_template == "{{ messages }}"
    tokenizer.save_pretrained(tmp_path / "other")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "none")
    complete_tokenizer(tokenizer, None, None, str(tmp_path / "other"))
    assert tokenizer.chat_template == "{{ messages }}"
    for template, message in (("gone.jinja", "file '.*gone.jinja' does not exist"), ("none", "has no chat template")):
        with pytest.raises(UserError, match=message):
            complete_tokenizer(tokenizer, None, None, str(tmp_path / template))


@pytest.mark.parametrize("pad", [None, "<|eos|>"])
def test_pads_are_never_eos(pad, tokenizer, capsys):
    tokenizer.pad_token = pad
    tokenizer.unk_token = None
    model = make_model(vocab_size=len(tokenizer))
    ensure_pad_token(model, tokenizer)
    assert tokenizer.pad_token == "<|pad|>"
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id)
    assert model.config.pad_token_id == tokenizer.pad_token_id < model.get_input_embeddings().weight.shape[0]
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert "servers would misread the last token" in capsys.readouterr().out


def test_a_pad_token_of_its_own_stays(tokenizer, capsys):
    before, model = tokenizer.pad_token, make_model()
    ensure_pad_token(model, tokenizer)
    assert (tokenizer.pad_token, model.config.pad_token_id) == (before, tokenizer.pad_token_id)
    assert model.get_input_embeddings().weight.shape[0] == 768
    assert capsys.readouterr().out == ""
