"""Comparison -> texts -> token tree: a batch of rows is one call of the tokenizer."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

from jinja2 import TemplateError

from rmlab.data import Comparison, Text, Tokenizer
from rmlab.data.config import Options
from rmlab.data.extra import in_order, names_of
from rmlab.data.render import Special, closed, render, tokens_of
from rmlab.data.rows import identical, is_empty
from rmlab.data.trees import TokenTree, common_prefix, content_hash, prompt_ids
from rmlab.messages import UserError, first_line

# What a chat template raises for messages that it does not take.
TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError, AttributeError, RecursionError)

TOGETHER = 64  # rows whose texts are with the tokenizer at once, while Python is at others

Numbered: TypeAlias = tuple[Comparison, int, str]  # with its place in its set, and how errors name its row


@dataclass(frozen=True)
class Draft:
    """A comparison as the texts that the tokenizer is to be given."""

    comparison: Comparison
    index: int
    where: str
    texts: list[str]  # (K,) each response with its prompt; none of token ids
    prompt: str | None  # alone; None if there is none, or the template does not take it alone

    @property
    def all_texts(self) -> list[str]:
        """Those, and the prompt's."""
        return self.texts if self.prompt is None else [*self.texts, self.prompt]


def to_tree(comparison: Comparison, index: int, where: str, tokenizer: Tokenizer, options: Options) -> TokenTree:
    """The token tree of a comparison; `where` names its row in errors, `index` is its id if it has none."""
    (tree,) = to_trees([(comparison, index, where)], tokenizer, options)
    return tree


def to_trees(comparisons: Iterable[Numbered], tokenizer: Tokenizer, options: Options) -> list[TokenTree]:
    """The same of many, whose texts the tokenizer is given at once.

    UserError for the first row that is bad, whether `comparisons` raises it, a template, or what is made of tokens.
    """
    parts: list[tuple[list[Draft], Future[dict[str, list[int]]]]] = []
    drafts: list[Draft] = []
    wrong, special = None, Special.of(tokenizer)
    with ThreadPoolExecutor(1) as ahead:  # the tokenizer, which is not Python, works beside what is
        try:
            for comparison, index, where in comparisons:
                drafts.append(drafted(comparison, index, where, tokenizer, options, special))
                if len(drafts) == TOGETHER:
                    parts.append((drafts, ahead.submit(tokens_of_drafts, drafts, tokenizer)))
                    drafts = []
        except UserError as error:  # what is wrong with the tokens of the rows before comes first
            wrong = error
        trees = []
        for some, ids in parts:
            trees += [finished(draft, ids.result(), special, tokenizer, options) for draft in some]
    rest = tokens_of_drafts(drafts, tokenizer)
    trees += [finished(draft, rest, special, tokenizer, options) for draft in drafts]
    if wrong is not None:
        raise wrong
    return trees


def drafted(
    comparison: Comparison, index: int, where: str, tokenizer: Tokenizer, options: Options, special: Special
) -> Draft:
    """The texts of a comparison. UserError for messages that the template does not take."""
    refuse_row(comparison, where, options)
    if comparison.tokenised:
        return Draft(comparison, index, where, [], None)
    template = {**options.template, **comparison.template}
    refuse_unread(comparison, where, tokenizer, template)
    try:
        texts = [render(tokenizer, comparison.prompt, r, template, special.eos) for r in comparison.responses]
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except TEMPLATE_ERRORS as error:
        raise UserError(f"{where}: the chat template does not take its messages: {first_line(error)}") from error
    return Draft(comparison, index, where, texts, prompt_text(comparison.prompt, tokenizer, template))


def prompt_text(prompt: Text, tokenizer: Tokenizer, template: dict[str, Any]) -> str | None:
    """The prompt alone as text; None for no prompt, or one that the template does not take alone (of the system)."""
    if not prompt:
        return None
    if isinstance(prompt, str):
        return prompt
    try:
        return str(tokenizer.apply_chat_template(prompt, tokenize=False, **template))
    except TEMPLATE_ERRORS:
        return None


def tokens_of_drafts(drafts: Sequence[Draft], tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Text -> its token ids, of all texts. UserError naming the row of one that the tokenizer does not take."""
    try:
        return tokens_of(tokenizer, (text for draft in drafts for text in draft.all_texts))
    except TEMPLATE_ERRORS as error:
        if len(drafts) == 1:
            raise UserError(f"{drafts[0].where}: the tokenizer does not take it: {first_line(error)}") from error
        return {text: ids for draft in drafts for text, ids in tokens_of_drafts([draft], tokenizer).items()}


def finished(
    draft: Draft, ids: Mapping[str, list[int]], special: Special, tokenizer: Tokenizer, options: Options
) -> TokenTree:
    """The token tree of a draft. ids: those of its texts."""
    comparison, before = draft.comparison, special.before
    tokens = [closed(ids[text], special) for text in draft.texts] or known_ids(draft, tokenizer)
    shared = len(common_prefix(tokens))
    prompt = shared if draft.prompt is None else prompt_length(ids[draft.prompt], before)
    room = shared if shared < max(map(len, tokens)) else min(prompt, shared)  # what is all alike is not all prompt
    tokens, dropped, cut = fitted(tokens, draft.where, len(before), options, room)
    if cut is not None:
        prompt, shared = max(prompt - cut, min(prompt, len(before))), len(common_prefix(tokens))
    stated = comparison.preferences
    kept = [n for n, p in enumerate(stated) if p.probability == 0.5 or tokens[p.better] != tokens[p.worse]]
    preferences = [stated[n] for n in kept]
    empty = is_empty(comparison)
    if empty and options.empty == "drop":
        dropped = "empty"
    elif not dropped and not preferences:
        dropped = "identical"
    elif not dropped and not any(p.weight for p in preferences):
        dropped = "weightless"  # of a batch of such rows alone there would be no mean
    asked, split = prompt_ids(comparison)
    return TokenTree(
        prefix=tokens[0][:shared],
        suffixes=[t[shared:] for t in tokens],
        better=[p.better for p in preferences],
        worse=[p.worse for p in preferences],
        strength=[p.strength for p in preferences],
        probability=[p.probability for p in preferences],
        gold=comparison.gold or [],
        id=comparison.id if comparison.id is not None else str(draft.index),
        prompt_id=asked,
        split_id=split,
        subset=comparison.subset or "",
        lengths=[max(len(t) - prompt, 0) for t in tokens],
        length=max(map(len, tokens)),
        implicit=not comparison.prompt,
        identical=len(stated) - len(kept),
        dropped=dropped,
        truncated=cut is not None,
        empty=empty,
        content=content_hash(comparison, options.columns),
        place=draft.index,
        weight=[p.weight for p in preferences] if any(p.weight != 1 for p in preferences) else [],
        columns=in_order(comparison.columns, options.columns, kept),
        read=names_of(options.columns),
    )


def refuse_row(comparison: Comparison, where: str, options: Options) -> None:
    """UserError naming the row where it has what `options` calls an error: equal responses, or an empty one."""
    if options.identical == "error" and identical(comparison):
        raise UserError(
            f"{where}: the better and the worse response are identical; remove the row or set data.identical=drop"
        )
    if options.empty == "error" and is_empty(comparison):
        raise UserError(f"{where}: a response is empty; remove the row or set data.empty=drop (keep to keep it)")


def known_ids(draft: Draft, tokenizer: Tokenizer) -> list[list[int]]:
    """(K,) the token ids that a row holds. UserError for ids that the tokenizer does not have."""
    responses: list[list[int]] = draft.comparison.responses
    largest, known = max(map(max, responses)), len(tokenizer)
    if largest >= known:
        raise UserError(f"{draft.where}: token id {largest} is none of the tokenizer's {known}; is it another's?")
    return list(responses)


def refuse_unread(comparison: Comparison, where: str, tokenizer: Tokenizer, template: dict[str, Any]) -> None:
    """UserError for tools, or calls of them, that the chat template never shows: the model would not read them."""
    parts = [part for part in (comparison.prompt, *comparison.responses) if not isinstance(part, str)]
    source = str(getattr(tokenizer, "chat_template", None) or "")
    unread = {"tools": bool(template.get("tools")), "tool_calls": any(m.get("tool_calls") for p in parts for m in p)}
    for name, given in unread.items():
        if parts and source and given and name not in source:
            hint = ", or hide them with data.columns.tools=null" if name == "tools" else ""
            raise UserError(
                f"{where}: the chat template does not show {name}; set model.chat_template to one that does{hint}"
            )


def fitted(
    tokens: list[list[int]], where: str, before: int, options: Options, shared: int
) -> tuple[list[list[int]], str, int | None]:
    """(tokens within max_length, why the row is dropped or empty, how many prompt tokens were cut; None: whole).

    before: special tokens at their beginning, which stay. shared: tokens of which the oldest may go.
    """
    limit, longest = options.max_length, max(map(len, tokens))
    if limit is None or longest <= limit:
        return tokens, "", None
    if options.overlong == "error":
        raise UserError(
            f"{where}: {longest} tokens, data.max_length is {limit}; raise it or set data.overlong=drop or truncate"
        )
    if options.overlong == "truncate":
        tokens, cut = truncate(tokens, limit, before, shared)
        return tokens, "", cut
    return tokens, "overlong", None


def prompt_length(ids: list[int], before: list[int]) -> int:
    """Tokens of a prompt, with what the tokenizer puts before it."""
    return len(ids) + (len(before) if ids[: len(before)] != before else 0)


def truncate(tokens: list[list[int]], limit: int, before: int, shared: int) -> tuple[list[list[int]], int]:
    """(the tokens, how many were cut of the prompt): of the `shared` first ones the oldest, of all alike.

    The very first `before` are special and stay.
    Where the prompt is not enough, the longest responses lose their end, but never their last token (EOS): it is
    where the score is read.
    """
    before = min(before, limit - 1)
    room = max(0, shared - before)
    cut = min(room, max(map(len, tokens)) - limit)
    tokens = [t[:before] + t[before + cut :] for t in tokens]
    return [t if len(t) <= limit else [*t[: limit - 1], t[-1]] for t in tokens], cut
