"""The final reward model on disk, for plain transformers: merged, gathered from its shards, with a card."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

import rmlab
from rmlab.data import Tokenizer
from rmlab.messages import UserError, say
from rmlab.model.adapters import save_adapter
from rmlab.model.changes import save_changes
from rmlab.model.config import ModelConfig
from rmlab.model.head import base_of, head_of
from rmlab.model.head_files import save_folded, write_about, write_head
from rmlab.model.load import load_model
from rmlab.model.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import peft


def gathered(model: nn.Module) -> dict[str, Tensor] | None:
    """All weights of a model that `fully_shard` has spread over the ranks, on the first of them; None for a whole one.

    Every rank must call it.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    if not any(isinstance(p, DTensor) for p in model.parameters()):
        return None
    return cast(
        dict[str, Tensor], get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    )


def export(
    model: "PreTrainedModel | peft.PeftModel",
    tokenizer: Tokenizer,
    place: Path,
    weights: dict[str, Tensor] | None = None,
    changes: bool = False,
) -> None:
    """Write the final reward model for plain transformers: merged where there is an adapter that can be.

    The adapter itself goes to `place`/../adapter. An adapter that cannot be merged (prompt tuning, a quantised or
    sharded body) is only written there, and a line says so. weights: of a sharded model, see `gathered`. changes: of
    an adapter nothing else, of another model what was trained and where its base is (see changes.py), unless that is
    most of it.
    """
    from peft import PeftModel

    given: dict[str, Any] = {} if weights is None else {"state_dict": weights}
    if isinstance(model, PeftModel):
        adapter = place.with_name("adapter")
        # A pad token that was added needs no embedding, and with one the adapter would not fit its base.
        save_adapter(model, str(adapter), **given)
        tokenizer.save_pretrained(str(adapter))
        if changes:
            return
        whole = weights is None and not getattr(model.get_base_model(), "is_quantized", False)
        if not whole or not hasattr(model.base_model, "merge_and_unload"):
            say(f"the adapter is not merged into its base model; it is in {adapter}, which model.path takes")
            return
        model = model.merge_and_unload()
    why = None
    if changes:
        why = "it was sharded" if weights is not None else save_changes(cast(PreTrainedModel, model), place)
        if why is None:
            write_head(place, cast(PreTrainedModel, model), model.state_dict())
            tokenizer.save_pretrained(str(place))
            write_card(place, model, HOW_CHANGES)
            return
        say(f"{place} is a whole model: {why}")
    say_what_plain_loading_rounds(model, place)
    how = HOW
    if head_of(model) is None:
        model.save_pretrained(str(place), **given)
        write_about(place, model)
    else:
        how = HOW_FOLDED if save_folded(cast(PreTrainedModel, model), place, weights) else HOW_REFUSED
    tokenizer.save_pretrained(str(place))
    write_card(place, model, how)


def whole_model(source: str, place: str | Path, trust_remote_code: bool = False) -> None:
    """Write for plain transformers what `run.keep=[changes]` has left: the changes, or an adapter, in their base.

    Raises UserError if it cannot be loaded, or its adapter not be merged.
    """
    from peft import PeftModel

    config = ModelConfig(
        path=source, head=None, dtype="auto", attn_implementation=None, trust_remote_code=trust_remote_code
    )
    tokenizer, model = load_tokenizer(config), load_model(config, seed=0)
    if isinstance(model, PeftModel):
        if not hasattr(model.base_model, "merge_and_unload"):
            raise UserError(f"{source} is an adapter that cannot be merged into its base model")
        model = cast(PreTrainedModel, model.merge_and_unload())
    export(model, tokenizer, Path(place))


def say_what_plain_loading_rounds(model: nn.Module, place: Path) -> None:
    """transformers loads a model in the one dtype of its config: the fp32 head of a 16-bit body too, and rounds it."""
    dtype = base_of(model).dtype
    if dtype in (torch.bfloat16, torch.float16):
        say(
            f"{place} is {str(dtype).removeprefix('torch.')} with a head of float32, which plain from_pretrained "
            "rounds: its rewards are a few hundredths off; load it with dtype=float32, or model.dtype in rmlab"
        )


TAGS = ("rmlab", "reward-trainer")
CARD = """---
library_name: transformers
pipeline_tag: text-classification
tags: [{tags}]
---

# A reward model

{kind}, trained by rmlab {version}{base}. It turns a prompt and a response into one number; only differences between
responses to the same prompt mean something.

```python
from rmlab import RewardModel

rewards = RewardModel("PATH").score([{{"prompt": prompt, "response": response}}])  # texts, or chat messages
```

{how} Chats
come through the tokenizer's template; plain text is prompt + response with one BOS and one final EOS.
"""
HOW_REFUSED = "Plain transformers refuses it: its head is more than one linear layer. Load it with `rmlab.RewardModel`."
HOW = (
    'In plain transformers: `AutoModelForSequenceClassification.from_pretrained("PATH")`. Its one logit is the reward.'
)
HOW_FOLDED = f"{HOW} What else its head returns, `rmlab_head.json` names and `RewardModel.scored` gives."
HOW_TRAINED = """Its head is as it is trained. For plain transformers, where its rewards are those of one linear layer:
`from rmlab import whole_model; whole_model("PATH", "WHOLE")`."""
HOW_CHANGES = """Here is only what was trained; `base.json` says where its base model is. For plain transformers:
`from rmlab import whole_model; whole_model("PATH", "WHOLE")`. Its one logit is the reward."""


def write_card(place: Path, model: nn.Module, how: str | None = None) -> None:
    """README.md of a saved model: what it is, and how to read its rewards. how: None for a head as it is trained."""
    how = how or (HOW if head_of(model) is None else HOW_TRAINED)
    config = base_of(model).config
    base = f" from {config.name_or_path}" if config.name_or_path else ""
    text = CARD.format(tags=", ".join(TAGS), how=how, kind=config.model_type, version=rmlab.__version__, base=base)
    (place / "README.md").write_text(text, encoding="utf-8")
