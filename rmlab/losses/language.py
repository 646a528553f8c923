"""GRM: the model's own language head keeps what the reward does not need. All read log-probabilities of responses."""

from torch import Tensor
from torch.nn.functional import softplus

from rmlab.losses import LOSSES, PerResponse, Preferences
from rmlab.losses.parts import either_way, positive


@LOSSES.register
def grm_sft(preferences: Preferences, logps: PerResponse, *, beta: float) -> Tensor:  # (P,)
    """-log sigma(beta log pi(y_better)): GRM's SFT regularisation (2406.10216), beta 0.1.

    The paper weights it 0.01 and the Bradley-Terry term 0.99. A pair of probability p counts p for the better response
    and 1 - p for the other.
    """
    positive("grm_sft.beta", beta)
    return of_the_better(preferences, softplus(-beta * logps))


@LOSSES.register
def grm_logp(preferences: Preferences, logps: PerResponse) -> Tensor:  # (P,)
    """-log pi(y_better), plain fine-tuning on the better response: a variant of GRM (2406.10216)."""
    return of_the_better(preferences, -logps)


@LOSSES.register
def grm_dpo(
    preferences: Preferences, logps: PerResponse, reference_logps: PerResponse, *, beta: float
) -> Tensor:  # (P,)
    """-log sigma(beta (h_better - h_worse)), h = log pi - log pi_ref: GRM's DPO regularisation (2406.10216), beta 0.1.

    The reference is the model before training. Probabilities are soft labels. Weights as grm_sft.
    """
    positive("grm_dpo.beta", beta)
    return preferred(preferences, beta * (logps - reference_logps))


@LOSSES.register
def grm_dpo_noref(preferences: Preferences, logps: PerResponse, *, beta: float) -> Tensor:  # (P,)
    """-log sigma(beta (log pi(y_better) - log pi(y_worse))): GRM without a reference (2406.10216), beta 0.1."""
    positive("grm_dpo_noref.beta", beta)
    return preferred(preferences, beta * logps)


def of_the_better(preferences: Preferences, losses: Tensor) -> Tensor:
    """(P,) the loss of each pair's better response, which the other one is with 1 - p. losses (R,)."""
    p = preferences.probability
    return p * losses[preferences.better] + (1 - p) * losses[preferences.worse]


def preferred(preferences: Preferences, values: Tensor) -> Tensor:
    """(P,) the Bradley-Terry loss of values (R,) that are no rewards."""
    return either_way(preferences, values[preferences.better] - values[preferences.worse], lambda z: softplus(-z))
