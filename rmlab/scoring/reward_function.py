"""A trained reward model as the reward function of an RL trainer: the very text and tokens that it was trained on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from rmlab.data import Text
from rmlab.data.render import encode
from rmlab.model.config import ModelConfig
from rmlab.model.head import base_of
from rmlab.model.load import load_model
from rmlab.model.tokenizer import load_tokenizer
from rmlab.scoring.batch import Padded
from rmlab.scoring.heads import prepare_for_scoring, score


def reward_function(
    path: str,
    *,
    batch_size: int = 16,
    dtype: str = "float32",
    device: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> Callable[..., list[float]]:
    """For `reward_funcs` of TRL's GRPOTrainer and RLOOTrainer: (prompts, completions, **columns) -> rewards.

    Given the path itself, TRL joins plain text without BOS and EOS, and rewards are up to 1.5 off; chats are the same.

    Args:
        path: a saved model, an adapter folder or a hub name.
        batch_size: completions in one forward.
        device: where to compute; None: the accelerator, if there is one.
        chat_template_kwargs: variables of the chat template, as in training.

    Raises UserError if the model cannot be loaded.
    """
    config = ModelConfig(path=path, dtype=dtype, attn_implementation=None, trust_remote_code=trust_remote_code)
    tokenizer, model = load_tokenizer(config), load_model(config, seed=0)
    prepare_for_scoring(base_of(model))
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    place = torch.device(device) if device else found or torch.device("cpu")
    cast(nn.Module, model).to(place).eval()
    template = dict(chat_template_kwargs or {})

    @torch.no_grad()
    def rewards(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
        """One reward per completion."""
        texts = [encode(tokenizer, p, c, template) for p, c in zip(prompts, completions, strict=True)]
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))  # little padding
        found = [0.0] * len(texts)
        for start in range(0, len(order), batch_size):
            few = order[start : start + batch_size]
            tokens = Padded.of([texts[n] for n in few], cast(int, tokenizer.pad_token_id))
            batch = Padded(tokens.input_ids.to(place), tokens.attention_mask.to(place))
            for n, reward in zip(few, score(model, batch).tolist(), strict=True):
                found[n] = reward
        return found

    rewards.__name__ = Path(path).name  # TRL logs it
    return rewards
