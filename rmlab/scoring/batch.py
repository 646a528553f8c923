"""A batch of comparisons: tokens laid out for the model, and the preferences between their responses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from rmlab.data.trees import TokenTree
from rmlab.heads import Head
from rmlab.losses import Column, Preferences
from rmlab.losses.reduce import Weights
from rmlab.losses.whole import Shares
from rmlab.messages import UserError
from rmlab.metrics.scored import ScoredComparison
from rmlab.model.head import rewards_of
from rmlab.scoring.plan import Plan


@dataclass(frozen=True)
class Padded:
    """R responses, each a row, padded to the longest."""

    input_ids: Tensor  # (R, L)
    attention_mask: Tensor  # (R, L)
    response: Tensor | None = None  # (R, L) which tokens are the response's, where their log-probability is wanted

    @classmethod
    def of(
        cls,
        sequences: Sequence[Sequence[int]],
        pad_token_id: int,
        multiple_of: int | None = None,
        lengths: Sequence[int] | None = None,
    ) -> "Padded":
        """Padded on the right, to a multiple of `multiple_of` where that is given. lengths (R,): of the responses."""
        length = max(map(len, sequences))
        if multiple_of:
            length = -(-length // multiple_of) * multiple_of
        input_ids = torch.full((len(sequences), length), pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for row, sequence in enumerate(sequences):
            input_ids[row, : len(sequence)] = torch.tensor(sequence)
            attention_mask[row, : len(sequence)] = 1
        if lengths is None:
            return cls(input_ids, attention_mask)
        ends, places = attention_mask.sum(-1, keepdim=True), torch.arange(length)
        return cls(input_ids, attention_mask, (places < ends) & (places >= ends - torch.tensor(lengths)[:, None]))


@dataclass(frozen=True)
class Flat:
    """T tokens in one row; or only what frozen layers made of them, where nothing below the head is computed."""

    input_ids: Tensor | None = None  # (1, T)
    position_ids: Tensor | None = None  # (1, T)
    plan: Plan | None = None  # who sees whom
    read: Tensor | None = None  # (R,) where each response's reward is read
    features: Tensor | None = None  # (R, d) of responses, or (T, d) of tokens, see feature_cache.py


@dataclass(frozen=True, eq=False)
class Batch:
    """N comparisons with R responses and P preferences between them.

    Padded responses lie in the order of their rank in the comparison, so that pairs are [chosen..., rejected...] as
    TRL's collator has them; those of a flat row comparison by comparison.
    """

    tokens: Padded | Flat
    better: Tensor  # (P,) index into R
    worse: Tensor  # (P,) index into R
    strength: Tensor  # (P,)
    probability: Tensor  # (P,)
    prompt: Tensor  # (R,) which comparison a response belongs to
    weights: Weights
    columns: dict[str, Tensor]  # lengths (R,), and what the loss reads of the rows, see rmlab.losses.Column
    shares: Shares | None  # of the terms of a whole optimizer step, where this is a part of it
    comparisons: tuple[ScoredComparison, ...]  # (N,) the comparisons themselves, without rewards yet

    def preferences(self, outputs: Tensor, head: Head | None = None, **columns: Tensor) -> Preferences:
        """The batch as losses see it; outputs (R, D) of the head, further columns by name."""
        return Preferences(
            rewards=rewards_of(head, outputs, self.prompt),
            better=self.better,
            worse=self.worse,
            strength=self.strength,
            probability=self.probability,
            prompt=self.prompt,
            outputs=outputs,
            columns={"weight": self.weights.pair, **self.columns, **columns},
        )

    def scored(self, outputs: Tensor, head: Head | None = None, **columns: Tensor) -> list[ScoredComparison]:
        """The comparisons with rewards and outputs (R, D) of their responses, each in the order of its own responses.

        columns: further ones per response (R,), by name.
        """
        rewards, prompt = rewards_of(head, outputs, self.prompt).cpu().numpy(), self.prompt.cpu().numpy()
        values, more = outputs.cpu().numpy(), {name: column.cpu().numpy() for name, column in columns.items()}
        several = outputs.shape[1] > 1
        found = []
        for n, c in enumerate(self.comparisons):
            here = prompt == n
            own = {**c.columns, **{name: column[here, None].tolist() for name, column in more.items()}}
            said = values[here].tolist() if several else []
            found.append(replace(c, rewards=rewards[here].tolist(), outputs=said, columns=own))
        return found

    # ---- what Trainer, accelerate and torch's data loader ask of a batch ----

    def to(self, device: Any, non_blocking: bool = False) -> "Batch":
        """The batch on another device; this one stays as it is."""
        return moved(self, lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, but for its plan, which makes its tensors on the device."""
        return moved(self, lambda x: x if isinstance(x, Plan) else x.pin_memory())

    def __len__(self) -> int:
        return len(self.comparisons)

    def __contains__(self, name: object) -> bool:
        return isinstance(getattr(self.tokens, str(name), None), Tensor)

    def __getitem__(self, name: str) -> Tensor:
        """`input_ids`: Trainer counts the tokens it has seen, and shows them to metrics, by that name."""
        if name not in self:
            raise KeyError(name)
        return getattr(self.tokens, name)


Part = TypeVar("Part", bound=Batch | Padded | Flat | Weights | Shares | Preferences)


def moved(value: Part, change: Callable[[Any], Any]) -> Part:
    """The same with every tensor and plan in it changed."""
    changed: dict[str, Any] = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, Tensor | Plan):
            changed[field.name] = change(part)
        elif isinstance(part, Padded | Flat | Weights | Shares):
            changed[field.name] = moved(part, change)
        elif isinstance(part, dict):
            changed[field.name] = {name: change(column) for name, column in part.items()}
    return replace(value, **changed)


def parts_of(inputs: Any) -> list[Batch]:
    """The micro-batches that a step's inputs were cut into; of a whole batch, itself."""
    parts = inputs if isinstance(inputs, list) else [inputs]
    if not all(isinstance(part, Batch) for part in parts):
        raise UserError(
            f"the data_collator made a {type(parts[0]).__name__}, no rmlab.scoring.batch.Batch; leave it out, or wrap "
            "rmlab.scoring.collator.PreferenceCollator"
        )
    return parts


def unscored(tree: TokenTree, columns: Sequence[Column] = ()) -> ScoredComparison:
    """What evaluation needs to know of a comparison besides its rewards. columns: what the tree's columns are."""
    return ScoredComparison(
        index=tree.index,
        id=tree.id,
        prompt_id=tree.prompt_id,
        subset=tree.subset,
        rewards=[],
        lengths=tree.lengths,
        gold=tree.gold,
        better=tree.better,
        worse=tree.worse,
        strength=tree.strength,
        probability=tree.probability,
        style=tree.style,
        excerpts=tree.excerpts,
        weight=tree.weight,
        columns={
            **{column.name: values for column, values in zip(columns, tree.columns, strict=False)},
            **({"reference_logps": [[value] for value in tree.reference_logps]} if tree.reference_logps else {}),
        },
    )


def floats(values: list[float]) -> Tensor:
    """A float32 tensor (len(values),), also of whole numbers."""
    return torch.tensor(values, dtype=torch.float32)
