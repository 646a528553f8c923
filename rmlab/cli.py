"""The `rmlab` command. torch is imported inside the task, so that --help and tab completion answer at once."""

import itertools
import logging
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rmlab.config import CONF, register, to_dict
from rmlab.messages import UserError, did_you_mean

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def task(config: DictConfig) -> float | None:
    """One run. Returns the objective of sweepers: accuracy on the first evaluation set."""
    try:
        settings, out = to_dict(config), Path(HydraConfig.get().runtime.output_dir)
        from rmlab.runner import run

        return run(settings, out)["objective"]
    except UserError as error:
        logging.getLogger("rmlab").error("%s", error)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        print(f"rmlab: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


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
    task()


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
