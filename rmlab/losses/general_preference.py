"""Preferences that no single number explains, cycles for one."""

from torch import Tensor
from torch.nn.functional import softplus

from rmlab.losses import LOSSES, Preferences
from rmlab.losses.parts import either_way, positive, reads_outputs


@LOSSES.register
def general_preference(preferences: Preferences, outputs: Tensor, *, temperature: float) -> Tensor:  # (P,)
    """-log sigma(s / temperature), s = sum over l of a_2l b_2l+1 - a_2l+1 b_2l: GPM (2410.02197), temperature 0.1.

    a and b are the outputs of the better and the worse response, k pairs of numbers; s(a, b) = -s(b, a), and a may
    beat b, b beat c and c beat a. Reads the 2k outputs of the `preference` head. Probabilities are soft labels.
    """
    names = [f"v_{n}" for n in range(1, 2 * -(-outputs.shape[1] // 2) + 1)]
    reads_outputs("general_preference", preferences, names, "preference")
    positive("general_preference.temperature", temperature)
    a, b = outputs[preferences.better], outputs[preferences.worse]
    score = (a[:, 0::2] * b[:, 1::2] - a[:, 1::2] * b[:, 0::2]).sum(1)
    return either_way(preferences, score / temperature, lambda z: softplus(-z))
