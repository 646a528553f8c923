"""Other functions of the gap than the Bradley-Terry likelihood. What of probabilities below 1 is said in each."""

import math

from torch import Tensor, expm1
from torch.nn.functional import softplus

from rmlab.losses import LOSSES, Preferences
from rmlab.losses.parts import either_way, positive
from rmlab.messages import UserError, check_at_least


@LOSSES.register
def hinge(preferences: Preferences, *, gap: float) -> Tensor:  # (P,)
    """max(0, gap_wanted - gap), the ranking hinge; a baseline of Skywork (2410.18451) and BSR (2505.07271), usually 1.

    With probability p, p max(0, g - gap) + (1 - p) max(0, g + gap). A tie is flat within +-g: it pulls together only
    what is further apart. A wanted gap of 0 has its least value at equal rewards of all responses: refused.
    """
    positive("hinge.gap", gap)
    return either_way(preferences, preferences.gap, lambda z: (gap - z).relu())


@LOSSES.register
def margin_mse(preferences: Preferences, *, gap: float) -> Tensor:  # (P,)
    """(gap - gap_wanted)^2, as IPO's regression of the gap (2310.12036) and Skywork's MarginMSE (2410.18451); mostly 1.

    GPM's 0.5 (gap / tau - 10)^2 (2410.02197) is this with gap = 10 tau and weight 0.5 / tau^2. With probability p,
    p (gap - g)^2 + (1 - p) (gap + g)^2, whose best gap is (2p - 1) g: 0 for a tie.
    """
    return either_way(preferences, preferences.gap, lambda z: (z - gap).square())


@LOSSES.register
def focal(preferences: Preferences, *, gamma: float) -> Tensor:  # (P,)
    """-(1 - sigma(gap))^gamma log sigma(gap), Lin et al. (1708.02002), gamma 2; for rewards in Skywork (2410.18451).

    gamma 0 is Bradley-Terry. With probability p, p f(gap) + (1 - p) f(-gap); for gamma > 0 its best gap is nearer to
    0 than logit(p), and 0 for a tie.
    """
    check_at_least("loss.focal.gamma", gamma, 0)
    return either_way(preferences, preferences.gap, lambda z: (-gamma * softplus(z)).exp() * softplus(-z))


@LOSSES.register
def focal_internlm2(preferences: Preferences, *, gamma: float) -> Tensor:  # (P,)
    """-(1 - 2 max(0, P - 1/2))^gamma log P, P = sigma(gap): InternLM2 (2403.17297), gamma 2.

    Pairs in the wrong order count in full, others the less the surer they are. Its other half is log_barrier. With
    probability p, p f(gap) + (1 - p) f(-gap).
    """
    check_at_least("loss.focal_internlm2.gamma", gamma, 0)

    def loss(z: Tensor) -> Tensor:  # 1 - 2 max(0, P - 1/2) = min(1, 2 sigma(-z))
        return (gamma * (math.log(2) - softplus(z)).clamp_max(0)).exp() * softplus(-z)

    return either_way(preferences, preferences.gap, loss)


@LOSSES.register
def tempered_log(preferences: Preferences, *, t: float) -> Tensor:  # (P,)
    """-log_t sigma(gap) = (1 - sigma(gap)^(1 - t)) / (1 - t), Amid et al. (1906.03361), Skywork (2410.18451).

    t = 1 is Bradley-Terry; below 1 the loss of a pair is at most 1 / (1 - t), so that wrong labels cannot dominate. No
    t for rewards is published. With probability p, p f(gap) + (1 - p) f(-gap), whose best gap is logit(p) / t.
    """
    if not 0 < t <= 1:
        raise UserError(f"loss.tempered_log.t is {t}; it must be above 0 and at most 1")

    def loss(z: Tensor) -> Tensor:
        return softplus(-z) if t == 1 else -expm1(-(1 - t) * softplus(-z)) / (1 - t)

    return either_way(preferences, preferences.gap, loss)


@LOSSES.register
def logit_norm(preferences: Preferences, *, temperature: float, epsilon: float) -> Tensor:  # (P,)
    """-log sigma(gap / (temperature sqrt(r_better^2 + r_worse^2 + epsilon^2))), LogitNorm (2205.09310), temperature 1.

    For rewards in BSR's comparison (2505.07271), there without epsilon: a new head with zero weights divides by 0.
    Only the ratio of the two rewards counts, where they are well above epsilon. Probabilities are soft labels.
    """
    positive("logit_norm.temperature", temperature)
    positive("logit_norm.epsilon", epsilon)
    better, worse = preferences.rewards[preferences.better], preferences.rewards[preferences.worse]
    norm = (better.square() + worse.square() + epsilon**2).sqrt()
    return either_way(preferences, preferences.gap / (temperature * norm), lambda z: softplus(-z))
