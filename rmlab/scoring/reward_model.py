"""A trained reward model: rows of any accepted format in, one fp32 reward per response out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from rmlab.data import Tokenizer
from rmlab.data.columns import where_of
from rmlab.data.config import Options, check_length
from rmlab.data.drafts import Numbered, to_trees
from rmlab.data.excerpts import texts_of
from rmlab.data.render import refuse_dated_template
from rmlab.data.trees import TokenTree
from rmlab.messages import UserError, check_at_least, check_one_of, say
from rmlab.metrics.scored import ScoredComparison
from rmlab.model import faults
from rmlab.model.config import ModelConfig
from rmlab.model.head import base_of, head_of, is_decoder, names_of
from rmlab.model.identity import model_folder, template_of_run
from rmlab.model.load import load_model
from rmlab.model.positions import taken_by
from rmlab.model.reference import read_reference
from rmlab.model.tokenizer import tokenizer_of
from rmlab.scoring.batch import unscored
from rmlab.scoring.collator import PreferenceCollator
from rmlab.scoring.contexts import device_named, evaluating, same_draws
from rmlab.scoring.heads import prepare_for_scoring
from rmlab.scoring.layout import choose
from rmlab.scoring.scorer import Scorer
from rmlab.scoring.windows import Window, ahead, blocks

TOKENS = {"cpu": 4096}  # tokens of a forward by kind of device
TOKENS_ELSEWHERE = 16384
OVERLONG = ("truncate", "error")


class RewardModel:
    """A reward model that is ready to score: a run directory, a saved model, an adapter's folder or a hub name.

    Args:
        path: where it is.
        dtype: of its body, "auto" for that of its file; the head computes in float32.
        device: where to compute; None: the accelerator, if there is one.
        max_length: tokens of a response with its prompt; auto: as many as the model has positions for.
        overlong: what becomes of longer ones: truncate (the oldest tokens of the prompt, then the end of the response)
            or error.
        tokens_per_batch: how many tokens one forward computes at most; None: what suits the device. It changes no
            reward.
        chat_template_kwargs: variables of the chat template; None: those that a run directory was trained with.
        normalise: (reward - mean) / std by the rmlab_reward.json beside the weights.

    Raises UserError if it cannot be loaded.
    """

    folder: str | None = None  # of its weights; None where it was in memory

    def __init__(
        self,
        path: str,
        *,
        dtype: str = "float32",
        device: str | None = None,
        max_length: int | str | None = "auto",
        overlong: str = "truncate",
        tokens_per_batch: int | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
        normalise: bool = False,
    ) -> None:
        check_options(max_length, overlong, tokens_per_batch)
        folder, place = model_folder(path), device_named(device)
        reference = read_reference(folder) if normalise else None
        template = template_of_run(path) if chat_template_kwargs is None else chat_template_kwargs
        config = ModelConfig(
            folder, head=None, dtype=dtype, attn_implementation=None, trust_remote_code=trust_remote_code
        )
        faults.refuse_files(config)
        with same_draws():
            model = load_model(config, seed=0)
        own = str(getattr(model, "rmlab_tokenizer", folder))
        tokenizer = tokenizer_of(own, trust_remote_code=trust_remote_code)
        faults.refuse_loaded(model, tokenizer, config)
        faults.tell_servers(model, tokenizer, config)
        if not getattr(base_of(model), "is_quantized", False):  # which is where it was loaded
            cast(nn.Module, model).to(place)
        model.eval()
        self._take(model, tokenizer, str(path), max_length, overlong, tokens_per_batch, template)
        self.reference, self.folder = reference, folder

    @classmethod
    def of(
        cls,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        max_length: int | str | None = "auto",
        overlong: str = "truncate",
        tokens_per_batch: int | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> "RewardModel":
        """One that is in memory, such as that of a trainer, on the device where it is.

        It stays in the mode that it is in. Its `forward` becomes rmlab's (see heads.py), as training makes it too.
        """
        check_options(max_length, overlong, tokens_per_batch)
        made = cls.__new__(cls)
        made._take(model, tokenizer, "the model", max_length, overlong, tokens_per_batch, chat_template_kwargs or {})
        return made

    def _take(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        name: str,
        max_length: int | str | None,
        overlong: str,
        tokens_per_batch: int | None,
        template: Mapping[str, Any],
    ) -> None:
        """Make the model ready. UserError for options that do not fit it."""
        base = base_of(model)
        prepare_for_scoring(base)
        self.model, self.tokenizer, self.name, self.overlong, self.reference = model, tokenizer, name, overlong, None
        self.max_length = usable_length(max_length, base.config.get_text_config().to_dict(), name)
        limit = self.max_length if overlong == "truncate" else None
        self.options = Options(limit, "truncate", template=dict(template))
        refuse_dated_template(tokenizer, {**self.options.template, "tools": None})
        choice, device = choose(model, "auto", trains=False), self.device
        self.collator = PreferenceCollator(
            pad_token_id=padding(tokenizer, base),
            layout=choice.layout,
            causal=is_decoder(base),
            tokens_per_batch=tokens_per_batch or TOKENS.get(device.type, TOKENS_ELSEWHERE),
        )
        self.scorer, self.head = Scorer(choice, self.collator, strict=False), head_of(model)

    @property
    def names(self) -> list[str]:
        """(D,) of what the head returns for a response, see ScoredComparison.outputs; of one output `reward`."""
        return list(names_of(self.head))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.parameters()).device

    @property
    def measured(self) -> dict[str, Any]:
        """What its rewards depend on besides the rows, for who reads them later."""
        dtype = str(base_of(self.model).dtype).removeprefix("torch.")
        told = {"model": self.name, "dtype": dtype, "max_length": self.max_length, "overlong": self.overlong}
        return {**told, "chat_template_kwargs": dict(self.options.template)}

    # ---- scoring ----

    def score(self, rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """fp32 rewards: (N,) of rows of one response each, else (N, K), NaN where a row has fewer.

        Of a pair, chosen and rejected in this order. UserError for a row that cannot be read.
        """
        return as_array([scored.rewards for scored in self.scored(rows, "the data", texts=False)])

    def scored(
        self, rows: Iterable[Mapping[str, Any]], name: str, start: int = 0, texts: bool = True
    ) -> Iterator[ScoredComparison]:
        """The rows with their rewards, in their order, in memory a few hundred at a time.

        rows: in any accepted format, see data/candidates.py; nothing is left out. name: of the data, for errors.
        start: the place of the first row. texts: whether style and excerpts are wanted. Raises UserError for a row that
        cannot be read, and for rewards that are no numbers.
        """
        cut = count = 0
        for window in ahead(self._window(some, texts) for some in blocks(rows, name, start)):
            cut, count = cut + sum(tree.truncated for tree in window.trees), count + len(window.trees)
            yield from self._score(window, name)
        if cut:
            say(f"{name}: {cut:,} of {count:,} rows are longer than {self.max_length:,} tokens and were cut")

    def _window(self, comparisons: Sequence[Numbered], texts: bool) -> Window:
        """Laid out for the model. UserError naming the first row that is bad."""
        trees = to_trees(comparisons, self.tokenizer, self.options)
        for (_, _, where), tree in zip(comparisons, trees, strict=True):
            if not all(tree.responses):
                raise UserError(f"{where}: a response has no token at all, and so no reward")
            if self.head is not None and self.head.compares and len(tree.suffixes) < 2:
                raise UserError(
                    f"{where}: the head `{self.head.kind}` compares responses, and has no reward for one alone; score "
                    "rows of at least two"
                )
            if self.overlong == "error" and self.max_length is not None and tree.longest > self.max_length:
                raise UserError(
                    f"{where}: {tree.longest} tokens, {self.max_length} are read; overlong=truncate cuts the prompt"
                )
        said = [texts_of(comparison) if texts else ([], []) for comparison, _, _ in comparisons]
        known = [
            replace(tree, index=n, style=style, excerpts=excerpts)
            for tree, (_, n, _), (style, excerpts) in zip(trees, comparisons, said, strict=True)
        ]
        return Window.of(known, self.collator, whole=self.head is not None and self.head.compares)

    @torch.no_grad()
    def _score(self, window: Window, name: str) -> list[ScoredComparison]:
        """The rows of a window with their rewards, in their order."""
        found: dict[int, ScoredComparison] = {}
        with evaluating(self.model):
            try:
                if not self.scorer.is_proved:
                    self._prove([piece for _, piece in window.pieces])
                scored = [(batch, self.scorer(self.model, batch.to(self.device))) for batch in window.batches]
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"{self.device} has no memory for {self.collator.tokens_per_batch} tokens in one forward; lower "
                    "tokens_per_batch"
                ) from error
            for batch, values in scored:  # when all are on their way, for reading one waits for the device
                found |= {one.index: one for one in batch.scored(values, self.head)}
        whole = [unscored(tree) for tree in window.trees]
        for n, piece in window.pieces:
            part, so_far = found[piece.index], whole[n]
            whole[n] = replace(so_far, rewards=so_far.rewards + part.rewards, outputs=so_far.outputs + part.outputs)
        return [self._finished(scored, name) for scored in whole]

    def _prove(self, trees: Sequence[TokenTree]) -> None:
        """Of a few trees and the longest, where a wrong place in a flat row would show: in one forward with it."""
        few = [*trees[:7], max(trees, key=lambda tree: tree.longest)]
        batch = self.collator.micro_batches(few)[0]
        self.scorer.prove(self.model, batch.to(self.device), tell=False)

    def _finished(self, scored: ScoredComparison, name: str) -> ScoredComparison:
        """Normalised where that is asked for. UserError for what is no number."""
        if not np.isfinite(scored.rewards).all():
            raise UserError(
                f"{where_of(name, scored.index)}: the reward is {scored.rewards}, no finite number; are the weights "
                "whole, and is dtype=float32?"
            )
        if self.reference is None:
            return scored
        mean, std = self.reference.mean, self.reference.std
        return replace(scored, rewards=[float(np.float32((r - mean) / std)) for r in scored.rewards])


def check_options(max_length: int | str | None, overlong: str, tokens_per_batch: int | None) -> None:
    """UserError for values that no model takes."""
    check_length("max_length", max_length)
    check_one_of("overlong", overlong, OVERLONG)
    check_at_least("tokens_per_batch", tokens_per_batch, 1)


def usable_length(max_length: int | str | None, config: Mapping[str, Any], name: str) -> int | None:
    """Tokens of the longest row that is read whole. UserError for more than the model takes. config: the model's."""
    taken = taken_by(config)
    if isinstance(max_length, str):
        return taken or config.get("max_position_embeddings")
    if taken is not None and max_length is not None and max_length > taken:
        raise UserError(f"max_length={max_length} is beyond the {taken} positions of {name}; lower it")
    return max_length if max_length is not None else taken


def padding(tokenizer: Tokenizer, model: PreTrainedModel) -> int:
    """A token to pad rows with, which is not read: the tokenizer's, where the model has an embedding for it."""
    rows = cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]
    return next(n for n in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if n is not None and n < rows)


def as_array(rewards: Sequence[Sequence[float]]) -> np.ndarray:
    """(N,) where each has one, else (N, K), NaN where one has fewer."""
    longest = max(map(len, rewards), default=1)
    found = np.full((len(rewards), longest), np.nan, dtype=np.float32)
    for n, some in enumerate(rewards):
        found[n, : len(some)] = some
    return found[:, 0] if longest == 1 else found
