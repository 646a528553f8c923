"""The texts of synthetic preferences: prompts, and answers whose attributes are known."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

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
ATTRIBUTES = ("topic", "form", "tone", "hedge", "length")

Asked = tuple[str, str, str, str]  # name, place, topic, form


def all_prompts() -> list[Asked]:
    """Every distinct prompt."""
    return list(itertools.product(NAMES.split(), PLACES.split(), TOPICS.split(), FORMS))


def prompt_text(asked: Asked) -> str:
    """What the user says."""
    name, place, topic, form = asked
    return f"{name} from {place} asks : tell me about {topic} , {form} ."


def respond(rng: np.random.Generator, topic: str, form: str, more: int) -> tuple[str, dict[str, float]]:
    """One random answer and its ATTRIBUTES. more: filler sentences beyond the usual one to four."""
    right_topic, right_form = rng.random() < 0.5, rng.random() < 0.5
    about = topic if right_topic else pick(rng, [t for t in TOPICS.split() if t != topic])
    opening = FORMS[form] if right_form else FORMS[pick(rng, [f for f in FORMS if f != form])]
    tone = pick(rng, list(TONES))
    hedges = int(rng.integers(0, 3))
    length = int(rng.integers(0, 4)) + more
    words = [pick(rng, TONES[tone]), "here is something about", about]
    words += [*(HEDGES[i] for i in rng.integers(len(HEDGES), size=hedges)), opening]
    words += [FILLER[i] for i in rng.integers(len(FILLER), size=length + 1)]
    return " ".join(words), {
        "topic": float(right_topic),
        "form": float(right_form),
        "tone": {"polite": 1.0, "plain": 0.0, "rude": -1.0}[tone],
        "hedge": float(hedges),
        "length": float(length),
    }


def pick(rng: np.random.Generator, options: list[str]) -> str:
    """`rng.choice(options)`, the same draw without making an array of them: ten times as fast."""
    return options[rng.integers(len(options))]


def weighted(weights: Mapping[str, Any], attributes: Mapping[str, float]) -> float:
    """The sum of the attributes that have weights, times those."""
    return sum(weights[name] * value for name, value in attributes.items() if name in weights)
