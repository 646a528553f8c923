"""The commands of rmlab, one file each: train (and sweeps of it), report, reproduce."""
