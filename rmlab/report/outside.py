"""Scores from outside as arms of a study: a judge, a published file, another framework's model, beside its own.

Each is one arm that no seed changes, so it is paired with every run of the baseline. Its comparisons are found by id,
or by their texts.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from rmlab.data.excerpts import texts_of
from rmlab.messages import UserError
from rmlab.report.items import OUTSIDE, Items
from rmlab.report.outside_files import Entry, Key, ScoresFile, described, read_scores_file
from rmlab.report.study import Study


@dataclass(frozen=True)
class Asked:
    """`--scores SET:NAME=FILE`; set: None where the ids are to tell."""

    name: str
    file: Path
    set: str | None = None


@dataclass
class Matched:
    """What a file says of the items of a set: better, worse (I,) rewards, NaN where nothing; used: its entries."""

    better: np.ndarray
    worse: np.ndarray
    used: set[Key] = field(default_factory=set)


def asked_of(texts: Sequence[str], sets: Sequence[str] = ()) -> list[Asked]:
    """Of the options `--scores`. UserError for one without a name or a file."""
    found = []
    for text in texts:
        name, _, file = text.partition("=")
        of_set, colon, rest = name.partition(":")
        name, chosen = (rest, of_set) if colon and of_set in sets else (name, None)
        if not name or not file:
            raise UserError(f"--scores {text!r}: say NAME=FILE, NAME being what to call the arm, or SET:NAME=FILE")
        found.append(Asked(name, Path(file).expanduser(), chosen))
    return found


def with_outside(
    study: Study, items: Mapping[str, Items], asked: Sequence[Asked], texts: Callable[[str], pd.DataFrame | None]
) -> tuple[Study, dict[str, Items]]:
    """The study with an arm more per name, and its items with their scores; notes say what does not match.

    texts: excerpts of an evaluation set (comparison, prompt, responses), read where ids are not given; None: none kept.
    UserError for a name that is an arm already, for a file that matches nothing, and where ids do not tell the set.
    """
    arms, values = dict(study.arms), dict(study.values)
    files: dict[str, list[str]] = {}
    sets, notes = dict(items), list(study.notes)
    for one in asked:
        if one.name in study.arms:
            raise UserError(f"--scores: the study has an arm {one.name!r} already; give the file another name")
        read = read_scores_file(one.file)
        matched = {name: match(read, items[name], name, texts) for name in ([one.set] if one.set else items)}
        found = chosen_sets(one, read, items, matched)
        for name in found:
            if one.name in sets[name].arm:
                raise UserError(f"--scores: {one.name!r} is given twice for {name}; keep one file, or use other names")
            if np.isnan(matched[name].better - matched[name].worse).all():
                raise UserError(f"{one.file} prefers nothing in {name}: its rewards or verdicts of it are all empty")
            sets[name] = added(sets[name], one.name, matched[name], read.verdicts)
        notes += told(one, read, items, {name: matched[name] for name in found})
        arms[one.name], values[one.name] = [], {}
        files.setdefault(one.name, []).append(str(one.file))
    outside = {name: ", ".join(of) for name, of in files.items()}
    study = replace(study, arms=arms, values=values, notes=notes, outside=outside)
    return study, sets


def chosen_sets(
    asked: Asked, read: ScoresFile, items: Mapping[str, Items], matched: Mapping[str, Matched]
) -> list[str]:
    """The sets of which the file has scores; several only if no line of it could be of two."""
    found = [name for name, of in matched.items() if of.used]
    if not found:
        name, by = next(iter(matched)), "comparison" if read.by == "comparison" else "id"
        theirs, ours = next(iter(read.entries)), (by, str(items[name].key[by].iloc[0]))
        raise UserError(
            f"{read.file} matches nothing in {' or '.join(matched)}: its first row is of {described(theirs)}, and the "
            f"first comparison of {name} has {described(ours)}"
        )
    used = Counter(key for of in matched.values() for key in of.used)
    twice = next((key for key, times in used.items() if times > 1), None)
    if twice:
        raise UserError(
            f"{read.file}: {described(twice)} is in {' and in '.join(found)}; say which set is meant: "
            f"--scores {found[0]}:{asked.name}={asked.file}"
        )
    return found


def added(items: Items, arm: str, matched: Matched, verdicts: bool) -> Items:
    """The items with one row more, of that arm."""
    return replace(
        items,
        arm=np.append(items.arm, arm),
        seed=np.append(items.seed, OUTSIDE),
        better=np.vstack([items.better, matched.better]),
        worse=np.vstack([items.worse, matched.worse]),
        verdicts=items.verdicts | ({arm} if verdicts else set()),
    )


def told(asked: Asked, read: ScoresFile, items: Mapping[str, Items], matched: Mapping[str, Matched]) -> list[str]:
    """Notes: what of the file matches nothing, and what of the sets it says nothing of."""
    used = {key for of in matched.values() for key in of.used}
    lost = [key for key in read.entries if key not in used]
    notes = []
    if lost:
        number = f"{len(lost):,} of {len(read.entries):,} comparisons of {read.file.name}"
        notes.append(f"{asked.name}: {number} are not in {' or '.join(matched)}, the first is {described(lost[0])}")
    for name, of in matched.items():
        missing = int(np.isnan(of.better - of.worse).sum())
        if missing:
            whole = len(of.better)
            notes.append(
                f"{asked.name} has no score of {missing:,} of {whole:,} preferences of {name}: its mean is of the "
                f"other {whole - missing:,}, and a difference is of what both arms have scores of"
            )
    if read.verdicts:
        notes.append(f"{asked.name} says who is preferred, not by how much: it has no NLL and no Brier score")
    return notes


# ---- which comparison an entry is of ----


def match(read: ScoresFile, items: Items, name: str, texts: Callable[[str], pd.DataFrame | None]) -> Matched:
    """What the file says of the items. UserError for an id that two comparisons of the set have."""
    keys, orders = found_by_text(read, items, texts(name), name) if read.by == "text" else (keys_of(items, read.by), [])
    if read.by == "id":
        refuse_shared_ids(read, items, keys, name)
    found = Matched(np.full(len(keys), math.nan), np.full(len(keys), math.nan))
    sides = items.key[["better", "worse", "responses"]].to_numpy()
    for place, key in enumerate(keys):
        entry = read.entries.get(key) if key else None
        if key and entry:
            found.used.add(key)
            order = (orders and orders[place]) or range(sides[place][2])
            better, worse = (order[side] for side in sides[place][:2])
            found.better[place], found.worse[place] = rewards(entry, better, worse, len(order))
    return found


def keys_of(items: Items, by: str) -> list[Key]:
    """Of each item."""
    return [(by, str(value)) for value in items.key[by].tolist()]


def refuse_shared_ids(read: ScoresFile, items: Items, keys: Sequence[Key | None], name: str) -> None:
    """UserError where the file speaks of an id that two comparisons of the set have."""
    ids = items.key[["id", "comparison"]].drop_duplicates()["id"]
    shared = set(ids[ids.duplicated()].astype(str))
    both = next((key for key in keys if key and key[1] in shared and key in read.entries), None)
    if both:
        raise UserError(
            f"{read.file}: several comparisons of {name} have the {described(both)}; name each by `comparison`, its "
            "place in the set from 0, as scores/*.parquet of a run have it"
        )


def rewards(entry: Entry, better: int, worse: int, count: int) -> tuple[float, float]:
    """Of two of the `count` responses, by their places in the entry; NaN where it says nothing of them.

    A verdict is 1 for the response that it prefers and 0 for the other. UserError for too few rewards, and for a
    reward or verdict of a response that is not there.
    """
    said, verdict = entry.rewards, entry.verdict
    if verdict is None:
        if said and len(said) != count:
            raise UserError(
                f"{entry.where}: {len(said)} rewards, but the comparison has {count} responses; give one of each"
            )
        if said and max(said) >= count:
            raise UserError(
                f"{entry.where}: a reward of response {max(said)}, but the comparison has {count}; the first is 0"
            )
        return said.get(better, math.nan), said.get(worse, math.nan)
    if isinstance(verdict, str):
        return float(verdict == "chosen"), float(verdict == "rejected")
    if verdict >= count:
        raise UserError(
            f"{entry.where}: verdict is {verdict}, but the comparison has {count} responses; the first is 0 (or A)"
        )
    neither = math.nan if verdict not in (better, worse) else 0.0
    return 1.0 if verdict == better else neither, 1.0 if verdict == worse else neither


def found_by_text(
    read: ScoresFile, items: Items, texts: pd.DataFrame | None, name: str
) -> tuple[list[Key | None], list[list[int] | None]]:
    """(key, place of each response in the entry) of each item, by excerpts of its texts; None where it is not there.

    What two entries, or two prompts of the set, have in common is found for neither. UserError where the set keeps no
    texts.
    """
    if texts is None:
        raise UserError(f"{read.file} names no ids, and the runs keep no texts of {name} to find its rows by; give ids")
    told = [(key, texts_of(entry.texts)[1]) for key, entry in read.entries.items() if entry.texts]
    times = Counter(content(excerpts) for _, excerpts in told)
    entries = {content(e): (key, e[1:]) for key, e in told if times[content(e)] == 1 and len(set(e[1:])) == len(e) - 1}
    prompts = dict(zip(items.key["comparison"].tolist(), items.prompt.tolist(), strict=True))
    ours = [(c, content([prompt, *of]), of) for c, prompt, of in texts.itertuples(index=False) if c in prompts]
    asked = Counter(said for said, _ in {(said, prompts[c]) for c, said, _ in ours})
    found: dict[int, tuple[Key, list[int]]] = {}
    for comparison, said, responses in ours:
        key, theirs = entries.get(said, (None, []))
        if key and asked[said] == 1:
            found[int(comparison)] = key, [theirs.index(response) for response in responses]
    each = [found.get(int(comparison), (None, None)) for comparison in items.key["comparison"]]
    return [key for key, _ in each], [order for _, order in each]


def content(excerpts: Sequence[str]) -> tuple[str, ...]:
    """What a comparison says, whatever the order of its responses. excerpts: of the prompt, then of each response."""
    return (excerpts[0], *sorted(excerpts[1:]))
