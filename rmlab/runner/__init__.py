"""One run, from a resolved config to a directory that says all about it.

config.py        the whole config, typed, and the hash that names a run
run.py           check, snapshot, train (or resume), evaluate, keep
arguments.py     the config as arguments of the trainer
resume.py        what a run may go on from, agreed by all its processes
directory.py     RunDirectory: the one reader and writer of a run's files
environment.py   what made the numbers: code, packages, hardware, data
compare_runs.py  do two run directories hold the same numbers?
"""
