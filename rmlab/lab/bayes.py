"""A run's linear head as a posterior: how unsure it is of each preference, and what that tells of errors."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rmlab.messages import UserError, say
from rmlab.registry import import_plugins
from rmlab.runner.directory import RunDirectory

if TYPE_CHECKING:  # imported by the task itself: --help must not wait for them
    import pandas as pd

    from rmlab.data.sets import Sets
    from rmlab.lab.beliefs import Belief
    from rmlab.lab.laplace import Posterior
    from rmlab.metrics.scored import ScoredComparison
    from rmlab.scoring.reward_model import RewardModel


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `rmlab-lab bayes`."""
    add = parser.add_argument
    add("trained", metavar="RUN", type=Path, help="a finished run that has kept its model")
    add("--prior", type=float, metavar="LAMBDA", help="precision of the weights; default: that of the most evidence")
    add("--width", type=float, default=1.0, metavar="SD", help="a gap of more is confident; default: 1")
    add("--device", help="default: the accelerator, if there is one")
    add("--out", type=Path, help="where to write; default: RUN/lab")


@dataclass(frozen=True)
class Told:
    """What the posterior tells of an evaluation set: its comparisons with rewards, and (P,) sd of their gaps."""

    name: str
    comparisons: list["ScoredComparison"]
    sd: np.ndarray


def run(options: argparse.Namespace) -> None:
    """Write SET.bayes.parquet, a row per preference, and bayes.md. UserError for a run that has no such head."""
    from rmlab.scoring.reward_model import RewardModel

    if options.prior is not None and not 0 < options.prior < float("inf"):
        raise UserError(f"--prior is {options.prior}; a precision is positive and finite")
    out = RunDirectory.of(options.trained)
    if not out.is_finished:
        raise UserError(f"{options.trained} is no finished run")
    sets = sets_of(out)
    if not sets.eval:
        raise UserError(f"{options.trained} has no evaluation set, whose preferences could be doubted")
    model = RewardModel(str(out), device=options.device)
    told, words = posterior_of(model, sets, options.prior)
    write(told, words, out.name, options.width, options.out or options.trained / "lab")


def sets_of(out: RunDirectory) -> "Sets":
    """The run's own, as it was trained and evaluated on them: as long, and without what it had left out."""
    from rmlab.data.sets import Sets, build_sets, load_rows, without_overlap
    from rmlab.model.config import check_architecture
    from rmlab.model.tokenizer import load_tokenizer
    from rmlab.runner.arguments import with_length
    from rmlab.runner.config import Config

    config = Config.of(out.config())
    import_plugins(config.plugins)  # which may bring its data source
    data = with_length(config, check_architecture(config.model.config)).data
    sets = build_sets(load_rows(data), data, load_tokenizer(config.model), config.run.cache)
    left = {name: without_overlap(sets.train, test, name, data.prompt_overlap) for name, test in sets.eval.items()}
    return Sets(sets.train, left)


def posterior_of(model: "RewardModel", sets: "Sets", prior: float | None) -> tuple[list[Told], str]:
    """What it tells of each evaluation set, and of itself in a sentence; of what the training set taught."""
    from rmlab.lab.features import differences, read_features
    from rmlab.lab.laplace import Information, Posterior
    from rmlab.metrics.pairs import Pairs

    weights, train = read_features(model), cast(Any, sets.train)
    information = Information.none(len(weights))
    for scored, z in differences(model, train, "train"):
        if len(z):
            information.add(z, Pairs.of(scored).gap)  # whichever way round, p (1 - p) is the same
    posterior = Posterior.of(information, weights, prior)
    found = [doubts_of(model, posterior, trees, name) for name, trees in sets.eval.items()]
    words = (
        f"Prior: lambda {posterior.prior:.4g}{' (of the most evidence)' * (prior is None)}; "
        f"{information.pairs:,} training preferences decide {posterior.determined:.1f} of {len(weights)} weights."
    )
    return found, words


def doubts_of(model: "RewardModel", posterior: "Posterior", trees: Any, name: str) -> Told:
    """What it tells of a set of token trees."""
    from rmlab.lab.features import differences

    found = []
    for scored, z in differences(model, trees, name):
        sd = iter(posterior.sd(z).tolist())
        found += [(one, [next(sd) for _ in one.better]) for one in scored]
    found.sort(key=lambda each: each[0].index)  # batches are by length
    return Told(name, [one for one, _ in found], np.array([value for _, values in found for value in values]))


def write(found: list[Told], words: str, run: str, width: float, folder: Path) -> None:
    """The files, and the tables on the terminal."""
    import pandas as pd

    from rmlab.lab.coverage import save_figure
    from rmlab.lab.disagreement import FACTS, detection_lines, tables_of
    from rmlab.report.tables import Words, markdown, print_tables

    folder.mkdir(parents=True, exist_ok=True)
    beliefs = [belief_of(told, run) for told in found]
    for told in found:
        preferences_of(told).to_parquet(folder / f"{told.name}.bayes.parquet", index=False)
    lines = [line for belief in beliefs for line in detection_lines(belief, width)]
    tables = [probabilities(beliefs), *tables_of(pd.DataFrame(), pd.DataFrame(lines))]
    told_of = Words(f"A posterior of the head of {run}", [words, FACTS[1]], [])
    (folder / "bayes.md").write_text(markdown(tables, told_of), encoding="utf-8")
    print_tables(tables, told_of)
    save_figure(beliefs, folder, "bayes")
    say(f"{folder}/bayes.md, .png, .pdf, .svg and SET.bayes.parquet")


def belief_of(told: Told, run: str) -> "Belief":
    """As the lab takes it."""
    from rmlab.lab.beliefs import Belief
    from rmlab.metrics.pairs import Pairs

    return Belief(run, told.name, Pairs.of(told.comparisons), told.sd)


def probabilities(beliefs: list["Belief"]) -> Any:
    """A table: accuracy, NLL and ECE of sigma(gap), and of its mean over the posterior, which is nearer a half."""
    import pandas as pd

    from rmlab.lab.laplace import moderated
    from rmlab.metrics.evaluate import preference_metrics
    from rmlab.report.tables import Table, number

    def line(belief: "Belief", of: str, gap: np.ndarray) -> Mapping[str, str]:
        numbers = preference_metrics(gap, belief.pairs.probability)
        known = {title: number(numbers.get(key)) for key, title in TITLES.items()}
        return {"set": belief.of, "probability": of, **known}

    lines = []
    for belief in beliefs:
        lines.append(line(belief, "sigma(gap)", belief.pairs.gap))
        lines.append(line(belief, "its mean over the posterior", moderated(belief.pairs.gap, belief.sd)))
    return Table("Probabilities", pd.DataFrame(lines), "arms")


TITLES = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE"}


def preferences_of(told: Told) -> "pd.DataFrame":
    """comparison, id, better, worse, gap, gap_sd: a row per preference, in the order of the set."""
    import pandas as pd

    rows = [
        {"comparison": c.index, "id": c.id, "better": b, "worse": w, "gap": c.rewards[b] - c.rewards[w]}
        for c in told.comparisons
        for b, w in zip(c.better, c.worse, strict=True)
    ]
    return pd.DataFrame(rows).assign(gap_sd=told.sd)
