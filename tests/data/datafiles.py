"""What the tests of data share: files of rows, and sources that read them."""

import gzip
import json
import subprocess
import sys

import pytest
from conftest import DATA
from datasets import Dataset

from rmlab.data import DATASETS

TEMPLATE = (
    "{{ bos_token }}{{ tools }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ m['tool_calls'] }}"
    "{% endfor %}{{ eos_token }}"
)
"""Of chats, with tools and calls of them."""


def public_schemas(tmp_path_factory):
    """A folder of small files with the columns of public data sets, made once; without what makes them, no test."""
    place = tmp_path_factory.getbasetemp() / "schemas"
    script = DATA.parent / "schemas" / "make.py"
    if not script.exists():
        pytest.skip("what makes files with public schemas is absent")
    if not place.exists():
        subprocess.run([sys.executable, str(script), str(place)], check=True, capture_output=True, timeout=60)
    return place


def write(path, rows, kind):
    text = json.dumps(rows) if kind.startswith("json.") or kind == "json" else "\n".join(map(json.dumps, rows))
    if kind == "parquet":
        Dataset.from_list(rows).to_parquet(str(path))
    elif kind == "parquet.gz":
        raw = path.with_suffix("")
        Dataset.from_list(rows).to_parquet(str(raw))
        path.write_bytes(gzip.compress(raw.read_bytes()))
        raw.unlink()
    elif kind.endswith("gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def load(path, **options):
    return DATASETS.build("load", {"path": str(path), **options})()
