"""Questions that are asked of finished runs: each module that `rmlab-lab` names is one of its commands.

Such a module has two functions: `arguments(parser)` adds its options, `run(options)` does the work. What is heavy is
imported inside `run`, so that --help answers at once.
"""
