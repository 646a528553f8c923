"""Counts of how a response is written, counted here by eye."""

import pytest

from rmlab.data.style import STYLE, counts

MARKDOWN = """# A header

I'm not sure, but **it may** work:

- one
* two
  1. three
2) four

### Another
```python
# no header
- no item, and maybe no hedge
```
Call `f` or `g`; it depends. __Bold__ too."""


def count(text):
    return dict(zip(STYLE, counts(text), strict=True))


def test_each_kind_of_style_is_counted():
    """Headers 2, items 4, bold 2, code one block and two spans; hedges: I'm not sure, may, it depends."""
    wanted = {"headers": 2, "list_items": 4, "bold": 2, "code": 3, "hedges": 3, "characters": len(MARKDOWN)}
    assert count(MARKDOWN) == wanted


@pytest.mark.parametrize(
    "text", ["#hashtag", "5 - 3 is 2", "2.5 litres", "a*b*c", "a_b_c", "Mayor Dismay", "-5 degrees"]
)
def test_what_only_looks_like_style_is_none(text):
    assert sum(count(text).values()) == len(text)


def test_a_block_of_code_that_is_never_closed_goes_to_the_end():
    assert count("```\n# a\n- b")["code"] == 1
    assert count("```\n# a\n- b")["headers"] == 0
