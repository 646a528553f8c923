"""What the tests of data share: files of rows, and sources that read them."""

import gzip
import json

from datasets import Dataset

from rmlab.data import DATASETS


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
