"""Metrics of reward models, over comparisons and never over averages.

scored.py    ScoredComparison: what metrics, scores files and the report share
evaluate.py  all metrics of an evaluation set
intervals.py how sure they are, where preferences share prompts
running.py   metrics of training between two logs, on the device
set_loss.py  the training loss of an evaluation set
"""
