"""The `rmlab-score` command: one reward per response of a file, by one reward model or several as one."""

import argparse
import contextlib
import functools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmlab import __version__
from rmlab.messages import UserError, in_words, pair_of, say

if TYPE_CHECKING:  # imported by the task itself: --help must not wait for them
    from rmlab.data.streams import RowStream
    from rmlab.scoring.ensemble import Ensemble
    from rmlab.scoring.score_file import ScoreFile

# How this command calls what training's sentences name by keys of its config.
WORDS = {
    "data.path: ": "", "data.path": "DATA", "data.columns.": "--columns ", "data.split": "--split",
    "data.chat_template_kwargs.date_string=": "--template date_string=",
    "data.chat_template_kwargs": "--template", "model.path: ": "", "model.path": "MODEL", "overlong=": "--overlong ",
    "max_length": "--max-length", "dtype=": "--dtype ", "model.dtype": "--dtype", "device is": "--device is",
    "tokens_per_batch": "--tokens-per-batch", "set model.chat_template to": "save its tokenizer with",
    "set model.chat_template=chatml (or plain, or FILE.jinja)": "save the tokenizer with one",
    ", or set model.chat_template=FILE.jinja": "",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Score a file; exit status 1 for a UserError. arguments: None for those of the process."""
    options = parser().parse_args(arguments)
    try:
        score(options)
    except UserError as error:
        print(f"rmlab-score: error: {in_words(str(error), WORDS)}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("rmlab-score: stopped; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    told = argparse.ArgumentParser(
        "rmlab-score",
        description="One reward per response, a line per row in their order; killed, the same command goes on.",
    )
    several = "; of several the rewards become one, see --reduce"
    told.add_argument("model", nargs="+", help="a run directory, a saved model or adapter, or a hub name" + several)
    told.add_argument("data", help="a jsonl, json or parquet file (also .gz), a folder, a hub name, or - for stdin")
    told.add_argument("-o", "--out", type=Path, help="the rewards: OUT.jsonl, OUT.jsonl.gz or OUT.parquet")
    add = functools.partial(told.add_argument, metavar="NAME=VALUE", action="append")
    add("--columns", default=[], help="rmlab's NAME is the column VALUE; null hides it")
    add("--template", help="a variable of the chat template; default: those of the run")
    told.add_argument("--split", default="train", help="of a folder or a data set on the hub; default: train")
    told.add_argument(
        "--reduce", default="mean", help="mean (default), min, median, mean-std, mean-var: mean - C * var"
    )
    told.add_argument("--c", type=float, default=1.0, help="of mean-std and mean-var; default: 1")
    told.add_argument("--align", default="none", help="prompt: members have the same mean reward of a row's responses")
    told.add_argument("--normalise", action="store_true", help="(reward - mean) / std by the model's rmlab_reward.json")
    told.add_argument("--reference", action="store_true", help="write the model's rmlab_reward.json from these rewards")
    told.add_argument("--dtype", default="float32", help="of the model's body; default: float32; auto: as it is saved")
    told.add_argument("--device", help="default: the accelerator, if there is one")
    told.add_argument("--max-length", default="auto", metavar="TOKENS", help="default: as many as the model takes")
    told.add_argument("--overlong", default="truncate", help="of longer rows: truncate (default) or error")
    told.add_argument("--tokens-per-batch", type=int, metavar="TOKENS", help="of a forward; default: by the device")
    told.add_argument("--trust-remote-code", action="store_true", help="run the code that the model brings")
    told.add_argument("--redo", action="store_true", help="write over an OUT that is finished")
    return told


def score(options: argparse.Namespace) -> None:
    """Write --out, or with --reference the model's reference. UserError for whatever prevents it."""
    from rmlab.data.streams import row_stream
    from rmlab.model.config import ModelConfig
    from rmlab.model.faults import refuse_files
    from rmlab.model.identity import model_folder

    if options.reference == (options.out is not None):
        raise UserError("give either -o OUT, a file for the rewards, or --reference")
    for model in options.model:
        refuse_files(ModelConfig(model_folder(model)))
    columns = dict(pair_of(text, "--columns") for text in options.columns)
    with here(options.data) as path:
        name = "stdin" if options.data == "-" else options.data
        stream = row_stream(path, options.split, columns)
        if options.reference:
            write_reference_of(options, stream, name)
        else:
            write_rewards(options, stream, name)


@contextlib.contextmanager
def here(data: str) -> Iterator[str]:
    """Where the rows lie; for - in a copy of stdin, which is read twice: to know it again, and to score it."""
    if data != "-":
        yield data
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stdin.jsonl"
        with file.open("wb") as sink:
            shutil.copyfileobj(sys.stdin.buffer, sink)
        yield str(file)


def loaded(options: argparse.Namespace) -> "Ensemble":
    """The models, ready to score."""
    from transformers.utils import logging as hf_logging

    from rmlab.scoring.ensemble import Ensemble

    hf_logging.disable_progress_bar()  # of loading weights
    length = options.max_length
    return Ensemble.load(
        options.model,
        options.reduce,
        options.c,
        options.align,
        dtype=options.dtype,
        device=options.device,
        max_length=int(length) if length.isdigit() else None if length == "null" else length,
        overlong=options.overlong,
        tokens_per_batch=options.tokens_per_batch,
        chat_template_kwargs=template_of(options),
        trust_remote_code=options.trust_remote_code,
        normalise=options.normalise,
    )


def template_of(options: argparse.Namespace) -> dict[str, Any] | None:
    """The variables of the chat template that were given."""
    return dict(pair_of(text, "--template") for text in options.template) if options.template else None


# ---- rewards ----


def inputs_of(options: argparse.Namespace, stream: "RowStream") -> dict[str, Any]:
    """What decides the content of the file."""
    from rmlab.model.identity import identity_of, model_folder, template_of_run
    from rmlab.model.reference import read_reference

    keys = ("reduce", "c", "align", "dtype", "device", "max_length", "overlong", "tokens_per_batch")
    references = [vars(read_reference(model_folder(model))) for model in options.model] if options.normalise else []
    chosen = {key: getattr(options, key) for key in keys}
    return {
        "models": [identity_of(model) for model in options.model],
        "data": stream.identity,
        **chosen,
        "template": template_of(options) or [template_of_run(model) for model in options.model],
        "normalisation": references,
        "version of rmlab": __version__,
    }


def write_rewards(options: argparse.Namespace, stream: "RowStream", name: str) -> None:
    """The file of rewards, from where it was left."""
    from rmlab.scoring.score_file import ScoreFile

    out = ScoreFile(options.out, inputs_of(options, stream))
    if out.is_finished(options.redo):
        say(f"skipped {out.path}: it is finished, of the same model, data and options (--redo writes it again)")
        return
    with out.locked():
        began, total, model = time.monotonic(), stream.checked(name), loaded(options)
        done = out.begun()  # now that no wrong option can cost what is ready
        if done:
            say(f"{done:,} rows are ready in {out.parts}; it goes on after them")
        rows, responses = write_parts(model, out, stream.rows(done), name, done, total)
        out.finish(rows)
    seconds = time.monotonic() - began
    say(f"{out.path}: {rows:,} rows; {responses:,} responses in {seconds:.1f} s, {responses / seconds:,.0f} a second")


def write_parts(
    model: "Ensemble", out: "ScoreFile", rows: Iterator[Any], name: str, done: int, total: int | None
) -> tuple[int, int]:
    """(rows of the file, responses scored now). rows: from the one at `done` on."""
    from rmlab.scoring.score_file import PART, line_of

    count, responses, lines = done, 0, list[str]()
    with progress(total, done) as tell:
        for each in model.each(rows, name, done):
            lines.append(line_of(each, model.reduced(each), model.members[0].names))
            count, responses = count + 1, responses + len(each[0].rewards)
            if len(lines) == PART:
                out.write_part(count - PART, lines)
                lines = []
            tell()
    if lines:
        out.write_part(count - len(lines), lines)
    return count, responses


def write_reference_of(options: argparse.Namespace, stream: "RowStream", name: str) -> None:
    """rmlab_reward.json beside the weights of the model."""
    from rmlab.model.identity import model_folder
    from rmlab.model.reference import REFERENCE, write_reference

    if len(options.model) > 1 or options.normalise:
        raise UserError("--reference is of the raw rewards of one model; leave out the others and --normalise")
    folder = Path(model_folder(options.model[0])).expanduser()
    if not folder.is_dir():
        raise UserError(f"{options.model[0]} is on the hub, where nothing can be written; save it to a folder")
    rewards: list[float] = []
    total = stream.checked(name)
    with progress(total, 0) as tell:
        for (scored,) in loaded(options).each(stream.rows(), name):
            rewards += scored.rewards
            tell()
    write_reference(folder, rewards, name)
    say(f"{folder / REFERENCE}: {json.loads((folder / REFERENCE).read_text(encoding='utf-8'))}")


@contextlib.contextmanager
def progress(total: int | None, done: int) -> Iterator[Callable[[], None]]:
    """A bar on the terminal, with rate and time left, to be told of each row; none where stderr is a file."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    task = bar.add_task("", total=total, completed=done, rate="")
    began, seen = time.monotonic(), 0

    def tell() -> None:
        nonlocal seen
        seen += 1
        if seen % 64 == 0:  # as often as it is seen
            bar.update(task, completed=done + seen, rate=f"{seen / (time.monotonic() - began):,.0f} rows/s")

    with bar:
        yield tell


if __name__ == "__main__":
    main()
