"""Terms that are one number of a whole optimizer step, exact however the step is split.

A correlation, or the square of a mean, is no mean over the parts of a step. But its gradient is a sum over them: with
g the gradient of such a term in all outputs o of the step, the sum of g * o over any parts has the term's gradient.
So the outputs of the step are computed once without gradients, and then each part is given its g.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rmlab.losses import Preferences, Term


@dataclass(frozen=True)
class Shares:
    """What the terms of a whole step say of one part of it, by name."""

    values: dict[str, Tensor]  # () the term over the step, divided by its parts
    gradients: dict[str, Tensor]  # (R, D) of the term in the outputs of this part

    def of(self, name: str, outputs: Tensor) -> Tensor:
        """() whose sum over the parts is the term, and has its gradient."""
        return self.values[name] + (self.gradients[name] * (outputs - outputs.detach())).sum()


def shares(
    terms: Sequence[Term], parts: Sequence[Preferences], rewards: Callable[[Tensor, Tensor], Tensor]
) -> list[Shares]:
    """Of each part of a step; `terms` are those of whole steps. rewards(outputs, prompt): the head's reduction."""
    sizes = [len(part.rewards) for part in parts]
    whole = joined(parts)
    outputs = whole.column("outputs").detach().requires_grad_()
    with torch.enable_grad():
        whole = replace(whole, outputs=outputs, rewards=rewards(outputs, whole.prompt))
        values = {term.name: term.function(whole) for term in terms}
        split = {name: gradient(value, outputs).split(sizes) for name, value in values.items()}
    each = {name: value.detach() / len(parts) for name, value in values.items()}
    return [Shares(each, {name: of[n] for name, of in split.items()}) for n in range(len(parts))]


def gradient(value: Tensor, outputs: Tensor) -> Tensor:
    """(R, D) of a number in all outputs, 0 where it depends on none."""
    (found,) = torch.autograd.grad(value, outputs, retain_graph=True, materialize_grads=True)
    return found


def joined(parts: Sequence[Preferences]) -> Preferences:
    """The parts as one batch, in their order."""
    responses, prompts = [0], [0]
    for part in parts:
        responses.append(responses[-1] + len(part.rewards))
        prompts.append(prompts[-1] + part.comparisons)
    numbered = list(zip(parts, responses, prompts, strict=False))
    return Preferences(
        rewards=torch.cat([part.rewards for part in parts]),
        better=torch.cat([part.better + first for part, first, _ in numbered]),
        worse=torch.cat([part.worse + first for part, first, _ in numbered]),
        strength=torch.cat([part.strength for part in parts]),
        probability=torch.cat([part.probability for part in parts]),
        prompt=torch.cat([part.prompt + first for part, _, first in numbered]),
        outputs=torch.cat([part.column("outputs") for part in parts]),
        columns={name: torch.cat([part.columns[name] for part in parts]) for name in parts[0].columns},
    )
