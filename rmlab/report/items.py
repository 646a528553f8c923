"""The items of an evaluation set, the same for all runs of a study: one per preference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from rmlab.messages import UserError, first_line
from rmlab.metrics.evaluate import per_preference
from rmlab.report.arms import find_arm
from rmlab.report.runs import Run
from rmlab.report.study import Study
from rmlab.runner.scores import TEXTS, read_table, texts_beside

IDENTITY = ["prompt", "id", "better", "worse", "copy"]
LABELS = ["strength", "probability"]
METRICS = ("accuracy", "nll", "brier")  # common to all arms, whatever they were trained on
KEY = ["comparison", "id", "better", "worse", "responses"]
OUTSIDE = -1  # the seed of scores that no run of the study made: they belong to none


class OfRuns:
    """What several runs were scored on: which arm and seed each is of."""

    arm: np.ndarray  # (R,) str
    seed: np.ndarray  # (R,) int; OUTSIDE of scores from outside

    def runs_by_seed(self, arm: str) -> dict[int, int]:
        """seed -> place of the arm's run."""
        return {int(self.seed[r]): r for r in range(len(self.arm)) if self.arm[r] == arm}

    def paired(self, arm: str, other: str) -> tuple[list[int], list[int]]:
        """Places of the runs of both arms that have the same seed, in its order.

        Scores from outside are the same whatever the seed: they are paired with each run of the other arm.
        """
        mine, theirs = self.runs_by_seed(arm), self.runs_by_seed(other)
        if OUTSIDE in mine and theirs:
            mine = dict.fromkeys(theirs, mine[OUTSIDE])
        elif OUTSIDE in theirs:
            theirs = dict.fromkeys(mine, theirs[OUTSIDE])
        common = sorted(mine.keys() & theirs.keys())
        return [mine[seed] for seed in common], [theirs[seed] for seed in common]


@dataclass
class Items(OfRuns):
    """R runs, I preferences. gap, better, worse (R, I): rewards; the others (I,).

    runs: those of the study, the first of the R; scores from outside come after them, and may lack items (NaN).
    length (2, I): of better and worse, in tokens of the first run, or in characters, as `unit` says.
    left_out: preferences that some run did not have, because other rows were too long for its tokenizer, say.
    key: which preference each item is: comparison, id, better, worse (places of responses), and how many responses.
    verdicts: arms that say who is preferred and not by how much, so that their gap is 1, -1 or 0.
    gold: of each comparison the true rewards of its responses, of a set without runs; empty where they are not known.
    """

    runs: list[Run]
    arm: np.ndarray
    seed: np.ndarray
    better: np.ndarray
    worse: np.ndarray
    length: np.ndarray
    prompt: np.ndarray  # 0 .. G - 1
    strength: np.ndarray
    probability: np.ndarray
    subset: np.ndarray
    left_out: int = 0
    key: pd.DataFrame = field(default_factory=pd.DataFrame)
    verdicts: frozenset[str] = frozenset()
    unit: str = "tokens"
    gold: Mapping[int, Sequence[float]] = field(default_factory=dict)

    @property
    def gap(self) -> np.ndarray:
        """(R, I) how much more reward the better response has than the worse."""
        return self.better - self.worse

    def values(self) -> np.ndarray:
        """(R, M, I) of METRICS; NaN where a preference does not count or has no score; of verdicts all but accuracy."""
        gap, unknown = self.gap, np.isnan(self.gap)
        each = per_preference(np.where(unknown, 0.0, gap), np.broadcast_to(self.probability, gap.shape))
        values = np.stack([np.where(unknown, np.nan, each[metric]) for metric in METRICS], axis=1)
        values[np.isin(self.arm, sorted(self.verdicts)), 1:] = np.nan
        return values

    @property
    def largest(self) -> tuple[float, float]:
        """(share of the preferences that the largest prompt holds, (sum n)^2 / sum n^2 prompts in effect)."""
        sizes = np.bincount(self.prompt).astype(float)
        return float(sizes.max() / sizes.sum()), float(sizes.sum() ** 2 / (sizes**2).sum())

    def length_wins(self) -> np.ndarray:
        """(I,) accuracy of always preferring the longer response; half where both are as long."""
        each = per_preference(self.length[0] - self.length[1], self.probability)
        return each["accuracy"]

    def of_arms(self, keep: np.ndarray) -> "Items":
        """Those of the R whose place is True in keep (R,)."""
        runs = [run for run, stays in zip(self.runs, keep, strict=False) if stays]
        rows = {name: getattr(self, name)[keep] for name in ("arm", "seed", "better", "worse")}
        return replace(self, runs=runs, **rows)

    def subsets(self) -> list[str]:
        """Those of the set, by name; none where there is only one."""
        names = sorted(set(self.subset.tolist()))
        return names if len(names) > 1 else []

    def of_subset(self, name: str) -> "Items":
        """The preferences of one subset."""
        mine = self.subset == name
        return replace(
            self,
            better=self.better[:, mine],
            worse=self.worse[:, mine],
            length=self.length[:, mine],
            prompt=np.unique(self.prompt[mine], return_inverse=True)[1],
            strength=self.strength[mine],
            probability=self.probability[mine],
            subset=self.subset[mine],
            key=self.key[mine] if len(self.key) else self.key,
        )


def set_names(study: Study) -> list[str]:
    """Evaluation sets that any run was scored on."""
    return list(dict.fromkeys(name for run in study.finished for name in run.metrics["eval"]))


def load_items(study: Study, name: str) -> Items:
    """Of one evaluation set, from scores/NAME.parquet of every finished run that has it, the last of an arm's seed.

    A run whose scores cannot be read, or are no numbers, counts as damaged from then on, and the study's notes say so.
    """
    read = {}
    for run in [run for run in study.finished if run.out.has_scores(name)]:
        try:
            read[run.arm, run.seed] = run, readable_preferences(run, name)
        except UserError as error:
            run.is_damaged(str(error))
            study.notes.append(f"{run.out.name} ({run.arm}, seed {run.seed}) is damaged: {error}")
    runs = [run for run, _ in read.values()]
    if not runs:
        raise UserError(f"{study.name}: no run has kept scores/{name}.parquet")
    tables = in_common([table for _, table in read.values()], runs, name)
    if not tables:
        raise UserError(f"the runs of {study.name} have no items of {name} in common; were they split alike?")
    first = tables[0]
    for run, table in zip(runs, tables, strict=True):
        if not table[LABELS].equals(first[LABELS]):
            raise UserError(
                f"{run.out.name} and {runs[0].out.name} were scored on {name} with different labels (strength or "
                "probability of a preference); arms can be compared on the same labels only"
            )
    return Items(
        runs=runs,
        arm=np.array([run.arm for run in runs]),
        seed=np.array([run.seed for run in runs]),
        better=np.stack([table["reward_better"].to_numpy(float) for table in tables]),
        worse=np.stack([table["reward_worse"].to_numpy(float) for table in tables]),
        length=np.stack([first["length_better"], first["length_worse"]]),
        prompt=pd.factorize(first["prompt"])[0],
        strength=first["strength"].to_numpy(float),
        probability=first["probability"].to_numpy(float),
        subset=subsets_of(first["subset"]),
        left_out=max(run_items(run, name) for run in runs) - len(first),
        key=first[KEY].reset_index(drop=True),
    )


def subsets_of(names: pd.Series) -> np.ndarray:
    """(I,) the subset of each item; `none` for one of no subset, where others have one."""
    return (names.replace("", "none") if names.nunique() > 1 else names).to_numpy()


def in_common(tables: list[pd.DataFrame], runs: list[Run], name: str) -> list[pd.DataFrame]:
    """The same preferences in the same order in all tables; nothing where fewer than two prompts are in all."""
    common = tables[0][IDENTITY]
    if all(table[IDENTITY].equals(common) for table in tables[1:]):
        return tables
    if any(run.config["data"].get("group_by_prompt") for run in runs):
        raise UserError(
            f"the rows of {name} differ between runs, and data.group_by_prompt merged them, so that nobody can "
            "tell which responses are the same; train without it to compare these arms"
        )
    for table in tables[1:]:
        common = common.merge(table[IDENTITY])
    if common["prompt"].nunique() < 2:
        return []
    return [common.merge(table, how="left", on=IDENTITY) for table in tables]


def run_items(run: Run, name: str) -> int:
    """Preferences that the run was scored on, those included that other runs do not have."""
    return int(run.metrics["eval"][name]["preferences"])


def readable_preferences(run: Run, name: str) -> pd.DataFrame:
    """`read_preferences`; UserError where rewards are no numbers, or where what is kept is not what was written."""
    try:
        table = read_preferences(run, name)
    except (OSError, KeyError, ValueError, TypeError) as error:  # pyarrow's errors are some of these
        raise UserError(f"scores/{name}.parquet cannot be read ({first_line(error)})") from error
    rewards = table[["reward_better", "reward_worse"]].to_numpy(float)
    if not np.isfinite(rewards).all():
        number = int((~np.isfinite(rewards)).any(axis=1).sum())
        raise UserError(f"scores/{name}.parquet has {number:,} preferences whose rewards are no numbers")
    return table


def read_preferences(run: Run, name: str) -> pd.DataFrame:
    """The preferences of a run with what identifies them and the rewards and lengths of their two responses."""
    scores, pairs = (read_table(file) for file in run.out.score_files(name))
    place = pd.MultiIndex.from_frame(scores[["comparison", "response"]])
    for side in ("better", "worse"):
        rows = place.get_indexer(pd.MultiIndex.from_arrays([pairs["comparison"], pairs[side]]))
        for column in ("reward", "length"):
            pairs[f"{column}_{side}"] = scores[column].to_numpy()[rows]
    for column in ("prompt", "id", "subset"):  # rows: of the worse response, which is of the same comparison
        pairs[column] = scores[column].to_numpy()[rows]
    pairs["responses"] = pairs["comparison"].map(scores.groupby("comparison").size())
    pairs["copy"] = pairs.groupby(IDENTITY[:-1], sort=False).cumcount()  # of a row that is there twice
    return pairs


def texts_of_set(items: Mapping[str, Items], name: str) -> pd.DataFrame | None:
    """comparison, prompt, responses: excerpts, as the first run of the set kept them; None where it kept none.

    items: as they were loaded, for `comparison` is a place in the set of that run.
    """
    file = texts_beside(items[name].runs[0].out.scores_file(name))
    return read_table(file)[list(TEXTS)] if file.exists() else None


def presented(
    study: Study, items: Mapping[str, Items], rename: Mapping[str, str], order: Sequence[str]
) -> tuple[Study, dict[str, Items]]:
    """Both with arms called and put in order as asked for; the baseline stays first.

    rename: arm -> its new name. order: new or old names, those that are not named come last. UserError for a name that
    is none.
    """
    new = {arm: arm for arm in study.arms}
    for old, name in rename.items():
        new[find_arm(old, study.values, study.tune, "--rename")] = name
    if len(set(new.values())) < len(new):
        raise UserError("--rename: two arms would have the same name")
    arm_of = {name: arm for arm, name in new.items()}
    asked = [arm_of.get(name) or find_arm(name, study.values, study.tune, "--order") for name in order]
    arms = list(dict.fromkeys([study.baseline, *asked, *study.arms]))
    for arm, runs in study.arms.items():
        for run in runs:
            run.arm = new[arm]
    shown = replace(
        study,
        arms={new[arm]: study.arms[arm] for arm in arms},
        values={new[arm]: study.values[arm] for arm in arms},
        baseline=new[study.baseline],
    )
    return shown, {name: replace(i, arm=np.array([new[str(arm)] for arm in i.arm])) for name, i in items.items()}
