"""Metrics of reward models, over comparisons and never over averages.

scored.py    ScoredComparison: what metrics, scores files and the report share
evaluate.py  all metrics of an evaluation set
running.py   metrics of training between two logs, on the device
set_loss.py  the training loss of an evaluation set
"""
