"""The `rmlab` command. torch is imported inside the task, so that --help and tab completion answer at once."""

import itertools
import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rmlab.config import CONF, register
from rmlab.messages import UserError, did_you_mean
from rmlab.rundir import BusyError, describe, read_error, write_error
from rmlab.sweep import settings_of, watched_launches

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def task(config: DictConfig) -> float | None:
    """One run. Returns the objective of sweepers: accuracy on the first evaluation set."""
    out = Path(HydraConfig.get().runtime.output_dir)
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        settings = settings_of(config)
        from rmlab.runner import run

        return run(settings, out)["objective"]
    except Exception as error:
        if sweeping:
            raise for_the_sweep(error, out) from None
        if not isinstance(error, UserError):
            raise
        logging.getLogger("rmlab").error("%s", error)
        print(f"rmlab: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def for_the_sweep(error: Exception, out: Path) -> Exception:
    """What a failed run of a sweep raises: a line that any launcher can carry between processes."""
    if isinstance(error, BusyError):
        print(f"passed over for now: {error}", flush=True)
        return error
    print(f"failed: {os.path.relpath(out)}: {describe(error)}", flush=True)
    logging.getLogger("rmlab").error("the run failed", exc_info=error)
    if not read_error(out):  # run() writes it, but not of a config that does not resolve
        write_error(error, out)
    return RuntimeError(describe(error))


# Nodes whose keys are options of others (TrainingArguments, a loss term, a peft config, a model config): rmlab checks
# them itself, with the nearest name, so that nobody has to write +trainer.warmup_ratio=0.1.
OPEN = (
    *("trainer", "loss", "peft", "logger", "model.config", "model.init_kwargs", "model.quantization"),
    *("data.train", "data.eval", "data.columns", "data.chat_template_kwargs"),
)


def main() -> None:
    check_groups(sys.argv[1:])
    sys.argv[1:] = [
        f"++{a}" if a.partition("=")[0].startswith(tuple(f"{n}." for n in OPEN)) else a for a in sys.argv[1:]
    ]
    with watched_launches() as failed:
        try:
            task()
        except KeyboardInterrupt:
            print("\nrmlab: interrupted; the same command goes on where this one stopped", file=sys.stderr)
            raise SystemExit(130) from None
    if failed:
        raise SystemExit(1)


def check_groups(arguments: list[str]) -> None:
    """Stop at `loss=margn` with the nearest option; Hydra itself only lists them all."""
    flags = ("-cd", "--config-dir")
    extra = [Path(v) for f, v in itertools.pairwise(arguments) if f in flags]
    extra += [Path(a.split("=", 1)[1]) for a in arguments if a.startswith("--config-dir=")]
    if any("hydra.searchpath" in argument for argument in arguments):
        return  # options may lie where only Hydra looks
    for argument in arguments:
        group, _, value = argument.lstrip("+").partition("=")
        folders = [root / group for root in (CONF, *extra) if group and (root / group).is_dir()]
        if group.startswith("hydra") or not folders or value in ("", "null") or any(c in value for c in "()[]{}*$\"'"):
            continue
        known = {file.stem for folder in folders for file in folder.glob("*.yaml")}
        for option in value.split(","):
            if option not in known:
                print(f"rmlab: error: no {group} option {option!r}{did_you_mean(option, known)}", file=sys.stderr)
                raise SystemExit(2)


if __name__ == "__main__":
    main()
