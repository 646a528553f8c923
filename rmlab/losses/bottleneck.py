"""InfoRM: a reward from few latent numbers that are kept close to noise."""

from torch import Tensor

from rmlab.losses import LOSSES, Preferences
from rmlab.losses.parts import reads_outputs, within
from rmlab.messages import check_at_least, check_one_of


@LOSSES.register
def bottleneck_kl(preferences: Preferences, outputs: Tensor, *, over: str, limit: float) -> Tensor:  # (R,)
    """mean over L latents of 0.5 (mu^2 + e^s - 1 - s), s the log variance: InfoRM's KL to N(0, 1) (2402.09345).

    Reads the `bottleneck` head: a reward, L means, L log variances, which count within +-limit. `over: dimensions` is
    the formula, the KL of the whole latent divided by L. `over: means` is what the public code computes: mu and s are
    averaged over the latents first, and the KL taken of those, so that single dimensions are free. Weight 1 there, 0.1
    in the paper.
    """
    check_one_of("loss.bottleneck_kl.over", over, ("dimensions", "means"))
    check_at_least("loss.bottleneck_kl.limit", limit, 0)
    latents = max((outputs.shape[1] - 1) // 2, 1)
    of = range(1, latents + 1)
    names = ["reward", *(f"mean_{n}" for n in of), *(f"log_variance_{n}" for n in of)]
    reads_outputs("bottleneck_kl", preferences, names, "bottleneck")
    mean, log_v = outputs[:, 1 : 1 + latents], within(outputs[:, 1 + latents :], limit)
    if over == "means":
        mean, log_v = mean.mean(1, keepdim=True), log_v.mean(1, keepdim=True)
    return 0.5 * (mean.square() + log_v.exp() - 1 - log_v).mean(1)
