"""The `rmlab` command. torch is imported inside the task, so that --help and tab completion answer at once."""

import contextlib
import itertools
import logging
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rmlab.commands.sweep import settings_of, watched_launches
from rmlab.messages import UserError, did_you_mean
from rmlab.runner import search_path
from rmlab.runner.config import CONF, register
from rmlab.runner.directory import BusyError, RunDirectory, describe
from rmlab.runner.renamed import RENAMED, refuse_renamed
from rmlab.runner.search_path import folders_of, installed, take_folders
from rmlab.terminal import only_logged, tell

register()
search_path.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def task(config: DictConfig) -> float | None:
    """One run. Returns the objective of sweepers: accuracy on the first evaluation set."""
    out = RunDirectory(Path(HydraConfig.get().runtime.output_dir))
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        settings = settings_of(config)
        quiet = sweeping and not settings["run"]["verbose"]
        with only_logged(out.log) if quiet else contextlib.nullcontext():
            from rmlab.runner.run import run

            return run(settings, out.path)["objective"]
    except Exception as error:
        if sweeping:
            raise for_the_sweep(error, out) from None
        if not isinstance(error, UserError):
            raise
        logging.getLogger("rmlab").error("%s", error)
        stop(str(error))


def for_the_sweep(error: Exception, out: RunDirectory) -> Exception:
    """What a failed run of a sweep raises, which tells of it: a line that any launcher can carry between processes."""
    if isinstance(error, BusyError):
        tell(f"passed over for now: {error}")
        return error
    logging.getLogger("rmlab").error("the run failed", exc_info=error)
    if not out.error():  # run() writes it, but not of a config that does not resolve
        out.write_error(error)
    return RuntimeError(describe(error))


def main() -> None:
    """Train a run or a sweep. Exit status: 1 if runs of a sweep failed, 2 for a wrong config, 130 when interrupted."""
    logging.raiseExceptions = False  # of a log that a full disk holds up: the error itself is printed
    sys.argv[1:] = ["run.verbose=true" if word in ("-v", "--verbose") else word for word in sys.argv[1:]]
    check_words(sys.argv[1:])
    sys.argv[1:] = take_folders(sys.argv[1:])
    with watched_launches() as failed:
        try:
            task()
        except KeyboardInterrupt:
            print("\nrmlab: interrupted; the same command goes on where this one stopped", file=sys.stderr)
            raise SystemExit(130) from None
    if failed:
        raise SystemExit(1)


def check_words(arguments: list[str]) -> None:
    """Stop at `data.head=3` with the new name, at `loss=margn` with the nearest option; Hydra only lists them all."""
    try:
        refuse_renamed(arguments)
    except UserError as error:
        stop(str(error))
    roots = [CONF, *folders_of(arguments), *installed()]
    primary = primary_config(arguments, roots)
    for old in (line.strip().partition(":")[0] for line in primary):
        if old in RENAMED:
            stop(f"{old} is now {RENAMED[old]}")
    if any("searchpath" in word for word in [*arguments, *primary]):
        return  # options may lie where only Hydra looks
    for argument in arguments:
        group, _, value = argument.lstrip("+").partition("=")
        folders = [root / group for root in roots if group and (root / group).is_dir()]
        if group.startswith("hydra") or not folders or value in ("", "null") or any(c in value for c in "(){}*$"):
            continue
        known = {str(f.relative_to(root).with_suffix("")) for root in folders for f in root.rglob("*.yaml")}
        for option in (word.strip(" \"'[]").removesuffix(".yaml") for word in value.split(",")):
            if option and option not in known:
                stop(f"no {group} option {option!r}{did_you_mean(option, known)}")


def primary_config(arguments: list[str], roots: list[Path]) -> list[str]:
    """The lines of the config that -cn names, where it is found."""
    names = [v for f, v in itertools.pairwise(arguments) if f in ("-cn", "--config-name")]
    files = [root / f"{name.removesuffix('.yaml')}.yaml" for name in names for root in roots]
    return [line for file in files if file.is_file() for line in file.read_text(encoding="utf-8").splitlines()]


def stop(message: str) -> NoReturn:
    """Print the error and end the process with exit status 2, without a traceback."""
    print(f"rmlab: error: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
