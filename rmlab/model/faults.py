"""What is wrong with a reward model that is to score as it is: refused in a sentence, or told where servers go wrong.

Training builds on any base model and gives it a head; a score of one that was never trained means nothing.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rmlab.data import Tokenizer
from rmlab.data.drafts import TEMPLATE_ERRORS
from rmlab.data.render import render, special_tokens
from rmlab.messages import UserError, say
from rmlab.model.config import ModelConfig, base_of_adapter, base_of_changes

if TYPE_CHECKING:
    from torch import nn

GENERATORS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM")  # how their classes end
WEIGHTS = ("*.safetensors", "*.bin", "*.h5", "*.msgpack", "*.gguf")

# ---- before it loads ----


def refuse_files(config: ModelConfig) -> None:
    """UserError for a checkpoint whose files tell that it is no reward model. None of its weights are read."""
    base = base_of_adapter(config)
    whole = base is None and base_of_changes(config) is None
    own = config if base is None else replace(config, path=base)
    about = own.checkpoint_file("config.json")
    folder = Path(str(own.path)).expanduser()
    if whole:
        refuse_generator(str(config.path), about)
        own.check_classifier(about)
    if whole and folder.is_dir() and not any(file for kind in WEIGHTS for file in folder.glob(kind)):
        raise UserError(f"{config.path} holds no weights, only its config; copy model.safetensors there")


def refuse_generator(path: str, about: dict[str, Any]) -> None:
    """UserError for a model that writes text. about: its config.json."""
    for name in about.get("architectures") or []:
        if name.endswith(GENERATORS):
            raise UserError(
                f"{path} is a {name}, which writes text and has no head for rewards: they would be random; train "
                "one on it with rmlab model=pretrained model.path=..."
            )


# ---- when it is loaded ----


def refuse_loaded(model: "nn.Module", tokenizer: Tokenizer, config: ModelConfig) -> None:
    """UserError for weights that the checkpoint lacks, which are random, and a tokenizer of more tokens.

    A line for one of far fewer, which may be another model's too.
    """
    from rmlab.model.head import base_of

    base, missing = base_of(model), set(getattr(base_of(model), "rmlab_new_weights", ()))
    if missing and base_of_adapter(config) is not None:
        from peft import load_peft_weights

        saved = load_peft_weights(str(config.path), device="cpu")
        missing = {name for name in missing if not any(key.endswith(f".{name}") for key in saved)}
    if missing:
        names = ", ".join(sorted(missing)[:3]) + " ..." * (len(missing) > 3)
        raise UserError(f"{config.path} lacks {names}, which would be random, and so rewards; is it a reward model?")
    rows = cast(Any, base.get_input_embeddings()).weight.shape[0]
    largest = max(n for n in tokenizer.get_vocab().values() if n != tokenizer.pad_token_id)  # which is never read
    if largest >= rows:
        raise UserError(
            f"the tokenizer of {config.path} has tokens up to id {largest}, and the model {rows} embeddings; it is "
            "another model's"
        )
    if largest < rows / 2:
        say(
            f"warning: the tokenizer of {config.path} has tokens up to id {largest}, and the model {rows} embeddings: "
            "is it another model's?"
        )


def tell_servers(model: "nn.Module", tokenizer: Tokenizer, config: ModelConfig) -> None:
    """A line for each way in which a server, or plain transformers, would return other rewards than these."""
    from rmlab.model.head import base_of, is_decoder

    about = config.of_base().checkpoint_file("config.json") if config.path is not None else {}
    known = about.get("architectures") and base_of_adapter(config) is None
    if known and about.get("problem_type") != "regression":
        say(
            f"warning: pipelines and servers return the sigmoid of the rewards of {config.path}: its config.json says "
            f"problem_type {about.get('problem_type')!r}, and regression is what they return as it is"
        )
    activation = str((about.get("sentence_transformers") or {}).get("activation_fn", "Identity"))
    if not activation.endswith("Identity"):
        say(f"warning: vLLM puts the rewards of {config.path} through {activation}, as its config.json says")
    eos, pads = tokenizer.eos_token_id, (tokenizer.pad_token_id, about.get("pad_token_id"))
    if is_decoder(base_of(model)) and eos is not None and eos in pads:
        say(
            f"warning: {config.path} pads with EOS ({tokenizer.eos_token!r}), which also ends what is scored: plain "
            "transformers reads the reward a token before it; give it a pad token of its own"
        )
    if writes_bos_twice(tokenizer):
        say(f"warning: the chat template of {config.path} writes BOS twice; rmlab reads one, servers read both")


def writes_bos_twice(tokenizer: Tokenizer) -> bool:
    """Whether the chat template does; False where it does not take a plain conversation."""
    before, _ = special_tokens(tokenizer)
    if getattr(tokenizer, "chat_template", None) is None or not before:
        return False
    try:
        text = render(tokenizer, [{"role": "user", "content": "a"}], "b", {}, None)
    except TEMPLATE_ERRORS:
        return False
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids[: 2 * len(before)] == before * 2
