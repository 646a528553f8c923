"""Terms that take the length of a response out of its reward."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rmlab.losses import LOSSES, Preferences
from rmlab.losses.parts import either_way, reads_outputs

TWO_HEAD = ("quality", "length", "overlap")


@LOSSES.register
def length_penalty(preferences: Preferences, lengths: Tensor, *, alpha: float) -> Tensor:  # (P,)
    """-log sigma(gap + alpha (length_better - length_worse)), the regularised reward of R-DPO (2403.19159).

    What preferences owe to length is explained by alpha per token, and the reward, which is used without it, explains
    the rest: it is what r - alpha length would be of a model trained without this term. R-DPO's alpha is a policy's;
    none is published for reward models. Probabilities are soft labels.
    """
    longer = lengths[preferences.better] - lengths[preferences.worse]
    return either_way(preferences, preferences.gap + alpha * longer, lambda z: softplus(-z))


@LOSSES.register
def odin_preference(preferences: Preferences, outputs: Tensor) -> Tensor:  # (P,)
    """-log sigma(gap of (q + l)), q the reward of quality and l that of length: ODIN (2402.07319).

    Reads the `two_head` head, whose reward is q alone. Probabilities are soft labels.
    """
    reads_outputs("odin_preference", preferences, TWO_HEAD, "two_head")
    both = outputs[:, 0] + outputs[:, 1]
    return either_way(preferences, both[preferences.better] - both[preferences.worse], lambda z: softplus(-z))


@LOSSES.register
def odin_length(preferences: Preferences, outputs: Tensor, lengths: Tensor) -> Tensor:  # ()
    """|corr(q, length)| + 1 - corr(l, length), over the responses of the step: ODIN (2402.07319), weight 1.

    Reads the `two_head` head. The paper correlates over the batches of all devices; so does this, over the whole step.
    Where nothing varies the correlation is 0.
    """
    reads_outputs("odin_length", preferences, TWO_HEAD, "two_head")
    return correlation(outputs[:, 0], lengths).abs() + 1 - correlation(outputs[:, 1], lengths)


@LOSSES.register
def odin_overlap(preferences: Preferences, outputs: Tensor) -> Tensor:  # (R,)
    """|cos(w_q, w_l)| of the weights of the two heads: ODIN (2402.07319), weight 1.

    Reads it from the third output of the `two_head` head, where it is the same for every response.
    """
    reads_outputs("odin_overlap", preferences, TWO_HEAD, "two_head")
    return outputs[:, 2]


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """() Pearson's; 0, with gradient 0, where one of them does not vary."""
    x, y = x - x.mean(), y - y.mean()
    square = x.square().sum() * y.square().sum()
    varies = square > 0
    return torch.where(varies, (x * y).sum() / torch.where(varies, square, 1.0).sqrt(), 0.0)
