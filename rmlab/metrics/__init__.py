"""Metrics of reward models, over comparisons and never over averages.

scored.py    ScoredComparison: what metrics, scores files and the report share
evaluate.py  all metrics of an evaluation set
intervals.py how sure they are, where preferences share prompts
running.py   metrics of training between two logs, on the device
set_loss.py  the training loss of an evaluation set

diagnostics.py  all that follows, of one set:
pairs.py        scored comparisons as arrays
calibration.py  whether rewards mean what they claim
length.py       what length and style do to rewards
scale.py        where rewards lie, between prompts and within them
best_of_n.py    what picking by reward brings in true reward
correlation.py  rank correlations within prompts
agreement.py    whether two models decide alike
"""
