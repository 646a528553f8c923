"""Chat templates by name, for tokenizers that have none; and what is said of a template before a tokenizer loads."""

import difflib
from collections.abc import Container
from pathlib import Path

from rmlab.messages import UserError

# Neither has words for tools, and what a row holds is what the model reads.
NO_TOOLS = (
    "{% if tools or messages | selectattr('tool_calls') | list %}"
    "{{ raise_exception('this template has no words for tools; give a FILE.jinja that has') }}{% endif %}"
)
CHATML = NO_TOOLS + (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PLAIN = NO_TOOLS + (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% elif message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\\n\\nassistant: ' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "plain": PLAIN}
MARKS = {"chatml": ("<|im_start|>", "<|im_end|>"), "plain": ()}  # that a tokenizer may know as tokens of their own
FILES = (".jinja", ".j2")


def check_template_name(name: str | None) -> None:
    """UserError for a file that is not there, and for a word that is nearly a name of TEMPLATES.

    Any other may be a tokenizer on the hub.
    """
    if name is None or name in TEMPLATES or Path(name).expanduser().exists():
        return
    if name.endswith(FILES):
        raise UserError(f"chat template file {name!r} does not exist")
    if close := difflib.get_close_matches(name.lower(), TEMPLATES, n=1):
        raise UserError(f"model.chat_template: no {name!r}; did you mean {close[0]!r}?")


def refuse_new_eos(token: str, known: Container[str]) -> None:
    """UserError for an EOS token that is not among the known ones."""
    if token not in known:
        raise UserError(f"eos_token {token!r} is not in the tokenizer's vocabulary; a new one would mean nothing")
