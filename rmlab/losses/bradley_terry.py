"""The Bradley-Terry negative log-likelihood, with margins, soft labels and ties."""

from torch import Tensor
from torch.nn.functional import softplus

from rmlab.losses import LOSSES, Preferences


@LOSSES.register
def bradley_terry(preferences: Preferences, *, margin: float) -> Tensor:  # (P,)
    """-log sigma(gap - margin * strength), InstructGPT eq. 1 (2203.02155) and Llama 2 eq. 2 (2307.09288).

    `margin` scales the strength of a preference; 0 is the plain loss. With `probability` p < 1 the term is
    the cross-entropy -p log sigma(z) - (1 - p) log sigma(-z), z = gap - margin * strength, so a tie (p = 0.5)
    pulls the two rewards together. Written with softplus, so it is finite for any finite rewards.
    """
    z = preferences.gap - margin * preferences.strength
    return preferences.probability * softplus(-z) + (1 - preferences.probability) * softplus(z)
