"""The tokenizer of a model: loaded, with its special tokens and its chat template."""

from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from rmlab.data import Tokenizer
from rmlab.data.tokenizer import build_tokenizer
from rmlab.messages import UserError, first_line, say
from rmlab.model.config import ModelConfig
from rmlab.model.templates import MARKS, TEMPLATES, check_template_name, refuse_new_eos


def load_tokenizer(config: ModelConfig) -> Tokenizer:
    """The tokenizer of a `model` config node: its own, the model's, or the embedded one (`tokenizer: embedded`)."""
    name = config.tokenizer or config.path
    if name == "embedded":
        tokenizer: Tokenizer = build_tokenizer()
    else:
        tokenizer = tokenizer_of(str(name), revision=config.revision, trust_remote_code=config.trust_remote_code)
    complete_tokenizer(tokenizer, config.pad_token, config.eos_token, config.chat_template)
    if tokenizer.pad_token is None:
        raise UserError("the tokenizer has no pad token; set model.pad_token, for example model.pad_token='<|pad|>'")
    return tokenizer


def tokenizer_of(name: str, **options: Any) -> Tokenizer:
    """The tokenizer of a folder or hub name. UserError where there is none: transformers may make up an empty one."""
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"model.tokenizer: cannot load {name!r}: {first_line(error)}") from error
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise UserError(f"model.tokenizer: {name!r} holds no tokenizer; name one, or pass it as processing_class")
    return tokenizer


def complete_tokenizer(
    tokenizer: Tokenizer, pad_token: str | None, eos_token: str | None, chat_template: str | None
) -> None:
    """Set what is given: a pad token (a new one is added), an EOS token of the vocabulary, a template (see below)."""
    if pad_token is not None:
        set_special_token(tokenizer, "pad_token", pad_token)
    if eos_token is not None:
        set_special_token(tokenizer, "eos_token", eos_token)
    if chat_template is not None:
        take_template(tokenizer, chat_template, eos_token)


def set_special_token(tokenizer: Tokenizer, key: str, token: str) -> None:
    """Set eos_token (it must be in the vocabulary) or pad_token (a new one is added)."""
    known = tokenizer.get_vocab()
    if key == "eos_token":
        refuse_new_eos(token, known)
    elif token not in known:
        tokenizer.add_special_tokens({key: token})
    setattr(tokenizer, key, token)


def take_template(tokenizer: Tokenizer, path: str, eos_token: str | None) -> None:
    """A chat template by its name (TEMPLATES), from a .jinja/.j2 file, or of another tokenizer (folder or hub name).

    Another tokenizer's comes with its special tokens: what it writes would else be spelled letter by letter, and its
    end not be known. As in TRL, EOS is the other's too, unless `eos_token` says otherwise. A name or a file brings no
    token: a frozen body would have no meaning for it.
    """
    if path in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[path]
        tell_spelled(tokenizer, path)
        return
    check_template_name(path)
    if Path(path).expanduser().is_file():
        tokenizer.chat_template = Path(path).expanduser().read_text(encoding="utf-8")
        return
    try:
        other = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"chat template: {path!r} is no file and no tokenizer: {first_line(error)}") from error
    if other.chat_template is None:
        raise UserError(f"tokenizer {path!r} has no chat template to take over")
    tokenizer.chat_template = other.chat_template
    known = tokenizer.get_vocab()
    new = [token for token in other.added_tokens_decoder.values() if token.content not in known]
    cast(Any, tokenizer).add_tokens(new)
    if eos_token is None and other.eos_token is not None:
        tokenizer.eos_token = other.eos_token
    if new:  # taken over a second time they are not new any more, and yet untrained
        cast(Any, tokenizer).rmlab_new_tokens = [tokenizer.convert_tokens_to_ids(token.content) for token in new]
        say(f"{len(new)} special tokens are taken over with the chat template; their embeddings are new")


def tell_spelled(tokenizer: Tokenizer, name: str) -> None:
    """A line where the marks of a template of TEMPLATES are no tokens of the tokenizer."""
    known = tokenizer.get_vocab()
    if spelled := [mark for mark in MARKS[name] if mark not in known]:
        say(f"chat template {name}: {' and '.join(spelled)} are no tokens of the tokenizer, and are read as text")


def ensure_pad_token(model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """Give the tokenizer a pad token that is not EOS, and tell the model's config.

    Training reads scores by attention mask, but a server reads them at the last token that is not pad: with
    pad == eos it would score the token before EOS. An unk token serves where there is one, else a new token is added.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        why = "has no pad token" if tokenizer.pad_token_id is None else "pads with EOS"
        if tokenizer.unk_token_id not in (None, tokenizer.eos_token_id, tokenizer.bos_token_id):
            tokenizer.pad_token = tokenizer.unk_token
        else:
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        say(f"tokenizer {why}; servers would misread the last token, so the pad token is now {tokenizer.pad_token!r}")
    embeddings = cast(nn.Embedding, model.get_input_embeddings())
    if max(tokenizer.get_vocab().values()) >= embeddings.weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for key in ("pad_token_id", "eos_token_id", "bos_token_id"):
        value = getattr(tokenizer, key)
        if (value is not None and key in vars(model.config.get_text_config())) or key == "pad_token_id":
            setattr(model.config.get_text_config(), key, value)
            setattr(model.config, key, value)
