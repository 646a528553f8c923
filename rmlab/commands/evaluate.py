"""The `rmlab-eval` command: benchmark suites on a run or any model. torch is imported once the rows are read."""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rmlab.data.cache import digest
from rmlab.messages import UserError, check_all, did_you_mean, first_line, in_words, say
from rmlab.metrics.ensemble import check_reduce
from rmlab.model.config import ModelConfig
from rmlab.model.identity import identity_of, model_folder
from rmlab.registry import import_plugins
from rmlab.runner.config import CONF
from rmlab.runner.contaminated import tell_contamination, training_prompts
from rmlab.runner.directory import RunDirectory
from rmlab.runner.suite_tables import print_suite
from rmlab.runner.suites import entries, read_suites, score_suites

if TYPE_CHECKING:  # which imports torch
    from rmlab.scoring.ensemble import Ensemble
    from rmlab.scoring.reward_model import RewardModel

SUITE = re.compile(r"suite=\[?([^\]]*)\]?")
COMMON = re.compile(r"model|adapter|checkpoints?|checkpoint-\d+|[0-9a-f]{40}")  # names of folders of many models
OPEN = ("eval.", "chat_template_kwargs.")  # nodes of config that take keys which they do not have
# How this command calls what training's sentences name by keys of its config.
WORDS = {"data.chat_template_kwargs": "chat_template_kwargs", "model.path: ": "", "model.dtype": "dtype"}
TOGETHER = {"reduce": "mean", "c": 1.0, "align": "none"}  # how several models are one, see metrics/ensemble.py
PLACE = Path("evals")  # of results on models that are no runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 for a model, a suite or data that is wrong, 2 for wrong arguments."""
    options = parser().parse_intermixed_args(arguments)
    models, words = models_and_words(options.model, options.overrides)
    try:
        evaluate(models, composed(words))
    except UserError as error:
        print(f"rmlab-eval: error: {in_words(str(error), WORDS)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrmlab-eval: interrupted; the same command goes on with the suites that are left", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    options = "\n".join(f"  {line}" for line in (CONF / "evaluate.yaml").read_text(encoding="utf-8").splitlines()[5:])
    parser = argparse.ArgumentParser(
        prog="rmlab-eval",
        description="Score benchmark suites with a reward model, as their authors do. Suites that are finished are "
        "skipped.",
        epilog=f"suites (suite=NAME,NAME or eval=[NAME,NAME]): {', '.join(known())}\n\noptions of a suite: "
        f"eval.NAME.path=FOLDER, as conf/eval/NAME.yaml has them\n\nother values:\n{options}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a run directory, a saved model, an adapter, or a hub name; folders of several are one",
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="suites, their options, and values below")
    return parser


def models_and_words(model: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The model and further ones, which are folders that are there; and the overrides."""
    more = [word for word in words if "=" not in word and Path(word).expanduser().is_dir()]
    return [model, *more], [word for word in words if word not in more]


def known() -> list[str]:
    """The options of the group eval."""
    return sorted(file.stem for file in (CONF / "eval").glob("*.yaml") if file.stem != "none")


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The config of these overrides. UserError for what is none, and where no suite is named."""
    words = [SUITE.sub(r"eval=[\1]", word) if SUITE.fullmatch(word) else word for word in overrides]
    check_all(*(partial(check_word, word) for word in words))
    words = [f"++{word}" if word.startswith(OPEN) else word for word in words]
    try:
        with initialize_config_dir(config_dir=str(CONF.resolve()), version_base="1.3"):
            config = OmegaConf.to_container(compose("evaluate", words), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = str(error.full_key or "")
        raise UserError(f"{key} must be given: {key}=..." if key else first_line(error)) from error
    except HydraException as error:
        raise UserError(first_line(error)) from error
    assert isinstance(config, dict)
    if not config.get("eval"):
        raise UserError(f"no suite is named; suite=NAME,NAME takes {', '.join(known())}")
    return {str(key): value for key, value in config.items()}


def check_word(word: str) -> None:
    """UserError for what is no override, and for a suite that there is not."""
    key, equals, value = word.lstrip("+").partition("=")
    if not equals:
        raise UserError(f"{word!r} is no key=value")
    if key == "eval":
        for name in filter(None, (part.strip(" \"'") for part in value.strip("[]").split(","))):
            if name != "none" and name not in known():
                raise UserError(f"no suite {name!r}{did_you_mean(name, known())}")


def evaluate(models: Sequence[str], config: Mapping[str, Any]) -> None:
    """Score what is left of the suites, and print a table of each. UserError before a model loads for all but it.

    Several models are scored as one, whose results lie in a folder of their own.
    """
    import_plugins(config["plugins"])
    model, together = models[0], {key: config[key] for key in TOGETHER}
    run, folder = RunDirectory.of(model), model_folder(model)
    is_run, one = folder != model, len(models) == 1
    trained = run.config().get("model", {}) if is_run else {}
    other = {key: config[key] for key, usual in usual_of(trained).items() if config[key] not in (None, usual)}
    refuse_reduction(together, one)
    place = RunDirectory.of(config["out"] or (run.path if is_run and one and not other else PLACE / named(models)))
    entries(config["eval"], place.metrics().get("eval", {}))  # whose scores lie there
    said = [other] if one else [*map(identity_of, models[1:]), other, together]
    identity = "" if place == run else digest([identity_of(model), *said])
    suites = read_suites(config["eval"], ModelConfig(path=folder), identity)
    asked = config["contamination"]
    prompts = training_prompts(asked, run.config() if is_run else {}) if asked else None
    load = partial(loaded, model, config, trained) if one else partial(loaded_together, models, config, trained)
    with place.locked():
        results = score_suites(suites, place, load, again=config["redo"])
        if prompts is not None:
            tell_contamination(suites, prompts, place)
    for name, told in results.items():
        print_suite(name, told)
    say(f"results are in {place}")


def refuse_reduction(together: Mapping[str, Any], one: bool) -> None:
    """UserError for what is no way to make rewards one, and for one that is asked for of one model."""
    check_reduce(**together)
    if one and together != TOGETHER:
        raise UserError(f"{', '.join(TOGETHER)} are of several models; give more folders than one, or leave them out")


def named(models: Sequence[str]) -> str:
    """A folder's name for all of them: of several that of the first, and a hash."""
    one = name_of(models[0])
    return one if len(models) == 1 else f"{one}-and-{len(models) - 1}-{digest([*map(identity_of, models)])[:8]}"


def usual_of(trained: Mapping[str, Any]) -> dict[str, Any]:
    """What rewards depend on besides the model: measured in another way they are no results of the run itself."""
    usual = {"dtype": trained.get("dtype", "float32"), "max_length": "auto", "overlong": "truncate"}
    return {**usual, "chat_template_kwargs": {}}


def loaded(model: str, config: Mapping[str, Any], trained: Mapping[str, Any]) -> "RewardModel":
    """The model. trained: the `model` node of the run that it is of."""
    from transformers.utils import logging as hf_logging

    from rmlab.scoring.reward_model import RewardModel

    hf_logging.disable_progress_bar()  # of loading weights
    taken = {key: config[key] for key in ("device", "max_length", "overlong", "tokens_per_batch", "trust_remote_code")}
    template = config["chat_template_kwargs"] or None
    dtype = config["dtype"] or trained.get("dtype") or "float32"
    return RewardModel(model, dtype=dtype, chat_template_kwargs=template, **taken)


def loaded_together(models: Sequence[str], config: Mapping[str, Any], trained: Mapping[str, Any]) -> "Ensemble":
    """The models as one. trained: the `model` node of the first one's run."""
    from rmlab.scoring.ensemble import Ensemble

    return Ensemble([loaded(model, config, trained) for model in models], **{key: config[key] for key in TOGETHER})


def name_of(model: str) -> str:
    """A folder's name for a model: of a path its last part, of one that many runs have the one before too."""
    place = Path(model).expanduser()
    if not place.exists():
        return model.strip("/").replace("/", "--")
    place = place.resolve()
    return f"{place.parent.name}--{place.name}" if COMMON.fullmatch(place.name) else place.name


if __name__ == "__main__":
    raise SystemExit(main())
