"""The items of an evaluation set, the same for all runs of a study: one per preference."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rmlab.messages import UserError
from rmlab.metrics.evaluate import per_preference
from rmlab.report.study import Run, Study

IDENTITY = ["prompt", "id", "better", "worse", "copy"]
LABELS = ["strength", "probability"]
METRICS = ("accuracy", "nll", "brier")  # common to all arms, whatever they were trained on


@dataclass
class Items:
    """R runs, I preferences. gap, better, worse (R, I): rewards; the others (I,).

    length (2, I): of better and worse, in tokens of the first run.
    left_out: preferences that some run did not have, because other rows were too long for its tokenizer, say.
    """

    runs: list[Run]
    arm: np.ndarray  # (R,) str
    seed: np.ndarray  # (R,) int
    better: np.ndarray
    worse: np.ndarray
    length: np.ndarray
    prompt: np.ndarray  # 0 .. G - 1
    strength: np.ndarray
    probability: np.ndarray
    subset: np.ndarray
    left_out: int = 0

    @property
    def gap(self) -> np.ndarray:
        """(R, I) how much more reward the better response has than the worse."""
        return self.better - self.worse

    def values(self) -> np.ndarray:
        """(R, M, I) of METRICS; NaN where a preference does not count."""
        each = per_preference(self.gap, np.broadcast_to(self.probability, self.gap.shape))
        return np.stack([each[metric] for metric in METRICS], axis=1)


def set_names(study: Study) -> list[str]:
    """Evaluation sets that any run was scored on."""
    return list(dict.fromkeys(name for run in study.finished for name in run.metrics["eval"]))


def load_items(study: Study, name: str) -> Items:
    """Of one evaluation set, from scores/NAME.parquet of every finished run that has it."""
    runs = [run for run in study.finished if run.out.has_scores(name)]
    if not runs:
        raise UserError(f"{study.folder}: no run has kept scores/{name}.parquet")
    tables = in_common([read_preferences(run, name) for run in runs], runs, name)
    if not tables:
        raise UserError(f"the runs of {study.folder} have no items of {name} in common; were they split alike?")
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
        subset=first["subset"].to_numpy(),
        left_out=max(run_items(run, name) for run in runs) - len(first),
    )


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


def read_preferences(run: Run, name: str) -> pd.DataFrame:
    """The preferences of a run with what identifies them and the rewards and lengths of their two responses."""
    kept = run.out.scores(name)
    scores, pairs = kept.responses, kept.preferences
    place = pd.MultiIndex.from_frame(scores[["comparison", "response"]])
    for side in ("better", "worse"):
        rows = place.get_indexer(pd.MultiIndex.from_arrays([pairs["comparison"], pairs[side]]))
        for column in ("reward", "length"):
            pairs[f"{column}_{side}"] = scores[column].to_numpy()[rows]
    for column in ("prompt", "id", "subset"):  # rows: of the worse response, which is of the same comparison
        pairs[column] = scores[column].to_numpy()[rows]
    pairs["copy"] = pairs.groupby(IDENTITY[:-1], sort=False).cumcount()  # of a row that is there twice
    return pairs
