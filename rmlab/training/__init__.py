"""Training: transformers' Trainer with our rewards, losses and metrics.

config.py               RewardConfig: TrainingArguments and what a reward model adds
prepare.py              data, model, layout and loss made ready, for `rmlab` and for RewardTrainer alike
ready.py                ... all of it together
trainer.py              RewardTrainer
evaluation.py           what an evaluation makes of the comparisons that it has scored
checkpoints.py          checkpoints that a killed run can trust
interruption.py         Ctrl-C and SIGTERM write one
sampling.py             the order of comparisons, by seed and epoch
contexts.py             small contexts
embedding_gradients.py  the gradient of a large vocabulary, summed in place
"""
