"""mkdocs: what a page links to outside docs/, and the fields of a dataclass.

A file that a page links to outside docs/ (figures, sweeps, examples) is copied into the site, so that one link,
`../benchmarks/losses.png`, is right in a checkout, on a code host and on the site. `<!-- fields: FILE CLASS -->`
becomes a table of a dataclass's fields, read without importing it: what they mean is their help, else the comment
behind them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
OUTSIDE = re.compile(r"\]\(\.\./([\w./-]+)")
FIELDS = re.compile(r"<!-- fields: (\S+) (\w+) -->")


def on_files(files: Any, config: Any) -> Any:
    for page in files.documentation_pages():
        for target in OUTSIDE.findall(page.content_string):
            if (ROOT / target).is_file() and files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return FIELDS.sub(lambda found: table_of_fields(ROOT / found[1], found[2]), OUTSIDE.sub(r"](\1", markdown))


def table_of_fields(file: Path, name: str) -> str:
    head = "| field | type | default | meaning |\n|---|---|---|---|\n"
    rows = [
        (f"`{field}`", f"`{kind}`", default and f"`{default}`", text)
        for field, kind, default, text in fields(file, name)
    ]
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fields(file: Path, name: str) -> Iterator[tuple[str, str, str, str]]:
    """(name, type, default, meaning) of each field."""
    lines = file.read_text(encoding="utf-8").splitlines()
    for statement in class_of(file, name).body:
        if isinstance(statement, ast.AnnAssign):
            kind = ast.unparse(statement.annotation)
            value, comment = statement.value, lines[(statement.end_lineno or 1) - 1].partition("  # ")[2]
            if isinstance(value, ast.Call):
                given = {keyword.arg: keyword.value for keyword in value.keywords}
                text = ast.literal_eval(given["metadata"])["help"] if "metadata" in given else comment
                value = given.get("default") or ast.Call(given["default_factory"], [], [])
            else:
                text = comment
            yield ast.unparse(statement.target), kind, written(value), text


def written(value: ast.expr | None) -> str:
    """A default as it is written; one that stands in another part's class is looked up there."""
    while isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
        owner, name = value.value.id, value.attr
        files = [f for f in (ROOT / "rmlab").rglob("*.py") if f"class {owner}" in f.read_text(encoding="utf-8")]
        body = class_of(files[0], owner).body if files else []
        found = [s.value for s in body if isinstance(s, ast.AnnAssign) and ast.unparse(s.target) == name]
        if not found:
            break
        value = found[0]
    return "" if value is None else ast.unparse(value)


def class_of(file: Path, name: str) -> ast.ClassDef:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return next(node for node in body if isinstance(node, ast.ClassDef) and node.name == name)
