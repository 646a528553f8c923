"""LLMBar (Zeng et al. 2024, arXiv 2310.07641): which of two outputs follows an instruction; the other may look better.

Its table has the accuracy of Natural and of four adversarial subsets, the mean of those four, and the mean of all five.
"""

from rmlab.evaluation import SUITES, Suite
from rmlab.evaluation.items import complete, over_subsets, row_of, strict_items
from rmlab.evaluation.read import Part, named, read
from rmlab.messages import UserError

ADVERSARIAL = ("Neighbor", "GPTInst", "GPTOut", "Manual")
SUBSETS = ("Natural", *ADVERSARIAL)
HUB = [Part("Natural", "LLMBar"), *(Part(f"Adversarial_{subset}", "LLMBar") for subset in ADVERSARIAL)]


@SUITES.register
def llmbar(*, path: str) -> Suite:
    """path: the hub name, or a folder with a JSON array per subset, which file or folder is named by."""
    rows = []
    for table in read(path, *HUB):
        subset = named(table.label, {subset: subset for subset in SUBSETS}, table.name)
        table.need("input", "output_1", "output_2", "label")
        for n, row in enumerate(table.rows):
            outputs = {1: row["output_1"], 2: row["output_2"]}
            if row["label"] not in outputs:
                raise UserError(f"{table.where(n)}: label is {row['label']!r}, neither 1 nor 2")
            best = row["label"]
            rows.append(row_of(row["input"], [outputs[best]], [outputs[3 - best]], f"{subset}-{n}", subset))
    totals = {"average": over_subsets(SUBSETS), "adversarial": over_subsets(ADVERSARIAL)}
    return Suite(rows, strict_items, lambda counts: complete(totals, counts))
