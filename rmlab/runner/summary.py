"""What a finished run prints: its metrics as a table, what they mean, and where everything is."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rmlab.runner.directory import RunDirectory

if TYPE_CHECKING:
    from rich.table import Table

HEADER = ("set", "n", "accuracy [95%]", "nll", "ece", "gap_mean")
TEXTS = ("set", "accuracy [95%]")
LOGGED = {"loss": ".4f", "accuracy": ".3f"}  # of training
LEAST = 80  # columns that the table may always have
SHORTEST = 12  # what is left of a name
CHANCE = math.log(2)  # the nll of rewards that are all equal
STRETCHED, GAINED, ENOUGH = 1.5, 0.01, 100  # a temperature, what it takes off the nll of how many, to be worth a line
FAR = 0.1  # of accuracy: more than a training log and an evaluation differ by for other reasons

Metrics = Mapping[str, Any]


def print_table(metrics: Metrics, out: RunDirectory, seconds: float) -> None:
    """A row per set and subset, rows to compare them with, hints, and the path of each thing that is in `out`."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, LEAST)
    console.print(f"{printable(out.name, console.encoding)}, {seconds / 60:.1f} min", style="bold")
    if metrics["eval"]:
        console.print(table_of(rows_of(metrics["eval"]), console.width, console.encoding))
    console.print(training_of(metrics["train"]))
    for hint in hints(metrics):
        console.print(printable(f"hint: {hint}", console.encoding))
    for name, place in out.contents().items():
        print(f"{name:14}{place}")


def table_of(rows: list[list[str]], width: int, encoding: str) -> "Table":
    """The rows under HEADER in so many columns: numbers are whole, names are shortened in the middle."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    numbers = list(zip(HEADER, *rows, strict=True))[1:]
    room = width - sum(2 + max(map(cell_len, column)) for column in numbers)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in HEADER:
        table.add_column(column, justify="left" if column in TEXTS else "right", no_wrap=True)
    for name, *cells in rows:
        short = shortened(printable(name, encoding), max(room, SHORTEST))
        table.add_row(Text(short), *cells)  # a Text: a subset may be called [/b]
    return table


def rows_of(sets: Mapping[str, Metrics]) -> list[list[str]]:
    """Cells under HEADER: each set, its subsets, what longer responses and the true rewards reach on it; chance."""
    rows = []
    for name, whole in sets.items():
        rows.append(row(name, whole))
        rows += [row(f"  {subset}", part) for subset, part in whole.get("subsets", {}).items()]
        if "longer_wins" in whole:
            rows.append(["  longer wins", "", share(whole, "longer_wins"), "", "", ""])
        if "bayes_accuracy" in whole:
            rows.append(["  true rewards", "", share(whole, "bayes_accuracy"), "", "", ""])
    return [*rows, ["chance", "", "0.500", f"{CHANCE:.4f}", "", ""]]


def row(name: str, values: Metrics) -> list[str]:
    """A name and the metrics of a set or subset, in the order of HEADER; empty where there is none."""
    count = f"{values['preferences']:,}" if "preferences" in values else ""
    numbers = [f"{values[key]:.4f}" if key in values else "" for key in HEADER[3:]]
    return [name, count, share(values, "accuracy"), *numbers]


def share(values: Metrics, key: str) -> str:
    """`0.588 [0.572, 0.604]`: a share and its interval, where there is one."""
    low, high = values.get(f"{key}_low"), values.get(f"{key}_high")
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None else ""
    return f"{values[key]:.3f}{interval}" if key in values else ""


def printable(text: str, encoding: str) -> str:
    """On one line, without what steers a terminal or is not in its encoding."""
    seen = "".join(sign if sign.isprintable() else " " for sign in text)
    return seen.encode(encoding, "replace").decode(encoding)


def shortened(text: str, width: int) -> str:
    """At most so many columns of a terminal, where CJK takes two a sign: the middle is left out."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    half = (width - 3) // 2
    start, end = set_cell_size(text, width - 3 - half).rstrip(), set_cell_size(text[::-1], half).rstrip()[::-1]
    return f"{start}...{end}"


def training_of(train: Metrics) -> str:
    """`training, last logged: loss 0.2245, accuracy 0.903; 1,688 steps, epoch 2`."""
    logged = [f"{key} {train[key]:{form}}" for key, form in LOGGED.items() if train.get(key) is not None]
    last = f", last logged: {', '.join(logged)}; " if logged else ": "
    return f"training{last}{train.get('steps', 0):,} steps, epoch {train.get('epochs') or 0:.4g}"


# ---- what the numbers mean ----


def hints(metrics: Metrics) -> Iterator[str]:
    """A sentence, with what to do, for each set on which the model is wrong, remembers, is too sure or knows little.

    Then one each for the first set whose diagnostics show that it goes by length, or that its scale is wrong.
    """
    told = set()
    for name, held_out in metrics["eval"].items():
        if {"accuracy_low", "nll_low"} <= held_out.keys():
            train = metrics["train"]
            found = inverted(held_out) or remembered(held_out, train) or too_sure(held_out) or hardly_learned(held_out)
            if found:
                told.add(name)
                yield f"{name}: {found}"
    for diagnosis in (goes_by_length, out_of_scale):
        sets = ((name, of.get("diagnostics", {})) for name, of in metrics["eval"].items() if name not in told)
        found_in = ((name, diagnosis(of)) for name, of in sets)
        yield from itertools.islice((f"{name}: {found}" for name, found in found_in if found), 1)


def inverted(held_out: Metrics) -> str | None:
    """Where a coin would be right more often."""
    if held_out["accuracy_high"] >= 0.5:
        return None
    return (
        f"accuracy {held_out['accuracy']:.3f} is below chance; look whether the preferences are the right way round "
        "(data.columns), and whether these rows were judged as the training rows were"
    )


def remembered(held_out: Metrics, train: Metrics) -> str | None:
    """Where training rows that were seen before are answered far better than those held out."""
    accuracy, epochs = train.get("accuracy"), train.get("epochs")
    if accuracy is None or epochs is None or epochs <= 1:
        return None
    if accuracy - held_out["accuracy"] < FAR or accuracy <= held_out["accuracy_high"]:
        return None
    return (
        f"accuracy is {accuracy:.3f} on the last training rows and {held_out['accuracy']:.3f} here, so training rows "
        "are remembered; train for fewer epochs, on more rows, or fewer weights (peft, model.train_last_layers)"
    )


def too_sure(held_out: Metrics) -> str | None:
    """Where the probabilities that the rewards claim are worse than a coin's."""
    if held_out["nll_low"] <= CHANCE:
        return None
    return (
        f"nll {held_out['nll']:.3f} is worse than chance's {CHANCE:.3f} at accuracy {held_out['accuracy']:.3f}, so the "
        "model is too sure; train for fewer epochs or lower trainer.learning_rate"
    )


def hardly_learned(held_out: Metrics) -> str | None:
    """Where so many preferences cannot tell the model from a coin."""
    if held_out["accuracy_low"] > 0.5 and held_out["nll_high"] < CHANCE:
        return None
    return (
        f"accuracy {held_out['accuracy']:.3f} and nll {held_out['nll']:.3f} on {held_out['preferences']:,} preferences "
        "cannot be told from chance; train longer, raise trainer.learning_rate, or evaluate on more"
    )


def goes_by_length(diagnostics: Metrics) -> str | None:
    """Where a coin would be right more often on the preferences whose better response is the shorter one."""
    shorter = diagnostics.get("length", {}).get("shorter", {})
    if shorter.get("high", 1.0) >= 0.5:
        return None
    return (
        f"accuracy is {shorter['value']:.3f} on the {shorter['n']:,} preferences whose better response is the shorter "
        "one, so the model goes by length; see diagnostics.length in metrics.json, and train on rows where length says "
        "nothing"
    )


def out_of_scale(diagnostics: Metrics) -> str | None:
    """Where one number that divides the rewards makes them better probabilities, on prompts it was not fitted on."""
    fitted = diagnostics.get("calibration", {}).get("temperature")
    if not fitted or fitted["n"] < ENOUGH or 1 / STRETCHED < fitted["value"] < STRETCHED:
        return None
    if fitted["nll_before"] - fitted["nll_after"] < GAINED:
        return None
    return (
        f"rewards divided by {fitted['value']:.2f} take nll from {fitted['nll_before']:.3f} to "
        f"{fitted['nll_after']:.3f}; divide them so before they are read as probabilities, or compared with those of "
        "another model"
    )
