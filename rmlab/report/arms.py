"""What makes an arm of a study, and what it is called."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmlab.messages import UserError, did_you_mean
from rmlab.report.runs import Run
from rmlab.runner.config import computed, flatten

Values = dict[str, Any]  # the varied keys of an arm, shortest unambiguous name -> value
GROUPS = ("model", "model/head", "data", "loss", "peft")


@dataclass(frozen=True)
class Named:
    """What `name_arms` found: values[arm] make the arm; usual: what most arms have in common, and names do not say."""

    values: dict[str, Values]
    usual: Values


def name_arms(runs: Sequence[Run], keep: Sequence[str] = ()) -> Named:
    """Set every run's `arm`, and return what makes each of them.

    An arm is what differs between the configs of the finished runs, the seed apart. A run that did not finish joins
    the arm it belongs to, or has one of its own, but never renames the others. Left out of names is what another key
    says as well, and the value that more than two thirds of the arms have; but not of the keys to `keep`.
    """
    done = [run for run in runs if run.state == "finished"] or list(runs)
    settings = {id(run): flatten({k: v for k, v in computed(run.config).items() if k != "seed"}) for run in runs}
    everything = {id(run): differing_values(run, done, settings) for run in runs}
    of_done = unique([everything[id(run)] for run in done])
    telling = keys_that_tell(of_done, keep)
    usual = usual_values([{k: v for k, v in one.items() if k in telling} for one in of_done], keep)
    values: dict[str, Values] = {}
    for run in runs:
        mine = {k: v for k, v in everything[id(run)].items() if k in telling} | own_values(run, done, settings)
        run.arm = label(mine, usual) or str(run.config["run"].get("name") or "run")
        values[run.arm] = mine
    return Named(values, usual)


def differing_values(run: Run, done: Sequence[Run], settings: Mapping[int, Values]) -> Values:
    """The keys that differ between the finished runs, with this run's values.

    A group whose chosen options say all (loss=plain, loss=margin) is one key; what differs between the runs of the same
    option comes beside it.
    """
    those = [settings[id(other)] for other in done]
    varied = differing_keys(those)
    short, found = shorten(varied), Values()
    for group in sorted({group_of(key) for key in varied}):
        below = [key for key in varied if group_of(key) == group]
        options = [option_of(other, group) for other in done]
        if None not in options and len(set(options)) > 1:
            found[group] = option_of(run, group)
            same = [one for one, option in zip(those, options, strict=True) if option == found[group]]
            below = [key for key in below if key in differing_keys(same)]
        found |= {short[key]: settings[id(run)][key] for key in below if key in settings[id(run)]}
    return found


def own_values(run: Run, done: Sequence[Run], settings: Mapping[int, Values]) -> Values:
    """What tells a run that did not finish from all that did."""
    mine, those = settings[id(run)], [settings[id(other)] for other in done]
    if run in done:
        return {}
    varied = differing_keys(those)
    own = [key for key in differing_keys([mine, those[0]]) if key not in varied]
    short = shorten([*varied, *own])
    return {short[key]: mine.get(key) for key in own}


def differing_keys(settings: Sequence[Values]) -> list[str]:
    """The dotted keys that have several values, or that some lack."""
    keys = sorted({key for one in settings for key in one})
    return [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1]


def group_of(key: str) -> str:
    """The config group that a dotted key is of."""
    return "model/head" if key.startswith("model.head.") else key.partition(".")[0]


def option_of(run: Run, group: str) -> str | None:
    """The option of a config group that the run chose; None if it does not say."""
    option = run.config["run"].get("choices", {}).get(group)
    otherwise = {"loss": run.config["run"].get("name"), "model/head": "linear"}  # of runs from before there were heads
    return option or otherwise.get(group)


def unique(values: Sequence[Values]) -> list[Values]:
    """Each different one once."""
    return list({repr(sorted(one.items(), key=str)): one for one in values}.values())


def keys_that_tell(arms: Sequence[Values], keep: Sequence[str]) -> list[str]:
    """Keys without those that another one implies: options come first, then what has the most values."""
    keys = list(dict.fromkeys(key for one in arms for key in one))
    levels = {key: [repr(one.get(key, Values)) for one in arms] for key in keys}
    kept: list[str] = []
    for key in sorted(keys, key=lambda k: (not is_one_of(k, keep), k not in GROUPS, -len(set(levels[k])))):
        others = [other for other in kept if not is_one_of(other, keep)]  # what is chosen from says nothing of an arm
        if is_one_of(key, keep) or not any(implies(levels[other], levels[key]) for other in others):
            kept.append(key)
    return [key for key in keys if key in kept]


def implies(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether arms with the same level of one have the same level of the other."""
    return len(set(zip(one, other, strict=True))) == len(set(one))


def usual_values(arms: Sequence[Values], keep: Sequence[str]) -> Values:
    """Values that more than two thirds of the arms have, of keys that all of them have."""
    usual = Values()
    for key in [key for key in arms[0] if all(key in one for one in arms) and not is_one_of(key, keep)]:
        most, number = Counter(repr(one[key]) for one in arms).most_common(1)[0]
        if 3 * number > 2 * len(arms):
            usual[key] = next(one[key] for one in arms if repr(one[key]) == most)
    return usual


def as_swept(arms: Mapping[str, Sequence[Run]], values: Mapping[str, Values]) -> list[str]:
    """Arms in order: numbers by size, words as they first came."""
    first: dict[tuple[str, str], float] = {}
    for arm, runs in arms.items():
        for key, value in values[arm].items():
            made = min(run.made for run in runs)
            first[key, repr(value)] = min(made, first.get((key, repr(value)), made))
    keys = list(dict.fromkeys(key for one in values.values() for key in one))

    def rank(arm: str, key: str) -> tuple[int, float]:
        value = values[arm].get(key, Values)
        if value is Values:
            return (0, 0.0)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (1, float(value)) if is_number else (2, first[key, repr(value)])

    return sorted(arms, key=lambda arm: [*(rank(arm, key) for key in keys), (3, min(run.made for run in arms[arm]))])


def label(values: Values, usual: Values) -> str:
    """`margin`, `learning_rate=0.001`, `margin learning_rate=0.001`: options by name alone, other values with key.

    usual: values that are not said.
    """
    told = without_usual(values, usual).items()
    return " ".join(str(v) if k in GROUPS else f"{k}={show(v)}" for k, v in told)


def without_usual(values: Values, usual: Values) -> Values:
    """What makes an arm other than most."""
    return {k: v for k, v in values.items() if k not in usual or repr(usual[k]) != repr(v)}


def show(value: Any) -> str:
    """Short, in one line, but never so short that two values look alike."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "none" if value is None else str(value).replace("\n", "\\n")  # of a prompt separator, say


def is_one_of(name: str, keys: Sequence[str]) -> bool:
    """Whether the short name of a varied key stands for one of these dotted keys."""
    return any(f".{key}".endswith(f".{name}") for key in keys)


def without(values: Values, keys: Sequence[str]) -> Values:
    """What makes an arm, nuisance keys apart."""
    return {name: value for name, value in values.items() if not is_one_of(name, keys)}


SAYS_NOTHING = ("weight", "path", "name", "source")  # without what it is of


def shorten(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key by its last part, or by as many as say what it is and tell it from the others."""
    short = {}
    for key in keys:
        parts = key.split(".")
        for n in range(1 + (parts[-1] in SAYS_NOTHING and len(parts) > 1), len(parts) + 1):
            end = "." + ".".join(parts[-n:])
            if sum(f".{other}".endswith(end) for other in keys) == 1:
                break
        short[key] = end[1:]
    return short


def find_arm(wanted: str | None, values: Mapping[str, Values], tune: Sequence[str], where: str) -> str:
    """The arm of that label, else the only one with these words in its label, or that begins so; None: the first.

    Arms that differ in nuisance values alone are one. A UserError for none and for several.
    """
    arms = list(values)
    if wanted is None:
        return arms[0]
    words = set(wanted.split())
    found = [wanted] if wanted in arms else [arm for arm in arms if words <= set(arm.split())]
    found = found or [arm for arm in arms if arm.startswith(wanted)]
    if not found and where == "report.baseline":  # of a sweep that was changed on the command line
        return find_arm(None, values, tune, where)
    if not found:
        raise UserError(f"{where}: no arm {wanted!r}{did_you_mean(wanted, arms)}")
    if len({label(without(values[arm], tune), {}) for arm in found}) > 1 and where != "report.baseline":
        raise UserError(f"{where}: {wanted!r} may be {' or '.join(repr(arm) for arm in found)}; say which")
    return found[0]
