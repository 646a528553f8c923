"""Heads: the last linear layer of a reward model, or a few more, and the reward that its outputs amount to.

`model.head` names one, with its options (`conf/head/*.yaml`). A head returns D numbers per response, `outputs`, which
terms of a loss may read; `rewards` is the one reduction of them that metrics, scoring and serving use.
"""

from torch import Tensor, nn

from rmlab.registry import Registry

HEADS = Registry("head", "rmlab.heads")


class Head(nn.Linear):
    """d hidden units -> D outputs, and what they amount to. A subclass per kind; this one is D rewards, the first of
    which counts.

    It is a linear layer, so that it stands where an architecture has its own (`score`, `classifier`, ...), and what
    knows that layer (peft, transformers) knows this one. What comes after the layer is the subclass's `forward`.
    """

    names: tuple[str, ...] = ("reward",)  # (D,) of the outputs, for files and figures

    def rewards(self, outputs: Tensor, prompt: Tensor) -> Tensor:
        """(R,) of outputs (R, D); no weight of the head is used. prompt (R,): which comparison each belongs to."""
        return outputs[:, 0]

    def folded(self) -> Tensor | None:
        """(1, d) the one linear layer without bias that gives the same rewards; None where there is none.

        With it the saved model is one for plain transformers.
        """
        return self.weight[:1]
