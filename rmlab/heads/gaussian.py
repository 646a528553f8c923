"""A reward and how sure it is."""

from rmlab.heads import HEADS, Head


class Gaussian(Head):
    """r ~ N(m, v), m = w'h, log v = u'h, D = 2: URM (2410.00847), PURM (2503.22480). The reward is the mean."""

    names = ("mean", "log_variance")


@HEADS.register
def gaussian(d: int) -> Head:
    """r ~ N(w'h, exp(u'h)); the reward is the mean."""
    return Gaussian(d, 2, bias=False)
