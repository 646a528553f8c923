"""One linear layer, one reward."""

from rmlab.heads import HEADS, Head


@HEADS.register
def linear(d: int) -> Head:
    """r = w'h, on d hidden units h: InstructGPT (2203.02155), and every reward model that servers know."""
    return Head(d, 1, bias=False)
