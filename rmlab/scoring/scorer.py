"""The scorer of a run: rewards of its batches in the layout chosen for its model, proved on the first of them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rmlab.messages import UserError, say
from rmlab.scoring.heads import score
from rmlab.scoring.layout import padded_batch, prove, tokens_saved


class Scorer:
    """Rewards of batches; `layout` and `why` say how they are computed.

    Args:
        layout, why: what layout.choose says of the model.
        collator: makes the batches; it is told if the layout is given up.
        strict: whether a layout that turns out not to be exact is a UserError, and not given up for padded rows.
    """

    def __init__(self, layout: str, why: str, collator: Any, strict: bool) -> None:
        self.layout, self.why, self.collator, self.strict = layout, why, collator, strict
        self.is_proved = False

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """(R,) rewards of a (micro-)batch."""
        if self.layout == "padded" and "plan" in batch:  # collated before the layout was given up
            batch = padded_batch(batch, self.collator.pad_token_id)
        return score(model, batch)

    def prove(self, model: nn.Module, batch: Mapping[str, Any], tell: bool) -> None:
        """Compare the rewards of the first batch with padded ones; if they differ, padded it is. `tell`: say so."""
        self.is_proved = True
        proof = ""
        if "plan" in batch:
            difference, wrong = prove(model, batch, self.collator.pad_token_id)
            proof = f"; {tokens_saved(batch)} in the first batch, rewards within {difference:.0e} of padded ones"
            if wrong is not None and self.strict:
                raise UserError(
                    f"scoring.layout={self.layout} is not exact for this model: {wrong}; use auto or padded"
                )
            if wrong is not None:
                proof, self.why, self.layout = "", f"{self.layout} is not exact here: {wrong}", "padded"
                self.collator.layout = "padded"
        if tell:
            say(f"layout {self.layout}: {self.why}{proof}")
