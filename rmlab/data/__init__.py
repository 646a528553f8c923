"""Preference data: rows in any accepted format -> Comparison -> token trees.

config.py     what the room is told
sources.py    where rows come from: files, hub (synthetic.py, synthetic_texts.py, synthetic_judges.py: the generator)
continuations.py  ... made of plain text
columns.py    ... under rmlab's names
named.py      ... one of them: a column, a nested value, what is made of several
rated.py      ... of one rated response each, together by prompt
json_files.py rows of JSON files
texts.py      ... kept as text, on disk where they are many
rows.py       one row of any accepted format -> Comparison
pairs.py      ... of chosen and rejected
candidates.py ... of responses that nobody has compared
streams.py    rows to be scored, one after the other
prompts.py    ... where its prompt ends
extra.py      weights, and the columns that the loss reads
labels.py     who wins, in whatever code a data set writes it
values.py     values of a row, read and checked
render.py     prompt + response -> token ids; the one function that training and scoring share
drafts.py     Comparison -> texts -> TokenTree, a batch of rows at once
trees.py      TokenTree: what all responses share once, then their ends
prepare.py    a data set of rows -> a data set of token trees
counts.py     ... with a line of counts, and which rows stay
workers.py    ... by several processes
cache.py      ... kept on disk
augment.py    rows that are added to training: answers to other prompts
merge.py      comparisons on one prompt -> one comparison
style.py      how a response is written, counted
excerpts.py   ... of evaluation sets, with the beginnings of their texts
contamination.py  evaluated prompts that are in the training data
sets.py       the sets of a run: mixtures, evaluation sets, splits by prompt
tokenizer.py  the embedded tokenizer

No module here imports torch, so that bad rows are named before it loads. Batches are made in rmlab/scoring/collator.py.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from rmlab.registry import Registry

DATASETS = Registry("data source", "rmlab.data")

ROW = "_rmlab_row"  # the column in which sources keep a row as JSON text, see `sources.load`

Text = str | list[dict[str, Any]]  # plain text, or chat messages


class Tokenizer(Protocol):
    """What rmlab asks of a tokenizer, and any of transformers has; spelled out here, for importing it takes seconds."""

    chat_template: Any
    init_kwargs: dict[str, Any]
    bos_token_id: int | None
    eos_token: str | None
    eos_token_id: int | None
    pad_token: str | None
    pad_token_id: int | None
    unk_token: str | None
    unk_token_id: int | None

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """pad_token, eos_token and so on -> its text."""

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of all of them."""

    def __len__(self) -> int:
        """Tokens in the vocabulary, added ones too."""

    def __call__(self, text: str | list[str], *, add_special_tokens: bool, **options: Any) -> Any:
        """Token ids as `["input_ids"]`, of several texts a list of theirs."""

    def apply_chat_template(self, conversation: list[dict[str, Any]], *, tokenize: bool, **variables: Any) -> Any:
        """The text of messages, for tokenize=False."""

    def get_vocab(self) -> dict[str, int]:
        """Token -> id."""

    def convert_tokens_to_ids(self, tokens: str) -> Any:
        """The id of a token."""

    def add_special_tokens(self, special_tokens_dict: dict[str, Any]) -> int:
        """Add them to the vocabulary where they are not in it; returns how many were added."""

    def save_pretrained(self, save_directory: str) -> Any:
        """Write it to a folder."""


@dataclass(frozen=True)
class Preference:
    """`better` and `worse` index the responses of one comparison."""

    better: int
    worse: int
    strength: float = 1.0  # rating difference or vote share; 1.0 when the data states none
    probability: float = 1.0  # how surely better beats worse; 0.5 for a tie
    weight: float = 1.0  # what it counts in the loss: 2 is the preference twice


@dataclass(frozen=True)
class Comparison:
    """One prompt, K >= 2 responses and the preferences between them. A pair is K = 2."""

    prompt: Text
    responses: list[Any]  # K of Text; for tokenised rows K lists of token ids
    preferences: list[Preference]
    tokenised: bool = False
    id: str | None = None
    subset: str | None = None
    gold: list[float] | None = None  # (K,) the true rewards, or ratings, where the data knows them
    # What terms of the loss read of the row, by name: of every response (K) or preference (P) its numbers (1 or D).
    columns: dict[str, list[list[float]]] = field(default_factory=dict)
    template: dict[str, Any] = field(default_factory=dict)  # tools and chat template variables of this row
