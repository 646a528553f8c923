"""Preferences with a known truth: gold rewards are a weighted sum of attributes, labels are Bradley-Terry on them.

The best reachable accuracy is therefore known (that of the gold rewards on the very same labels), and studies of
margins, centering, ensembles or over-optimisation have a ground truth to be judged by.
"""

import itertools
import json
import sys
from collections.abc import Mapping
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from rmlab.data import DATASETS, ROW
from rmlab.data.synthetic_judges import hired, judge, rated
from rmlab.data.synthetic_texts import ATTRIBUTES, Asked, all_prompts, prompt_text, respond, weighted
from rmlab.messages import UserError, check_seed

if TYPE_CHECKING:
    from datasets import Dataset

WHOLE = ("prompt", "preferences")  # lists of a row that are not of its responses


@DATASETS.register
def synthetic(
    *,
    prompts: int,
    responses: int,
    temperature: float,
    weights: dict[str, float],
    grades: int,
    tie_width: float,
    label_noise: float,
    seed: int,
    # What configs of earlier versions do not say: values that change nothing.
    skip: int = 0,
    stated: int | None = None,
    long_tail: float = 0.0,
    biases: Mapping[str, float] | None = None,
    annotators: Mapping[str, Any] | None = None,
    ratings: Mapping[str, Any] | None = None,
    apart: bool = False,
) -> "Dataset":
    """`prompts` native rows with `responses` answers each, preferences between them, and the gold rewards.

    Annotators see gold / temperature plus Gumbel noise on each response, so a preference is exactly Bradley-Terry,
    P(i beats j) = sigma((gold_i - gold_j) / temperature), and K > 2 rankings are Plackett-Luce. The perceived
    difference |d| is graded into strength min(ceil |d|, grades) / grades; |d| < tie_width is a tie (Rao-Kupper);
    label_noise is the share of preferences flipped at random, which say so: `flipped`. `weights` are those of `topic`
    and `form` (both need the prompt), `tone`, `hedge` and the nuisance `length` (per filler sentence).

    Args:
        skip: leave out the prompts of so many rows, which another set of the same seed has.
        stated: so many of the C(K, 2) preferences of a row, drawn at random; None: all of them.
        long_tail: mean of a geometric number of further filler sentences in each answer.
        biases: what annotators like beyond gold, by attribute.
        annotators: {count, taste, care}: each row is judged by one of so many, who is its `user`; `taste` is the sd of
            what an attribute is worth to one beyond gold and biases, `care` that of the logarithm of its temperature.
        apart: a row for each preference, rather than one for each prompt.
        ratings: {attributes, noise, growth}: rows get `ratings` and `rating_variance`, see `synthetic_judges.rated`.
    """
    from datasets import Dataset

    biases, annotators, ratings = dict(biases or {}), dict(annotators or {}), dict(ratings or {})
    counts = {"prompts": (prompts, 1), "responses": (responses, 2), "grades": (grades, 1), "skip": (skip, 0)}
    check_counts({**counts, "stated": (1 if stated is None else stated, 1)}, seed)
    check_range("temperature", temperature, least=1e-6)
    check_range("tie_width", tie_width, least=0.0)
    check_range("label_noise", label_noise, least=0.0, most=1.0)
    check_range("long_tail", long_tail, least=0.0)
    check_weights(weights, biases)
    check_annotators(annotators)
    check_ratings(ratings)
    # A generator each, so that what is asked of annotators changes no text.
    rng, tails, further = (np.random.default_rng(of) for of in (seed, [seed, skip, 1], [seed, skip, 3]))
    asked = chosen(rng, prompts, skip)
    rng = np.random.default_rng([seed, skip]) if skip else rng
    staff = hired(np.random.default_rng([seed, 2]), temperature, biases, annotators)  # the same people for all sets
    pairs = list(itertools.combinations(range(responses), 2))
    if stated is not None and stated > len(pairs):
        raise UserError(f"the synthetic stated is {stated}; {responses} responses have {len(pairs)} preferences")
    rows = []
    for one in asked:
        more = tails.geometric(1 / (1 + long_tail), size=responses) - 1
        answers, attributes = zip(*(respond(rng, *one[2:], int(extra)) for extra in more), strict=True)
        gold = [weighted(weights, of) for of in attributes]
        who = staff[further.integers(len(staff))]
        perceived = who.sees(gold, attributes) + rng.gumbel(size=responses)
        those = pairs if stated is None else [pairs[n] for n in further.permutation(len(pairs))[:stated]]
        row = {
            "prompt": [{"role": "user", "content": prompt_text(one)}],
            "responses": [[{"role": "assistant", "content": answer}] for answer in answers],
            "preferences": [
                judge(rng, i, j, perceived[i] - perceived[j], grades, tie_width, label_noise) for i, j in those
            ],
            "gold_rewards": gold,
            **({"user": who.user} if annotators else {}),
            **(rated(further, gold, attributes, ratings) if ratings else {}),
        }
        rows += [json.dumps(one) for one in (pairs_of(row) if apart else [row])]
    return Dataset.from_dict({ROW: rows})


def pairs_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each preference of a row as a row of its own, with what belongs to its two responses."""
    number = len(row["responses"])
    return [
        {
            **{
                k: [v[i], v[j]] if isinstance(v, list) and k not in WHOLE and len(v) == number else v
                for k, v in row.items()
            },
            "preferences": [{**preference, "better": int(better > worse), "worse": int(better < worse)}],
        }
        for preference in row["preferences"]
        for better, worse in [(preference["better"], preference["worse"])]
        for i, j in [sorted((better, worse))]
    ]


def chosen(rng: np.random.Generator, prompts: int, skip: int) -> list[Asked]:
    """So many prompts in random order, after the first `skip`. UserError where there are not as many."""
    every = all_prompts()
    if skip + prompts > len(every):
        beyond = f" after the {skip} that are skipped" * bool(skip)
        raise UserError(f"the synthetic generator has {len(every)} distinct prompts, data asks for {prompts}{beyond}")
    return [every[index] for index in rng.permutation(len(every))[skip : skip + prompts]]


def check_counts(options: Mapping[str, tuple[int, int]], seed: int) -> None:
    """UserError unless each option is a whole number of at least what stands beside it, and the seed is one."""
    for name, (count, least) in options.items():
        check_whole(name, count, least)
    check_seed("the synthetic seed", seed)


def check_whole(name: str, value: Any, least: int) -> None:
    """UserError unless the option is a whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise UserError(f"the synthetic {name} is {value!r}; it must be a whole number of at least {least}")


def check_range(name: str, value: Any, least: float, most: float = inf) -> None:
    """UserError unless the option is a finite number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most or value == inf:
        wanted = f"at least {least:g} and finite" if most == inf else f"between {least:g} and {most:g}"
        raise UserError(f"the synthetic {name} is {value!r}; it must be {wanted}")


def check_numbers(option: str, values: Mapping[str, Any]) -> None:
    """UserError unless each name is an attribute, and has a finite number."""
    for name, value in values.items():
        if name not in ATTRIBUTES:
            raise UserError(f"the synthetic {option} are {sorted(ATTRIBUTES)}, the config gives {sorted(values)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise UserError(f"the synthetic {option}.{name} is {value!r}, not a finite number")


def check_weights(weights: Mapping[str, float], biases: Mapping[str, float]) -> None:
    """UserError unless every attribute has a weight, and biases are of some."""
    if set(weights) != set(ATTRIBUTES):
        raise UserError(f"the synthetic weights are {sorted(ATTRIBUTES)}, the config gives {sorted(weights)}")
    check_numbers("weights", weights)
    check_numbers("biases", biases)


def check_annotators(options: Mapping[str, Any]) -> None:
    """UserError unless they are none, or count, taste and care."""
    if options and set(options) != {"count", "taste", "care"}:
        raise UserError(f"the synthetic annotators are count, taste and care, the config gives {sorted(options)}")
    if options:
        check_whole("annotators.count", options["count"], 1)
        for name in ("taste", "care"):
            check_range(f"annotators.{name}", options[name], least=0.0)


def check_ratings(options: Mapping[str, Any]) -> None:
    """UserError unless they are none, or attributes, noise and growth."""
    if options and set(options) != {"attributes", "noise", "growth"}:
        raise UserError(f"the synthetic ratings are attributes, noise and growth, the config gives {sorted(options)}")
    known = (*ATTRIBUTES, "gold")
    if options and not (options["attributes"] and set(options["attributes"]) <= set(known)):
        raise UserError(f"the synthetic ratings.attributes are some of {list(known)}, not {options['attributes']!r}")
    if options:
        check_range("ratings.noise", options["noise"], least=0.0)
        check_range("ratings.growth", options["growth"], least=-sys.float_info.max)
