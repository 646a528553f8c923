"""Writes docs/config.md from the comments of conf/: the YAML is the one place where a value and its meaning stand.

python docs/generate_config.py            # writes docs/config.md
python docs/generate_config.py --check    # exit status 1 where the committed page is another
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "config.md"
WITHIN = ("model/head",)  # groups inside a group; other folders are part of an option's name
LEFT_OUT = ("defaults", "hydra")  # sections of train.yaml that wire Hydra, and groups that only serve it

HEAD = """# Config

<!-- Written by docs/generate_config.py from the comments of conf/; change those. -->

A run is composed from `conf/train.yaml` and one option of each group. Later wins: the shared values, the groups,
`experiment`, `debug`, the command line. `rmlab --help` prints the composed config, `rmlab --cfg job` prints it
resolved, and `rmlab --info defaults` says where each part comes from.

```bash
rmlab loss=margin loss.center.weight=0.01 peft=lora trainer.learning_rate=1e-4
rmlab loss=margin trainer.learning_rate=1e-4 --cfg job
```

| group | what it sets |
|---|---|
| `model` | checkpoint or random weights, dtype, attention, head initialisation, tokens, template, quantisation |
| `data` | sources, columns, split, `max_length`, what happens to overlong and identical rows |
| `loss` | a sum of named, weighted terms |
| `peft` | an adapter: `method` is any `peft` method, the other keys options of its config class |
| `logger` | where curves go besides the run directory; W&B is offline by default |
| `eval` | benchmark [suites](suites.md) that are scored at the end, one or several: `eval=[llmbar,rm_bench]` |
| `experiment` | named deltas over everything else, one per reported result |
| `debug` | quick looks: does everything connect, does it overfit a few rows |

`null` stands for nothing, `???` for a value that must be given. A wrong key or value is refused before a model loads,
with the nearest right one. `trainer` takes every field of `transformers.TrainingArguments`.
"""

LINE = re.compile(
    r"""^(?P<indent>\ *)(?P<key>[\w.]+):\ *(?P<value>"[^"]*"|[^\#\s].*?|)(?:\ +\#\ (?P<comment>.*))?$""", re.X
)


def entries(text: str) -> Iterator[tuple[str, str, str]]:
    """(dotted key, value, comment) of each line of a YAML file; a section has an empty value."""
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = LINE.match(line)
        if not found or line.lstrip().startswith("#"):
            continue
        depth = len(found["indent"])
        path = [(d, key) for d, key in path if d < depth] + [(depth, found["key"])]
        yield ".".join(key for _, key in path), found["value"], found["comment"] or ""


def shared_values() -> str:
    """A table per section of train.yaml; the values above all sections come first."""
    sections: dict[str, list[str]] = {"": []}
    remarks: dict[str, str] = {}
    for key, value, comment in entries((CONF / "train.yaml").read_text(encoding="utf-8")):
        section = key.partition(".")[0] if "." in key or not value else ""
        if section in LEFT_OUT:
            continue
        if not value:
            sections.setdefault(section, [])
            remarks[section] = comment
        else:
            sections[section].append(f"| `{key}` | `{cell(value)}` | {cell(comment)} |")
    parts = []
    for section, rows in sections.items():
        title = f"### `{section}`" if section else "### The run as a whole"
        remark = f"{remarks[section][0].upper()}{remarks[section][1:]}.\n\n" if remarks.get(section) else ""
        parts.append(f"{title}\n\n{remark}| key | default | meaning |\n|---|---|---|\n" + "\n".join(rows))
    return "## Shared values\n\n" + "\n\n".join(parts)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def group(folder: Path) -> str:
    """A group: what each option is, and its values as they stand in the file."""
    name = folder.relative_to(CONF).as_posix()
    parts = [f"### Options of `{name}`"]
    others = [CONF / other for other in WITHIN if other != name]
    files = [file for file in folder.rglob("*.yaml") if not {*file.parents} & {*others}]
    for file in sorted(files, key=lambda file: (len(file.parts), file)):
        option = file.relative_to(folder).with_suffix("").as_posix()
        lines = file.read_text(encoding="utf-8").splitlines()
        lines = [line for line in lines if not line.startswith("# @package")]
        count = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        about = " ".join(line.lstrip("# ") for line in lines[:count])
        body = "\n".join(lines[count:]).strip("\n")
        parts.append(f"**`{name}={option}`**: {about}")
        if body:
            parts.append(f"```yaml\n{body}\n```")
    return "\n\n".join(parts)


def page() -> str:
    folders = sorted(f for f in CONF.iterdir() if f.is_dir() and f.name not in LEFT_OUT)
    folders = sorted([*folders, *(CONF / name for name in WITHIN)])
    groups = "\n\n".join(group(folder) for folder in folders)
    return f"{HEAD}\n{shared_values()}\n\n## Groups\n\n{groups}\n"


def main() -> int:
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print("docs/config.md is not what conf/ says; run python docs/generate_config.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
