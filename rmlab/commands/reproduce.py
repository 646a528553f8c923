"""The `rmlab-reproduce` command: train a finished run again from what it kept, and compare the numbers.

What differs now from then is said before the training starts. torch is imported once the arguments are right.
"""

import argparse
import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rmlab.messages import UserError, did_you_mean, is_first_rank, say
from rmlab.registry import import_plugins
from rmlab.runner.compare_runs import Pairs, compare, differing, print_sets, shown
from rmlab.runner.config import OPEN, Config, computed, flatten
from rmlab.runner.directory import RunDirectory, describe
from rmlab.runner.environment import describe_environment, fingerprints, source_of

RECORDED = ("commit", "diff", "code", "packages", "python", "processes", "hardware", "inputs")  # of environment.json
NO_FILE = hashlib.sha256().hexdigest()[:16]  # the fingerprint of a path without files: gone, or a name on the hub


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 for the same numbers, 1 for others or a failed rerun, 2 for wrong arguments."""
    options = parser().parse_intermixed_args(arguments)
    then, out = RunDirectory(options.run_dir), RunDirectory(options.out or options.run_dir / "reproduction")
    try:
        environment = read_run(then)
        config, changes = config_now(then, environment, options.overrides, options.trust)
        told = confined(config, out, options.overrides)
        import_plugins(config["plugins"])
        make_room(out, then)
    except UserError as error:
        return fail(str(error), 2)
    differences = differences_now(environment, config)
    announce(then, out, config, changes, differences)
    for line in told:
        say(line)
    from rmlab.runner.run import run

    try:
        run(config, out.path)
    except Exception as error:
        return fail(f"the rerun failed: {describe(error)}", 1)
    if not is_first_rank():
        return 0
    other_rows = differences_of_rows(environment, out)
    say_pairs("the rows read differ from then:", other_rows)
    return conclude(then, out, changes, {**differences, **other_rows})


def fail(message: str, status: int) -> int:
    """Print the error and return the exit status, for `main` to return in turn."""
    print(f"rmlab-reproduce: error: {message}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """What the command takes. Use `parse_intermixed_args`, so that overrides may stand on either side of -o."""
    parser = argparse.ArgumentParser(
        prog="rmlab-reproduce",
        description="Train a finished run again from its config.yaml, say what differs now from then, and compare "
        "metrics and rewards. The last line is the verdict: identical, within tolerance or different.",
        epilog="A run of several processes: torchrun --nproc_per_node=N -m rmlab.commands.reproduce RUN_DIR",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="directory of a finished run")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="change the config, as trainer.max_steps=10")
    trust = "run the code that the config names: its plugins, and what comes with its checkpoint (trust_remote_code)"
    parser.add_argument("--trust", action="store_true", help=trust)
    place = "where to train; default RUN_DIR/reproduction; an earlier reproduction there is replaced"
    parser.add_argument("-o", dest="out", metavar="OUT", type=Path, help=place)
    return parser


# ---- what was, and what is to be run ----


def read_run(directory: RunDirectory) -> dict[str, Any]:
    """The environment.json of a finished run; a UserError for anything else, and where scores are missing."""
    if not directory.path.is_dir():
        raise UserError(f"there is no directory {directory}")
    if not directory.is_run:
        raise UserError(f"{directory} is no run directory: it holds no config.yaml")
    if (damage := directory.damage() if directory.has_metrics else None) is not None:
        raise UserError(f"{directory} is damaged: {damage}; there are no numbers to compare with")
    if not directory.is_finished:
        raise UserError(f"{directory} is not finished but {directory.state}; there are no numbers to compare with")
    return directory.environment()


def config_now(
    then: RunDirectory, environment: Mapping[str, Any], overrides: Sequence[str], trust: bool = False
) -> tuple[dict[str, Any], Pairs]:
    """(the config to run, what it changes): config.yaml as it is now, the overrides, threads as then, no logger.

    trust: whether it may name code to run; what the overrides name may.
    """
    config = then.config()
    try:
        trained = flatten(environment.get("config", computed(config)))
        run = config["run"]
        run["threads"] = run.get("threads") or environment.get("hardware", {}).get("threads")
        for override in overrides:
            set_value(config, override)
        config.update(run={**config["run"], "redo": True}, logger={"report_to": "none"}, eval={})
        refuse_code(config, overrides, trust)
    except KeyError as error:
        raise UserError(f"{then} holds a config.yaml without {error}") from error
    except (AttributeError, TypeError) as error:
        raise UserError(f"a value of the config has the wrong type ({error})") from error
    typed = Config.of(config)
    typed.check()
    now = json.loads(json.dumps(computed(typed.as_dict())))  # as environment.json holds it
    return typed.as_dict(), differing(trained, flatten(now))


# ---- what a config that somebody else wrote may do ----


def confined(config: dict[str, Any], out: RunDirectory, overrides: Sequence[str]) -> list[str]:
    """Keep the config from writing outside of `out`, pushing and logging elsewhere; a line for each thing it wanted.

    UserError for a template that is some file of this machine. What the command line says itself is left alone.
    """
    own = {override.lstrip("+").partition("=")[0] for override in overrides}
    lines = []
    trainer = config["trainer"]
    for key in [k for k in trainer if k.startswith(("push_to_hub", "hub_")) or k in ("logging_dir", "report_to")]:
        if f"trainer.{key}" not in own and trainer.pop(key) not in (None, False):
            lines.append(f"trainer.{key} is left out: a reproduction stays on this machine, in {out}")
    if "run.cache_dir" not in own and config["run"].get("cache_dir") is not None:
        config["run"]["cache_dir"] = str(out.path / ".cache")
    template = config["model"].get("chat_template")
    if template is not None and "model.chat_template" not in own and not is_beside(template):
        raise UserError(
            f"model.chat_template is {template}, a file of some machine that would be copied into model/; if it is the "
            f"right one, say so: model.chat_template={template}"
        )
    return lines


def is_beside(path: str) -> bool:
    """Whether a path stays in the current folder (or is a name on the hub)."""
    return not Path(path).expanduser().is_absolute() and ".." not in Path(path).parts


def refuse_code(config: Mapping[str, Any], overrides: Sequence[str], trust: bool) -> None:
    """UserError naming the code that the config would run, unless it is trusted or named on the command line."""
    own = {override.lstrip("+").partition("=")[0] for override in overrides}
    model, code = config["model"], []
    if "plugins" not in own:  # only the first part of a name is looked up: looking for a.b would import a
        code += [f"plugin {name} ({source_of(name.partition('.')[0]) or 'not found'})" for name in config["plugins"]]
    for node, options in (("model", model), ("model.init_kwargs", model.get("init_kwargs") or {})):
        if options.get("trust_remote_code") and f"{node}.trust_remote_code" not in own:
            code.append(f"the code that comes with the checkpoint {model.get('path')}")
        attention = options.get("attn_implementation")
        if "/" in str(attention or "") and f"{node}.attn_implementation" not in own:
            code.append(f"the kernel {attention}")
    if code and not trust:
        raise UserError(f"the config would run {', '.join(code)}; if you trust that, add --trust")


def set_value(config: dict[str, Any], override: str) -> None:
    """Apply `key=value`. The key is in the config, or below a node whose keys are options of others."""
    key, equals, text = override.lstrip("+").partition("=")  # rmlab, which is Hydra, takes a + before new keys
    if not equals:
        raise UserError(f"{override!r} is no override; write key=value")
    known = flatten(config)
    if key not in known and not key.startswith(tuple(f"{node}." for node in OPEN)):
        raise UserError(f"the config has no {key!r}{did_you_mean(key, known)}")
    *nodes, last = key.split(".")
    place = config
    for node in nodes:
        if place.get(node) is None:
            place[node] = {}
        place = place[node]
        if not isinstance(place, dict):
            raise UserError(f"the config has no {key!r}: {node} is {place!r}")
    place[last] = parse(text, known.get(key))


def parse(text: str, before: Any) -> Any:
    """The YAML value of `text`, but as rmlab reads it: no is a text, and 1e-3 a number where no text was before."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"cannot read the value {text!r}: {describe(error)}") from error
    if isinstance(value, bool) and text.lower() not in ("true", "false"):
        return text
    if isinstance(value, str) and not isinstance(before, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def make_room(out: RunDirectory, then: RunDirectory) -> None:
    """An empty `out`, marked as a reproduction. An earlier one goes, also one that was killed and would be resumed.

    Anything else in its place is a UserError.
    """
    if out.path.resolve() in (then.path.resolve(), *then.path.resolve().parents):
        raise UserError(f"-o {out} would replace {then} itself; choose another directory")
    if not is_first_rank():
        return
    if out.path.is_symlink():
        raise UserError(f"{out} is a link to somewhere else; choose another directory with -o")
    if out.path.exists() and any(out.path.iterdir()) and not out.is_reproduction:
        raise UserError(f"-o {out} is something else than an earlier reproduction; choose another directory")
    if out.is_locked:
        raise UserError(f"{out} is being trained by another process; wait for it, or choose another directory")
    shutil.rmtree(out.path, ignore_errors=True)
    out.write_reproduction({"run": str(then)})


# ---- what differs now from then ----


def differences_now(environment: Mapping[str, Any], config: Mapping[str, Any]) -> Pairs:
    """What made the numbers and is other now, of what was recorded then."""
    now = {**describe_environment(), "inputs": fingerprints(Config.of(config))}
    now["hardware"]["threads"] = config["run"]["threads"] or now["hardware"]["threads"]
    then, here = recorded(environment), recorded(now)
    return differing(then, {key: here.get(key) for key in then})


def recorded(environment: Mapping[str, Any]) -> dict[str, Any]:
    """{"packages.torch": ..., "hardware.threads": ...}: what of environment.json may change the numbers."""
    kept = {key: environment[key] for key in RECORDED if environment.get(key, {}) != {}}
    if "hardware" in kept:
        kept["hardware"] = {"gpu": None, "gpus": None, **kept["hardware"]}  # a CPU has neither, then or now
    return {key: "no file" if value == NO_FILE else value for key, value in flatten(kept).items()}


def differences_of_rows(environment: Mapping[str, Any], out: RunDirectory) -> Pairs:
    """Data fingerprints that differ: known only when the rerun has read its rows."""
    then, now = environment.get("data", {}), out.environment()["data"]
    return differing(*(flatten({"data": rows}) for rows in (then, now))) if then else {}


def announce(
    then: RunDirectory, out: RunDirectory, config: Mapping[str, Any], changes: Pairs, differences: Pairs
) -> None:
    """Say, before the training starts, what is read and run, and what differs from then, or that nothing does."""
    say(f"reproducing {then} in {out}")
    specs = [spec for part in ("train", "eval") for spec in config["data"][part].values()]
    reads = [str(spec["path"]) for spec in specs if spec.get("path")]
    reads += [str(config["model"][key]) for key in ("path", "tokenizer") if config["model"].get(key)]
    if reads or config["plugins"]:
        say(
            f"it reads {', '.join(reads) or 'nothing'}"
            + f" and runs {', '.join(config['plugins'])}" * bool(config["plugins"])
        )
    say_pairs("the config differs from what was trained:", changes)
    say_pairs("what differs now from then:", differences)
    if not changes and not differences:
        say("nothing that was recorded differs now from then")


def say_pairs(title: str, pairs: Pairs) -> None:
    """The title, then a line `key: then -> now` for each difference; nothing if there are none."""
    lines = [f"  {key}: {shown(then)} -> {shown(now)}" for key, (then, now) in pairs.items()]
    for line in [title, *lines] if lines else []:
        say(line)


# ---- the numbers ----


def conclude(then: RunDirectory, out: RunDirectory, changes: Pairs, differences: Pairs) -> int:
    """Compare, print and keep the result; the exit status."""
    result = compare(then, out)
    out.write_reproduction({"run": str(then), "config": changes, "environment": differences, **result.as_dict()})
    print_sets(result.sets)
    say(f"{len(result.metrics)} metrics differ; all numbers are in {out.path / 'reproduction.json'}")
    if result.verdict == "different":
        # A commit may change nothing that runs: the hash of rmlab's code is compared too.
        causes = [*changes, *(key for key in differences if key not in ("commit", "diff"))]
        say(f"likely causes: {', '.join(causes)}" if causes else "nothing that was recorded explains it")
    say(result.verdict)
    return int(result.verdict == "different")


if __name__ == "__main__":
    sys.exit(main())
