"""How a response is written: counts of its text, by kind of style."""

import re

FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
SPAN = re.compile(r"`[^`\n]+`")
HEDGE = (
    r"i(?:'|\u2019)?m not (?:entirely |completely |quite )?(?:sure|certain)|i am not (?:sure|certain)|"
    r"i don(?:'|\u2019)t know|i (?:think|believe|guess|suppose)|it depends|it(?: is|'s|\u2019s) possible|"
    r"as far as i know|to some extent|in some cases|more or less|not necessarily|may|might|maybe|perhaps|possibly|"
    r"probably|presumably|could be|seems?|appears? to|likely|generally|typically|roughly"
)
# What is counted outside fenced code.
PATTERNS = {
    "headers": re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.MULTILINE),
    "list_items": re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE),
    "bold": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
    "hedges": re.compile(rf"\b(?:{HEDGE})\b", re.IGNORECASE),
}
STYLE = ("characters", "headers", "list_items", "bold", "code", "hedges")  # the columns of `ScoredComparison.style`


def counts(text: str) -> list[int]:
    """(S,) of a response, in the order of STYLE: its characters, and how often the other kinds of style occur in it.

    code: fenced blocks and `spans` of it. hedges: words that leave a way out ("may", "I'm not sure", "it depends").
    """
    plain, blocks = FENCED.subn("\n", text)
    found = {name: len(pattern.findall(plain)) for name, pattern in PATTERNS.items()}
    found |= {"characters": len(text), "code": blocks + len(SPAN.findall(plain))}
    return [found[name] for name in STYLE]
