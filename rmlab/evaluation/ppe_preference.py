"""PPE, human preferences (Frick et al. 2025, arXiv 2410.14872): 16,038 votes of Chatbot Arena on pairs of responses.

The score is the accuracy on decided votes; votes that are ties are not scored. A tie of rewards is wrong.
"""

from rmlab.evaluation import SUITES, Suite
from rmlab.evaluation.items import over_items, row_of, strict_items
from rmlab.evaluation.read import Part, read
from rmlab.messages import UserError, say

WINNERS = {"model_a": (1, 2), "model_b": (2, 1)}
TIES = ("tie", "tie (bothbad)")


@SUITES.register
def ppe_preference(*, path: str, by: str) -> Suite:
    """path: the hub name, or a file or folder of its rows. by: the column that makes subsets, such as hard_prompt."""
    rows, ties, whole = [], 0, 0
    for table in read(path, Part("test")):
        table.need("question_id", "winner", "prompt", "response_1", "response_2", by)
        for n, row in enumerate(table.rows):
            whole += 1
            if row["winner"] in TIES:
                ties += 1
                continue
            if row["winner"] not in WINNERS:
                raise UserError(f"{table.where(n)}: winner is {row['winner']!r}, none of {[*WINNERS, *TIES]}")
            better, worse = WINNERS[row["winner"]]
            responses = [row[f"response_{better}"]], [row[f"response_{worse}"]]
            rows.append(row_of(row["prompt"], *responses, row["question_id"], subset_of(by, row[by])))
    if ties:
        say(f"ppe_preference: {ties:,} of {whole:,} votes are ties and are not scored")
    if not rows:
        raise UserError(f"data.path: {path} holds no decided vote")
    return Suite(rows, strict_items, lambda counts: {"accuracy": over_items(counts)})


def subset_of(column: str, value: object) -> str:
    """English, or `hard_prompt` and `not hard_prompt`."""
    return str(value) if not isinstance(value, bool) else column if value else f"not {column}"
