"""Terms of outputs against ratings. Every known number counts the same; what a row does not know counts 0."""

import torch
from torch import Tensor

from rmlab.losses import LOSSES, PerOutput, PerResponse, Preferences
from rmlab.losses.parts import known, reads_outputs, rising
from rmlab.messages import UserError


@LOSSES.register
def regression(preferences: Preferences, outputs: Tensor, ratings: PerOutput) -> Tensor:  # (R,)
    """sum over attributes a of (o_a - rating_a)^2 / D, unknown ratings left out: SteerLM (2310.05344).

    HelpSteer2 (2406.08673) too. Reads as many ratings as the head has outputs (`attributes`). NeMo divides by the
    number of known ratings in a micro-batch; here by D and the responses of the step, so that a rating counts the same
    whatever its neighbours know. Where all are known, both are the same.
    """
    if ratings.shape != outputs.shape:
        raise UserError(
            f"loss.regression: the rows have {ratings.shape[1]} ratings of a response, the head {outputs.shape[1]} "
            "outputs; name as many attributes in model/head=attributes"
        )
    there, target = known(ratings)
    return torch.where(there, outputs - target, 0.0).square().mean(1)


@LOSSES.register
def reward_mse(preferences: Preferences, ratings: PerResponse) -> Tensor:  # (R,)
    """(r - rating)^2 of the reward itself, whatever head it comes from: HelpSteer2's helpfulness alone (2406.08673)."""
    there, target = known(ratings)
    return torch.where(there, preferences.rewards - target, 0.0).square()


@LOSSES.register
def pinball(preferences: Preferences, outputs: Tensor, ratings: PerResponse, *, levels: list[float]) -> Tensor:  # (R,)
    """mean over levels t of u (t - 1[u < 0]), u = rating - q_t: Koenker and Bassett (1978), QRM (2409.10164).

    Reads the outputs of the `quantile` head, one per level; QRM has 19 levels, 0.05 to 0.95.
    """
    if not 0 < rising("pinball.levels", levels)[0] <= levels[-1] < 1:
        raise UserError(f"loss.pinball.levels must lie between 0 and 1, not {levels}")
    names = [f"quantile_{level:g}" for level in levels]
    reads_outputs("pinball", preferences, names, "quantile with these levels")
    there, target = known(ratings)
    u = torch.where(there[:, None], target[:, None] - outputs, 0.0)
    t = u.new_tensor(levels)
    return torch.maximum(t * u, (t - 1) * u).mean(1)
