"""Rewards: one fp32 number per response. How tokens are laid out for the model is known here and nowhere else.

config.py         which layout is wanted
batch.py          Batch: tokens laid out for the model, flat or padded, with their preferences
collator.py       token trees -> a Batch
plan.py           where every token of a flat row lies, and who sees whom
attention.py      the attention of a flat row, for each device
flat.py           a flat row through a model; the last layer computes only what is read
heads.py          a model's forward for padded rows and for flat ones
layout.py         which layout is exact for a model
proof.py          ... proved on a batch
scorer.py         the layout of a run and its rewards
windows.py        rows in windows, each laid out while the one before is computed
contexts.py       device, eval mode and random draws of a loaded model
reward_model.py   a model that is ready to score rows of any format
ensemble.py       several as one
score_file.py     a file of rewards, made in parts that a kill leaves whole
reward_function.py  a trained model as the reward function of an RL trainer
features.py       what frozen layers made of a data set, on disk
feature_cache.py  what frozen layers compute, computed once and kept on disk
"""
