"""Quality and length in a head each, of which one is the reward."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rmlab.heads import HEADS, Head


class TwoHead(Head):
    """q = w_q'h and l = w_l'h, trained on q + l, scored by q alone: ODIN (2402.07319). D = 3 with |cos(w_q, w_l)|."""

    names = ("quality", "length", "overlap")

    def forward(self, input: Tensor) -> Tensor:
        """(R, d) -> (R, 3)."""
        both = super().forward(input)
        overlap = cosine_similarity(self.weight[0], self.weight[1], dim=0).abs()
        return torch.cat([both, overlap.to(both.dtype).expand(*both.shape[:-1], 1)], dim=-1)


@HEADS.register
def two_head(d: int) -> Head:
    """q = w_q'h, l = w_l'h and |cos(w_q, w_l)|; the reward is q."""
    return TwoHead(d, 2, bias=False)
