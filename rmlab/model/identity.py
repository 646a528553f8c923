"""Which model it is: where its files lie, and a hash of what they hold. No torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

from rmlab.files import file_hash, read
from rmlab.messages import UserError
from rmlab.model.config import ModelConfig, base_of_adapter, hub_file
from rmlab.model.reference import REFERENCE

# Of a run directory, see runner/directory.py, which lies above.
RUN, MADE, METRICS = "config.yaml", "environment.json", "metrics.json"
UNREAD = (".md", ".png", REFERENCE)  # how names of files end that change no raw reward


def model_folder(path: str | Path) -> str:
    """Where the model of a run directory lies; any other folder, and a hub name, as it is.

    UserError for a run that has kept none.
    """
    folder = Path(path).expanduser()
    if not (folder / RUN).is_file() or (folder / "config.json").exists():
        return str(path)
    for name in ("model", "adapter"):
        if (folder / name).is_dir():
            return str(folder / name)
    raise UserError(f"{path} is a run that has kept no model; train it with run.keep=[model], or run.keep=[changes]")


def template_of_run(path: str | Path) -> dict[str, Any]:
    """The variables of the chat template that a run directory was trained with; {} for any other folder."""
    folder = Path(path).expanduser()
    if not (folder / RUN).is_file():
        return {}
    return dict((read(folder / RUN).get("data") or {}).get("chat_template_kwargs") or {})


def identity_of(path: str | Path) -> str:
    """A hash of all files of a model folder that its rewards depend on; of one on the hub, of its name and commit.

    Of an adapter, of its base model too. Changes of a base hold its hash themselves.
    """
    from rmlab.data.cache import digest  # and with it datasets, which takes a second

    config = ModelConfig(path=model_folder(path))
    base = base_of_adapter(config)
    below = [] if base is None else [identity_of(base)]
    folder = Path(str(config.path)).expanduser()
    if not folder.is_dir():
        file = config.place_of("config.json") or hub_file(str(config.path), "adapter_config.json", None)
        return digest([str(config.path), file.parent.name if file else None, *below])
    files = [(str(f.relative_to(folder)), f) for f in sorted(folder.rglob("*")) if f.is_file()]
    read = [(name, f) for name, f in files if not name.startswith(".") and not name.endswith(UNREAD)]
    return digest([[name, file_hash(f)] for name, f in read] + below)


def weights_of_run(path: str | Path) -> str | None:
    """A hash of the model that a run directory has kept, as the run wrote it down at its end; None where it did not."""
    try:
        files = read(Path(path).expanduser() / MADE).get("files") or {}
    except UserError:
        return None
    marks = {name: mark for name, mark in files.items() if name.startswith(("model/", "adapter/"))}
    if any(mark[-1] is None for mark in marks.values()):  # files too large to be hashed: what they led to is
        marks[METRICS] = files.get(METRICS)
    return hashlib.sha256(json.dumps(marks, sort_keys=True).encode()).hexdigest()[:16] if marks else None
