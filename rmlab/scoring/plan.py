"""Token trees -> one flat row in which every token that responses share is there once, and who sees whom in it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from rmlab.data.trees import common_prefix


@dataclass(frozen=True)
class Chain:
    """A run of tokens without a branch: [start, end) of the flat row, seeing itself and all of its ancestors."""

    start: int
    end: int
    ancestors: tuple[tuple[int, int], ...] = ()  # slices of the flat row, from the root on

    @property
    def path(self) -> tuple[tuple[int, int], ...]:
        """The slices that spell a response which ends here."""
        return (*self.ancestors, (self.start, self.end))

    @property
    def depth(self) -> int:
        """Position of the first own token."""
        return sum(end - start for start, end in self.ancestors)


@dataclass
class Plan:
    """Where the R responses of a batch lie in its flat row of T tokens, depth first."""

    chains: list[Chain]  # in order, covering [0, T)
    responses: list[int]  # (R,) the chain that ends each response
    causal: bool = True  # False for encoders: every chain is a whole response that sees all of itself
    calls: int = 0  # of the attention function in the last forward, to be sure that no layer goes without
    only_read: bool = True  # whether the last layer computes the places that are read, or all of them
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def to(self, device: torch.device, non_blocking: bool = False) -> "Plan":
        """The plan for another device; its tensors are made there when they are first asked for."""
        return Plan(self.chains, self.responses, self.causal, device=torch.device(device))

    @cached_property
    def groups(self) -> list[tuple[int, int]]:
        """Slices of the row that see nothing outside themselves: the trees of the forest."""
        starts = [chain.start for chain in self.chains if not chain.ancestors]
        return list(zip(starts, [*starts[1:], self.tokens], strict=True))

    @cached_property
    def shares(self) -> bool:
        """Whether there are tokens that several responses see."""
        return any(chain.ancestors for chain in self.chains)

    @property
    def tokens(self) -> int:
        """T, the length of the flat row."""
        return self.chains[-1].end

    @property
    def lengths(self) -> list[int]:
        """(R,) tokens of each response, as if it lay alone."""
        return [self.chains[c].depth + self.chains[c].end - self.chains[c].start for c in self.responses]

    def position_ids(self) -> Tensor:
        """(1, T) the position that each token has in the responses it belongs to."""
        return torch.cat([torch.arange(c.depth, c.depth + c.end - c.start) for c in self.chains])[None]

    def last(self) -> Tensor:
        """(R,) the place of every response's last token, where decoders are read."""
        return torch.tensor([self.chains[c].end - 1 for c in self.responses])

    def first(self) -> Tensor:
        """(R,) the place of every response's first token, where encoders are read."""
        return torch.tensor([self.chains[c].path[0][0] for c in self.responses])

    def index(self, responses: Sequence[int] | None = None) -> Tensor:
        """(R, L) the place of every token of these responses (of all), right-padded with -1."""
        ends = self.responses if responses is None else [self.responses[r] for r in responses]
        rows = [torch.cat([torch.arange(a, b) for a, b in self.chains[c].path]) for c in ends]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    # ---- what attention needs; made once per batch, used by every layer ----

    def masks(self, window: int | None = None) -> list[Tensor | None]:
        """Per group, (n, n) True where a token may not look; None where nothing is hidden.

        `window`: a token sees those less than `window` positions away.
        """
        if window not in self._masks:
            self._masks[window] = [self._mask(start, end, window) for start, end in self.groups]
        return self._masks[window]

    @cached_property
    def _masks(self) -> dict[int | None, list[Tensor | None]]:
        return {}

    @cached_property
    def _chains_of_groups(self) -> dict[int, list[Chain]]:
        found: dict[int, list[Chain]] = {}
        for chain in self.chains:
            found.setdefault(chain.path[0][0], []).append(chain)
        return found

    def _mask(self, start: int, end: int, window: int | None) -> Tensor | None:
        n = end - start
        if not self.causal and (window is None or window >= n):
            return None
        chains = self._chains_of_groups[start]
        hidden = torch.ones(n, n, dtype=torch.bool).triu(1) if self.causal else torch.zeros(n, n, dtype=torch.bool)
        position = torch.arange(n)
        if len(chains) > 1:
            hidden.fill_(True)
            for chain in chains:
                own = slice(chain.start - start, chain.end - start)
                for a, b in chain.ancestors:
                    hidden[own, a - start : b - start] = False
                hidden[own, own] = torch.ones(chain.end - chain.start, chain.end - chain.start).triu(1).bool()
                position[own] = torch.arange(chain.depth, chain.depth + chain.end - chain.start)
        if window is not None:
            hidden |= (position[:, None] - position[None]).abs() >= window
        return self.put(hidden)

    @cached_property
    def places(self) -> Tensor:
        """(<= R,) the places that rewards are read at, each once."""
        return self.put(torch.tensor(sorted(set((self.last() if self.causal else self.first()).tolist()))))

    @cached_property
    def ragged(self) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """(key_index, cu_q, cu_k, max_q, max_k): chains as queries, each with its ancestors' and its own keys."""
        keys = [torch.cat([torch.arange(a, b) for a, b in chain.path]) for chain in self.chains]
        q, k = [chain.end - chain.start for chain in self.chains], [len(key) for key in keys]
        cu_q, cu_k = (torch.tensor([0, *accumulate(n)], dtype=torch.int32) for n in (q, k))
        return self.put(torch.cat(keys)), self.put(cu_q), self.put(cu_k), max(q), max(k)

    def put(self, tensor: Tensor) -> Tensor:
        """To the plan's device; from pinned memory, so that the device need not be waited for."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def shared_plan(comparisons: Iterable[Sequence[Sequence[int]]]) -> tuple[list[int], Plan]:
    """Flat ids and plan of comparisons, each given by the whole token ids of its responses.

    Responses share their longest common prefixes, at any depth; one may end inside another, or equal it.
    """
    ids: list[int] = []
    chains: list[Chain] = []
    responses: list[int] = []

    def branch(sequences: Sequence[Sequence[int]], members: list[int], depth: int, parent: Chain | None) -> None:
        """Lay out from `depth` on the responses `members`, which agree up to there; parent holds what is before."""
        rest = common_prefix([sequences[m][depth:] for m in members])
        node = parent
        if rest:
            node = Chain(len(ids), len(ids) + len(rest), parent.path if parent else ())
            chains.append(node)
            ids.extend(rest)
        place, depth = len(chains) - 1, depth + len(rest)
        children: dict[int, list[int]] = {}
        for member in members:
            if len(sequences[member]) == depth:
                ends[member] = place
            else:
                children.setdefault(sequences[member][depth], []).append(member)
        for child in children.values():
            branch(sequences, child, depth, node)

    for sequences in comparisons:
        ends: dict[int, int] = {}
        branch(sequences, list(range(len(sequences))), 0, None)
        responses += [ends[m] for m in range(len(sequences))]
    return ids, Plan(chains, responses)


def packed_plan(comparisons: Iterable[Sequence[Sequence[int]]], causal: bool) -> tuple[list[int], Plan]:
    """The same with nothing shared: one response after the other."""
    sequences = [sequence for comparison in comparisons for sequence in comparison]
    ends = list(accumulate(map(len, sequences)))
    chains = [Chain(end - len(sequence), end) for sequence, end in zip(sequences, ends, strict=True)]
    return [token for sequence in sequences for token in sequence], Plan(chains, list(range(len(chains))), causal)
