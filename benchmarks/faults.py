"""A matrix of faults and stages: a tiny run is disturbed at each stage in each way, and the same command run again has
to end with the numbers of a run that nothing disturbed, byte for byte.

    python benchmarks/faults.py -o FOLDER [--only FAULT:STAGE ...]

`killed` is SIGKILL; `full disk` an error raised at the stage, and where the stage writes also a file system that really
is full (a small tmpfs where root may mount one, else a limit on the size of files); `damaged` harms each file that the
stage wrote, one after the other; `clock back` leaves files of the future; `twice` starts the command again while the
first one is held at the stage. Prints a Markdown table; exit status 1 if a cell failed. A cell keeps its output in
FOLDER, and one that passed there is not run again: choose a new folder for other code.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from faults_runs import HARMS, TIMEOUT, Ended, Failed, Place
from faults_stages import STAGES
from tqdm import tqdm

FUTURE = 10_000  # seconds by which the clock goes back


# ---- faults: each returns what it saw, or raises Failed ----


def killed(stage: str, path: Path, reference: Path) -> str:
    place, point = Place.anew(path), STAGES[stage]
    for call in point.tries:
        ended = place.disturbed(stage, "kill", call)
        if ended.status != -signal.SIGKILL:
            raise Failed(f"it was not killed, but ended with {ended.status}")
    place.again(reference, point.kept)
    return "same"


def full_disk(stage: str, path: Path, reference: Path) -> str:
    place, point, told = Place.anew(path / "raised"), STAGES[stage], []
    for call in point.tries:
        told.append(end_of_full(place.disturbed(stage, "raise", call)))
    place.again(reference, point.kept if told[-1] == "sentence" else None)
    if point.writes:
        place = Place.anew(path / "really")
        with small_disk(place.work) as mounted:
            told.append(end_of_full(place.disturbed(stage, "fill" if mounted else "limit", point.tries[-1])))
            (place.work / "filler").unlink(missing_ok=True)
            place.again(reference, point.kept if told[-1] == "sentence" else None)
    return f"{', '.join(dict.fromkeys(told))}, then same"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Whether the folder could be made a file system of its own, of 48 MB; what it held then stays in the folder."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            kept = shutil.copytree(folder, folder.with_name("kept"), dirs_exist_ok=True)
            subprocess.run(["umount", str(folder)], check=True)
            folder.rmdir()
            kept.rename(folder)


def end_of_full(ended: Ended) -> str:
    """`sentence` for a run that a full disk ended with one, `warning` for one that could do without the file."""
    if ended.status == 0 and "cannot be written" in ended.text and "Traceback" not in ended.text:
        return "warning"
    if "full" not in ended.sentence() and "No space left" not in ended.sentence():
        raise Failed(f"it does not speak of a full disk: {ended.sentence()}")
    return "sentence"


def damaged(stage: str, path: Path, reference: Path) -> str:
    """Each of the stage's files in turn; what is lost with it is made anew, from what else there is."""
    place, point = Place.anew(path), STAGES[stage]
    wrong = []
    if stage == "metrics":  # of a run that came to its end, all that it stands for
        place.run()
        results = ("*.*", "scores/*", "model/model.safetensors")
        found = {str(f.relative_to(place.work)) for p in results for f in place.work.glob(f"run/{p}") if f.is_file()}
        targets = sorted(name for name in found if not name.endswith((".log", ".lock")))
    elif stage == "rotation":  # of two checkpoints the newer one
        place.disturbed(stage, "kill", point.tries[-1])
        targets = ["run/checkpoints/checkpoint-3/optimizer.pt"]
    else:
        place.disturbed(stage, "stop", point.calls[-1])
        targets = json.loads(place.struck.read_text())
    shutil.copytree(place.work, kept := place.path / "kept")
    for number, name in enumerate(targets):
        shutil.rmtree(place.work)
        shutil.copytree(kept, place.work)
        harm = HARMS[number % len(HARMS)]
        harm(place.work / name)
        try:
            place.again(reference, "goes on from step 2 of 4" if stage == "rotation" else None)
        except Failed as error:
            wrong.append(f"{name} {harm.__name__}: {error}")
    if wrong:
        raise Failed("; ".join(wrong))
    if not targets:
        place.again(reference)
    return f"same ({len(targets)} files)" if targets else "same (no file)"


def clock_back(stage: str, path: Path, reference: Path) -> str:
    place, point = Place.anew(path), STAGES[stage]
    place.disturbed(stage, "stop", point.calls[-1])
    for file in place.work.rglob("*"):
        then = file.stat().st_mtime + FUTURE
        os.utime(file, (then, then))
    place.again(reference, point.kept_after or point.kept)
    return "same"


def twice(stage: str, path: Path, reference: Path) -> str:
    """The second while the first is held at the stage; of the first stage also both at once."""
    place, point = Place.anew(path / "held"), STAGES[stage]
    held = place.start(stage, "hold", str(point.calls[-1]))
    until = time.time() + TIMEOUT
    while not place.struck.exists() and held.poll() is None and time.time() < until:
        time.sleep(0.1)
    try:
        second = place.ended(place.start())
    finally:
        (place.path / "go").touch()
        first = place.ended(held)
    told = one_trains([first, second])
    place.again(reference)
    if stage == "reading":
        place = Place.anew(path / "at once")
        told += f"; at once: {one_trains([place.ended(p) for p in [place.start(), place.start()]])}"
        place.again(reference)
    return f"{told}, same"


def one_trains(both: list[Ended]) -> str:
    """How the other of two runs ended. Failed unless exactly one has trained, and the other says why it has not."""
    others = [e for e in both if e.status or "it is finished" in e.text]
    if len(others) != 1:
        raise Failed(f"{2 - len(others)} of two trained; exit statuses {[e.status for e in both]}")
    if others[0].status and "is being trained by another process" not in others[0].sentence():
        raise Failed(f"the other does not say that it is busy: {others[0].sentence()}")
    return "busy" if others[0].status else "skipped"


FAULTS: dict[str, Callable[[str, Path, Path], str]] = {
    "killed": killed, "full disk": full_disk, "damaged": damaged, "clock back": clock_back, "twice": twice,
}  # fmt: skip


# ---- the matrix ----


def run_cell(fault: str, stage: str, out: Path) -> str:
    """What a cell says: `same` and how, or `FAILED: why`. One that passed in `out` before is not run again."""
    path = out / f"{fault}-{stage}".replace(" ", "_")
    verdict = path / "verdict.json"
    if verdict.exists():
        return str(json.loads(verdict.read_text(encoding="utf-8"))["says"])
    started = time.time()
    Place.anew(path)
    try:
        says = FAULTS[fault](stage, path, undisturbed(out))
    except Failed as error:
        return f"FAILED: {error}"
    verdict.write_text(json.dumps({"says": says, "seconds": round(time.time() - started, 1)}), encoding="utf-8")
    return says


def undisturbed(out: Path) -> Path:
    """The folder of the run that nothing disturbed, made once."""
    place = Place(out / "undisturbed")
    if not (place.work / "run" / "metrics.json").exists():
        Place.anew(place.path).run()
    return place.path


def chosen(only: list[str]) -> list[tuple[str, str]]:
    """(fault, stage) of all cells, or of those that `FAULT:STAGE` names; ValueError for a name that is none."""
    cells = [(fault, stage) for fault in FAULTS for stage in STAGES]
    named = [tuple(name.split(":")) for name in only]
    if unknown := [name for name in named if name not in cells]:
        raise ValueError(f"no cell {':'.join(unknown[0])}; faults: {', '.join(FAULTS)}; stages: {', '.join(STAGES)}")
    return [cell for cell in cells if cell in named or not named]


def table(said: dict[tuple[str, str], str]) -> str:
    """Markdown: a row per fault, a column per stage."""
    lines = [["", *STAGES], ["---"] * (1 + len(STAGES))]
    lines += [[fault, *(said.get((fault, stage), "") for stage in STAGES)] for fault in FAULTS]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="where each cell keeps its output")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT:STAGE", help="this cell; may be repeated")
    options = parser.parse_args()
    try:
        cells = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    started, said = time.time(), {}
    for fault, stage in (progress := tqdm(cells)):
        progress.set_description(f"{fault}: {stage}")
        said[fault, stage] = run_cell(fault, stage, options.out.resolve())
        progress.write(f"{fault}: {stage}: {said[fault, stage]}")
    print(table(said))
    failed = sum(says.startswith("FAILED") for says in said.values())
    print(f"{len(said)} cells, {failed} failed, {(time.time() - started) / 60:.1f} min")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
