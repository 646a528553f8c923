"""The `rmlab-lab` command: questions that are asked of finished runs, one subcommand each."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from rmlab.messages import UserError

# Name of a module of rmlab/lab -> what it does.
COMMANDS: dict[str, str] = {
    "average": "one model whose weights are the mean of several models'",
    "disagreement": "an ensemble beside its members, and whether doubt finds the errors",
    "noise": "which training labels are likely wrong",
    "margins": "rows with the strength of their preferences as several models see it",
    "length": "rewards without what length does to them, before and after",
    "bayes": "how unsure a linear head is of each preference, by Laplace's approximation",
    "overoptimisation": "where gold falls while the proxy rises, by best-of-n",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; exit status 2 for a UserError. arguments: None for those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser(given[0] if given else "").parse_args(given)
    try:
        options.run(options)
    except UserError as error:
        print(f"rmlab-lab: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # `| head` has seen enough; the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser(wanted: str) -> argparse.ArgumentParser:
    """Of the command line; only the module of the subcommand that is wanted is imported."""
    told = argparse.ArgumentParser("rmlab-lab", description="Questions that are asked of finished runs.")
    parts = told.add_subparsers(metavar="COMMAND", required=True)
    for name, does in COMMANDS.items():
        part = parts.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
        if name == wanted:
            module = importlib.import_module(f"rmlab.lab.{name}")
            module.arguments(part)
            part.set_defaults(run=module.run)
    return told


if __name__ == "__main__":
    main()
