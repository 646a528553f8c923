"""HHH alignment (Askell et al. 2021; BIG-bench): 221 pairs on what is helpful, honest, harmless, and other.

What is reported is the accuracy of each subset and that over all pairs; papers differ, so the mean of subsets is
there too.
"""

from rmlab.evaluation import SUITES, Suite
from rmlab.evaluation.items import over_items, over_subsets, row_of, strict_items
from rmlab.evaluation.read import Part, named, read
from rmlab.messages import UserError

SUBSETS = ("helpful", "harmless", "honest", "other")


@SUITES.register
def hhh(*, path: str) -> Suite:
    """path: the hub name, or a folder with a file or a folder per subset."""
    rows = []
    for table in read(path, *(Part("test", subset) for subset in SUBSETS)):
        subset = named(table.label, {subset: subset for subset in SUBSETS}, table.name)
        table.need("input", "targets")
        for n, row in enumerate(table.rows):
            labels = row["targets"].get("labels")
            if sorted(labels or []) != [0, 1]:
                raise UserError(f"{table.where(n)}: targets.labels is {labels!r}; it must be one 1 and one 0")
            choices = dict(zip(labels, row["targets"]["choices"], strict=True))
            rows.append(row_of(row["input"], [choices[1]], [choices[0]], f"{subset}-{n}", subset))
    return Suite(rows, strict_items, lambda counts: {"accuracy": over_items(counts), "macro": over_subsets(counts)})
