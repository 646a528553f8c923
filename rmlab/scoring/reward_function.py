"""A trained reward model as the reward function of an RL trainer: the very text and tokens that it was trained on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmlab.data import Text
from rmlab.scoring.ensemble import Ensemble


def reward_function(
    path: str | Sequence[str],
    *,
    reduce: str = "mean",
    c: float = 1.0,
    dtype: str = "float32",
    device: str | None = None,
    tokens_per_batch: int | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    normalise: bool = False,
) -> Callable[..., list[float]]:
    """For `reward_funcs` of TRL's GRPOTrainer and RLOOTrainer: (prompts, completions, **columns) -> rewards.

    Given the path itself, TRL joins plain text without BOS and EOS, and rewards are up to 1.5 off; chats are the same.

    Args: as those of RewardModel; of several paths the rewards become one as Ensemble has it. Raises UserError if a
    model cannot be loaded.
    """
    paths = [path] if isinstance(path, str) else list(path)
    model = Ensemble.load(
        paths,
        reduce,
        c,
        dtype=dtype,
        device=device,
        tokens_per_batch=tokens_per_batch,
        chat_template_kwargs=chat_template_kwargs,
        trust_remote_code=trust_remote_code,
        normalise=normalise,
    )

    def rewards(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
        """One reward per completion."""
        rows = ({"prompt": p, "response": c} for p, c in zip(prompts, completions, strict=True))
        return [scored.rewards[0] for scored in model.scored(rows, "prompts and completions", texts=False)]

    rewards.__name__ = Path(paths[0]).name if len(paths) == 1 else f"{reduce}_of_{len(paths)}"  # TRL logs it
    return rewards
