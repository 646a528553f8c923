"""Preferences with a known truth: gold rewards are a weighted sum of attributes, labels are Bradley-Terry on them.

The best reachable accuracy is therefore known (that of the gold rewards on the very same labels), and studies of
margins, centering, ensembles or over-optimisation have a ground truth to be judged by.
"""

import itertools
import json
from collections.abc import Mapping
from math import inf, isfinite
from typing import TYPE_CHECKING

import numpy as np

from rmlab.data import DATASETS, ROW
from rmlab.messages import UserError, check_seed

if TYPE_CHECKING:
    from datasets import Dataset

NAMES = (
    "Ada Ben Cleo Dan Eve Finn Gus Hana Ivan Joy Kai Lena Milo Nora Otis Pia Quin Rosa Sam Tara Uma Vic Wren Zoe "
    "Abe Bea Cyd Dov Eli Fay Gil Hugo Ines Jon Kim Leo Mia Ned Ola Pam"
)
PLACES = (
    "Oslo Lima Cairo Kyoto Paris Quito Delhi Turin Accra Perth Tunis Miami Seoul Dakar Porto Malmo Leeds Natal "
    "Basel Bergen Bonn Cork Genoa Ghent Graz Hanoi Izmir Kiel Lagos Lille Lyon Minsk Nice Osaka Pune Riga Rome Salem "
    "Split Tampa"
)
TOPICS = "rivers bread chess stars"
FORMS = {  # what the prompt asks for: how a response that complies begins its body
    "in one line": "in short :",
    "as steps": "step one , then step two :",
    "with an example": "for example :",
}
TONES = {"polite": ["Gladly ,", "Of course ,"], "plain": ["So ,", "Well ,"], "rude": ["Ugh , fine ,", "Whatever ,"]}
HEDGES = ["maybe", "perhaps", "I guess"]
FILLER = [
    "people talk about this a lot .",
    "there is more to read on it .",
    "it has a long history .",
    "many books cover it .",
    "some of it is well known .",
]
CORPUS = " ".join([NAMES, PLACES, TOPICS, *FORMS, *FORMS.values(), *itertools.chain(*TONES.values()), *HEDGES, *FILLER])
CORPUS += " asks from : tell me about , here is something"


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
) -> "Dataset":
    """`prompts` native rows with `responses` answers each, all C(K, 2) preferences, and the gold rewards.

    Annotators see gold / temperature plus Gumbel noise on each response, so a preference is exactly Bradley-Terry,
    P(i beats j) = sigma((gold_i - gold_j) / temperature), and K > 2 rankings are Plackett-Luce. The perceived
    difference |d| is graded into strength min(ceil |d|, grades) / grades; |d| < tie_width is a tie (Rao-Kupper);
    label_noise is the share of preferences flipped at random. `weights` are those of `topic` and `form` (both need
    the prompt), `tone`, `hedge` and the nuisance `length` (per filler sentence).
    """
    from datasets import Dataset

    for name, count, least in (("prompts", prompts, 1), ("responses", responses, 2), ("grades", grades, 1)):
        check_whole(name, count, least)
    check_seed("the synthetic seed", seed)
    check_range("temperature", temperature, least=1e-6)
    check_range("tie_width", tie_width, least=0.0)
    check_range("label_noise", label_noise, least=0.0, most=1.0)
    check_weights(weights)
    rng = np.random.default_rng(seed)
    asked = list(itertools.product(NAMES.split(), PLACES.split(), TOPICS.split(), FORMS))
    if prompts > len(asked):
        raise UserError(f"the synthetic generator has {len(asked)} distinct prompts, data asks for {prompts}")
    rows = []
    for index in rng.permutation(len(asked))[:prompts]:
        name, place, topic, form = asked[index]
        answers, gold = zip(*(respond(rng, topic, form, weights) for _ in range(responses)), strict=True)
        perceived = np.array(gold) / temperature + rng.gumbel(size=responses)
        row = {
            "prompt": [{"role": "user", "content": f"{name} from {place} asks : tell me about {topic} , {form} ."}],
            "responses": [[{"role": "assistant", "content": answer}] for answer in answers],
            "preferences": [
                judge(rng, i, j, perceived[i] - perceived[j], grades, tie_width, label_noise)
                for i, j in itertools.combinations(range(responses), 2)
            ],
            "gold_rewards": list(gold),
        }
        rows.append(json.dumps(row))
    return Dataset.from_dict({ROW: rows})


def check_whole(name: str, value: int, least: int) -> None:
    """UserError unless the option is a whole number of at least `least`."""
    if not isinstance(value, int) or value < least:
        raise UserError(f"the synthetic {name} is {value!r}; it must be a whole number of at least {least}")


def check_range(name: str, value: float, least: float, most: float = inf) -> None:
    """UserError unless the option is a finite number from `least` to `most`."""
    if not least <= value <= most or value == inf:
        wanted = f"at least {least:g} and finite" if most == inf else f"between {least:g} and {most:g}"
        raise UserError(f"the synthetic {name} is {value!r}; it must be {wanted}")


def check_weights(weights: Mapping[str, float]) -> None:
    """UserError unless each attribute has a finite weight."""
    known = {"topic", "form", "tone", "hedge", "length"}
    if set(weights) != known:
        raise UserError(f"the synthetic weights are {sorted(known)}, the config gives {sorted(weights)}")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight):
            raise UserError(f"the synthetic weights.{name} is {weight!r}, not a finite number")


def respond(rng: np.random.Generator, topic: str, form: str, weights: dict[str, float]) -> tuple[str, float]:
    """One random answer and its gold reward."""
    right_topic, right_form = rng.random() < 0.5, rng.random() < 0.5
    about = topic if right_topic else pick(rng, [t for t in TOPICS.split() if t != topic])
    opening = FORMS[form] if right_form else FORMS[pick(rng, [f for f in FORMS if f != form])]
    tone = pick(rng, list(TONES))
    hedges = int(rng.integers(0, 3))
    length = int(rng.integers(0, 4))
    words = [pick(rng, TONES[tone]), "here is something about", about]
    words += [*(HEDGES[i] for i in rng.integers(len(HEDGES), size=hedges)), opening]
    words += [FILLER[i] for i in rng.integers(len(FILLER), size=length + 1)]
    attributes = {
        "topic": float(right_topic),
        "form": float(right_form),
        "tone": {"polite": 1.0, "plain": 0.0, "rude": -1.0}[tone],
        "hedge": float(hedges),
        "length": float(length),
    }
    return " ".join(words), sum(weights[name] * value for name, value in attributes.items())


def pick(rng: np.random.Generator, options: list[str]) -> str:
    """`rng.choice(options)`, the same draw without making an array of them: ten times as fast."""
    return options[rng.integers(len(options))]


def judge(
    rng: np.random.Generator, i: int, j: int, perceived: float, grades: int, tie_width: float, label_noise: float
) -> dict[str, float]:
    """The preference that an annotator states, who perceives response i better than j by `perceived`."""
    if abs(perceived) < tie_width:
        return {"better": i, "worse": j, "strength": 0.0, "probability": 0.5}
    if rng.random() < label_noise:
        perceived = -perceived
    better, worse = (i, j) if perceived > 0 else (j, i)
    strength = min(np.ceil(abs(perceived)), grades) / grades
    return {"better": better, "worse": worse, "strength": float(strength), "probability": 1.0}
