"""The terms that come with rmlab, with options, outputs and batches to try them on; not what plugins register."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from conftest import ROOT

from rmlab.heads import outputs_of
from rmlab.losses import BUILT_IN, LOSSES, Preferences, Term, build_loss, read_by

TERMS = [name for name in LOSSES.names() if LOSSES[name].__module__.startswith("rmlab.losses.")]

# Options and D of the head; a term that is not named has none, and D = 1.
OPTIONS = {
    "anchor": ({"count": 3}, 4),
    "bottleneck_kl": ({"over": "dimensions", "limit": 10.0}, 5),
    "bradley_terry": ({"margin": 0.5}, 1),
    "davidson": ({"nu": 0.5}, 1),
    "discrete_margin": ({"levels": [1, 2], "margins": [0.0, 0.5, 1.0], "scales": [1.0, 3.0, 10.0]}, 1),
    "focal": ({"gamma": 2.0}, 1),
    "focal_internlm2": ({"gamma": 2.0}, 1),
    "gaussian_nll": ({"limit": 10.0}, 2),
    "gaussian_preference": ({"limit": 10.0}, 2),
    "general_preference": ({"temperature": 0.5}, 4),
    "grm_dpo": ({"beta": 0.1}, 1),
    "grm_dpo_noref": ({"beta": 0.1}, 1),
    "grm_sft": ({"beta": 0.1}, 1),
    "hinge": ({"gap": 1.0}, 1),
    "length_penalty": ({"alpha": 0.01}, 1),
    "log_barrier": ({"bound": 5.0, "edge": 0.1}, 1),
    "logit_norm": ({"temperature": 1.0, "epsilon": 1e-4}, 1),
    "margin_mse": ({"gap": 1.0}, 1),
    "members": ({"count": 3}, 3),
    "odin_length": ({}, 3),
    "odin_overlap": ({}, 3),
    "odin_preference": ({}, 3),
    "ordinal_ce": ({"grades": [0, 1, 2, 4]}, 4),
    "ordinal_preference": ({}, 4),
    "pinball": ({"levels": [0.1, 0.5, 0.9]}, 3),
    "purm": ({"limit": 10.0, "points": 16}, 2),
    "rao_kupper": ({"theta": 3.0}, 1),
    "regression": ({}, 2),
    "tempered_log": ({"t": 0.8}, 1),
    "top_one": ({"temperature": 2.0}, 1),
}


def built(name: str, **options) -> Term:
    """The term, with the options of the table unless others are given."""
    given, outputs = OPTIONS.get(name, ({}, 1))
    (term,) = build_loss({name: {**given, **options}}, outputs)
    return term


def configs() -> list[Path]:
    """conf/loss, all of it."""
    return sorted((ROOT / "conf" / "loss").rglob("*.yaml"))


def head_of(config: Path) -> list[str]:
    """The head that the first line of a config asks for, `# Head: NAME` or `# Head: NAME key=value`, in words."""
    first = config.read_text().partition("\n")[0]
    asks = first.startswith("# Head: ")
    return first.removeprefix("# Head: ").partition(". ")[0].split() if asks else ["linear"]


def outputs_for(config: Path) -> Sequence[str]:
    """Names of the outputs of that head."""
    kind, *change = head_of(config)
    head = yaml.safe_load((ROOT / "conf" / "model" / "head" / f"{kind}.yaml").read_text())
    for key, _, value in (word.partition("=") for word in change):
        head[kind][key.rpartition(".")[2]] = yaml.safe_load(value)
    return outputs_of(head)


def batch(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Preferences:
    """Three comparisons of 3, 2 and 4 responses, with a tie, votes and strengths; all columns that `name` reads."""
    numbers = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=numbers).to(dtype)

    outputs = normal(9, OPTIONS.get(name, ({}, 1))[1])
    columns = {
        "lengths": torch.tensor([12.0, 30, 7, 8, 9, 40, 22, 5, 16]),
        "logps": 5 * normal(9) - 20,
        "reference_logps": 5 * normal(9) - 20,
    }
    for column, kind in read_by(name).items():
        if column not in BUILT_IN:
            sizes = {"response": (9,), "pair": (6,), "output": outputs.shape}[kind]
            columns[column] = torch.rand(sizes, generator=numbers) * 4
            columns[column].view(-1)[1] = torch.nan  # one that its row does not know
    return Preferences(
        rewards=outputs[:, 0].clone(),
        better=torch.tensor([0, 1, 0, 3, 5, 6]),
        worse=torch.tensor([1, 2, 2, 4, 6, 8]),
        strength=torch.tensor([1.0, 2.0, 3.0, 0.5, 1.5, 2.5]).to(dtype),
        probability=torch.tensor([1.0, 0.8, 1.0, 0.5, 1.0, 0.7]).to(dtype),
        prompt=torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2]),
        outputs=outputs,
        columns={column: values.to(dtype) for column, values in columns.items()},
    )


def moved(preferences: Preferences, change) -> Preferences:
    """`change` made to all that the model says: rewards, outputs and log-probabilities."""
    return replace(
        preferences,
        rewards=change(preferences.rewards),
        outputs=change(preferences.outputs),
        columns={**preferences.columns, "logps": change(preferences.columns["logps"])},
    )


def pairs(preferences: Preferences, chosen: torch.Tensor) -> Preferences:
    """With these of its preferences, in this order."""
    names = ("better", "worse", "strength", "probability")
    return replace(preferences, **{name: getattr(preferences, name)[chosen] for name in names})
