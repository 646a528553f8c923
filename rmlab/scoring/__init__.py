"""Rewards: one fp32 number per response. How tokens are laid out for the model is known here and nowhere else.

heads.py      the fp32 head, and a model's forward for padded rows and for flat ones
plan.py       token trees -> one flat row in which shared tokens are there once, and who sees whom
attention.py  the attention of a flat row, for each device
flat.py       a flat row through a model; the last layer computes only what is read
layout.py     which layout is exact for a model, and the proof on the first batch
scorer.py     the layout of a run and its rewards
frozen.py     what frozen layers compute, computed once and kept on disk
"""

from rmlab.scoring.attention import Refused
from rmlab.scoring.heads import base_of, head_modules, is_decoder, pad, prepare_for_scoring, score

__all__ = ["Refused", "base_of", "head_modules", "is_decoder", "pad", "prepare_for_scoring", "score"]
