"""Which prompts of suites are in training data, the same or nearly: counted, and listed beside what the suite says."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmlab.data import Text
from rmlab.files import replacing
from rmlab.messages import UserError, say
from rmlab.runner.config import Config
from rmlab.runner.directory import RunDirectory
from rmlab.runner.suites import Read

COLUMNS = ("id", "row", "similarity", "exact")


def training_prompts(where: Any, run: Mapping[str, Any]) -> Callable[[], Iterator[tuple[str, Text]]]:
    """What gives (row, prompt) of training rows, again at every call.

    where: a file, folder or hub name; True: what the run of that config read, held-out rows too. UserError for rows
    that cannot be read, and for True where there is no run.
    """
    from rmlab.data.columns import read_rows
    from rmlab.data.contamination import prompts_of
    from rmlab.data.prepare import unformatted
    from rmlab.data.sets import load_part, reading
    from rmlab.data.sources import load

    if where is not True:
        given = str(where)
        rows = load(path=given)
        return lambda: prompts_of(read_rows(rows), given)
    if not run:
        raise UserError("contamination=true is of a run; of another model name its training rows: contamination=FILE")
    data = Config.of(run).data
    sources = load_part(data, data.train, "train", reading(data, (), "train"))
    return lambda: (
        (f"{source.name} {row}", prompt)
        for source in sources
        for row, prompt in prompts_of(read_rows(unformatted(source.rows)), source.name)
    )


def tell_contamination(
    suites: Sequence[Read], trained: Callable[[], Iterator[tuple[str, Text]]], out: RunDirectory
) -> None:
    """A line for each suite, and suites/NAME.contamination.csv: id of the item, training row, similarity, exact."""
    from rmlab.data.contamination import contamination, prompts_of

    asked = (
        (f"{number} {item}", prompt)  # of all suites at once, for training rows may be many
        for number, suite in enumerate(suites)
        for item, prompt in prompts_of(suite.suite.rows, suite.name)
    )
    matches = contamination(asked, trained())
    for number, suite in enumerate(suites):
        mine = [m for m in matches if m.id.startswith(f"{number} ")]
        rows = [(m.id.split(" ", 1)[1], m.row, m.similarity, m.exact) for m in mine]
        file, same = out.path / "suites" / f"{suite.name}.contamination.csv", sum(m.exact for m in mine)
        write_matches(file, rows)
        say(
            f"suite {suite.name}: {len(rows):,} of {len(suite.suite.rows):,} comparisons have a prompt that is in the "
            f"training rows, {same:,} in the same words" + f"; {file}" * bool(rows)
        )


def write_matches(file: Path, rows: Sequence[Sequence[Any]]) -> None:
    """The table, with a header."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as scratch, scratch.open("w", newline="", encoding="utf-8") as sink:
        csv.writer(sink).writerows([COLUMNS, *rows])
