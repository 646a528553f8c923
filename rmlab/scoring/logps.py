"""What a causal model says of its responses: the summed log-probability of their tokens, for text regularisers."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

TOKENS = 512  # whose logits, a vocabulary each, are in memory at once


def response_logps(model: nn.Module, hidden: Tensor, input_ids: Tensor, response: Tensor) -> Tensor:
    """(R,) fp32 sum of log p(token | tokens before) over the tokens of each response.

    hidden (R, L, d): the last layer's. response (R, L): which tokens are the response's; the very first token of a
    row has none before it and does not count. The LM head is the model's own, see model/lm_head.py.
    """
    counted = response[:, 1:]
    vectors, targets = hidden[:, :-1][counted], input_ids[:, 1:][counted]
    parts = zip(vectors.split(TOKENS), targets.split(TOKENS), strict=True)
    said = [checkpoint(logps_of, model, *part, use_reentrant=False) for part in parts]
    rows = counted.nonzero()[:, 0]
    return torch.zeros(len(hidden), device=hidden.device).index_add(0, rows, torch.cat(said))


def logps_of(model: nn.Module, vectors: Tensor, targets: Tensor) -> Tensor:
    """(T,) log-probability of each target under the LM head at its vector (T, d)."""
    weight = getattr(model, "rmlab_lm_head", None)
    if weight is None:  # tied
        weight = model.get_input_embeddings().weight  # type: ignore[operator]
    logits = linear(vectors.to(weight.dtype), weight).float()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)  # type: ignore[operator, union-attr]
    if cap:
        logits = cap * torch.tanh(logits / cap)
    return -cross_entropy(logits, targets, reduction="none")
