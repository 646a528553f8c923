"""The scorer of a run: outputs of its batches in the layout chosen for its model, proved on one of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from rmlab.messages import UserError, say
from rmlab.scoring.batch import Batch, Flat
from rmlab.scoring.heads import score
from rmlab.scoring.layout import Choice
from rmlab.scoring.proof import padded_tokens, prove, tokens_saved


class Scorer:
    """What the head returns for batches; `choice` says how they are computed, and why so.

    Args:
        choice: what layout.choose says of the model.
        collator: makes the batches; it is told if the layout is given up.
        strict: whether a layout that turns out not to be exact is a UserError, and not given up for padded rows.
    """

    def __init__(self, choice: Choice, collator: Any, strict: bool) -> None:
        self.choice, self.collator, self.strict = choice, collator, strict
        self.is_proved = False

    @property
    def layout(self) -> str:
        """What batches are computed in: shared_prefix, packed or padded, which `prove` may change it to."""
        return self.choice.layout

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """(R, D) what the head returns for a (micro-)batch."""
        if self.layout == "padded" and isinstance(batch.tokens, Flat):  # collated before the layout was given up
            return score(model, padded_tokens(batch, self.collator.pad_token_id))
        return score(model, batch.tokens)

    def prove(
        self,
        model: nn.Module,
        batch: Batch,
        tell: bool,
        autocast: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        """Compare the rewards of a batch with padded ones; if they differ, padded it is. `tell`: say so.

        `autocast`: what training runs under, if anything.
        """
        self.is_proved = True
        told = ""
        if isinstance(batch.tokens, Flat) and batch.tokens.plan is not None:  # and not vectors alone
            proof = prove(model, batch, self.collator.pad_token_id, autocast)
            told = f"; {tokens_saved(batch)} in one batch, rewards within {proof.difference:.0e} of padded ones"
            if proof.wrong is not None and self.strict:
                raise UserError(
                    f"scoring.layout={self.layout} is not exact for this model: {proof.wrong}; use auto or padded"
                )
            if proof.wrong is not None:
                told, self.choice = "", Choice("padded", f"{self.layout} is not exact here: {proof.wrong}")
                self.collator.layout = "padded"
        if tell:
            say(f"layout {self.layout}: {self.choice.why}{told}")
